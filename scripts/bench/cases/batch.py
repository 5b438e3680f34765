"""Whole training batches: 16 chips of COCO images with all labels, float32, image planes first.

Steady state of a loader with 2 worker processes: one run is 20 batches (320 chips, 512 px, pyramid
3, 1.667 and 512/long side, mirror images too), from the first task to the last batch, with
nothing left in work at its end. "grouped" has all chips of an image one after the other, as a small
`TRAIN.SHUFFLE_WINDOW` nearly has; "ungrouped" is the order of 2018: any chip of the set.

Sides
* ours: `sniper.loader.stream.BatchStream`, what TrainLoader uses. A worker keeps about 4 decoded
  images, in "ungrouped" one: with more, it would soon hold all 100 images of this small set.
* dataloader: a torch DataLoader with 2 persistent workers and its default collate over
  `peers/plain_chips.py`: cv2 and NumPy, chip by chip, as one writes a Dataset.
* pool: the same Dataset through multiprocessing.Pool(2).imap, for those who have no torch.

Chips are made before, for all sides. The peers decode the image of every chip anew, in both orders.
Images: data/coco_mini, or $SNIPER_SHARED/data/coco_mini; files are in the page cache after the
first round. Compared in the first batch: pixels to 1e-6 of the largest value (the peers subtract
float32 means), boxes and sizes exactly; labels: every sampled anchor has the same label without
sampling, targets are equal to 1e-5, and the numbers of sampled labels are the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Callable

import numpy as np

from bench import compare as agreement
from bench.case import Arrays, Case, Job, PeerMissingError, Prepared, Side
from bench.peers.plain_chips import (
    CHIP_PX,
    MAX_GT,
    PIXEL_MEANS,
    RATIOS,
    SCALES,
    STRIDE,
    PlainChips,
    PlainRpn,
    pool_sample,
    start_pool_worker,
    start_worker,
)

REPO = Path(__file__).resolve().parents[3]
IMAGE_SET = "train2017"
BATCH, BATCHES = 16, 20
PYRAMID, VALID_RANGES = (3.0, 1.667, 512.0), ((-1.0, 80.0), (32.0, 150.0), (120.0, -1.0))
CHIP_ARRAYS = ("offsets", "rects", "level", "negative", "factor", "height", "width")
ROW_ARRAYS = ("row_offsets", "rows", "num_boxes", "num_gt")
# For both workers; an image has about 1 MB. The whole set must not stay decoded from run to run.
CACHE_BYTES = {"grouped": 8 << 20, "ungrouped": 0}


def inputs(rng: np.random.Generator, order: str) -> Arrays:
    """Records, their chips, and the order of the samples; only a sentence without images."""
    folder = images_folder()
    if folder is None:
        return {"missing": np.array("no COCO images: link them to data/coco_mini")}
    from sniper.chips.sampler import ChipSettings, make_epoch
    from sniper.data import append_flipped, filter_trainable, load_dataset

    found = load_dataset("coco", str(folder), IMAGE_SET).records
    records = filter_trainable(append_flipped(found))
    settings = ChipSettings(scales=PYRAMID, valid_ranges=VALID_RANGES)
    epoch = make_epoch(records, settings, seed=0, epoch=0, batch_size=BATCH)
    return {
        "paths": np.array([record.image_path for record in records]),
        "sizes": np.array([(record.width, record.height) for record in records]),
        "flipped": np.array([record.flipped for record in records]),
        "boxes": np.concatenate([record.boxes for record in records]),
        "classes": np.concatenate([record.classes for record in records]),
        "box_offsets": np.cumsum([0, *(len(record.boxes) for record in records)]),
        "valid_ranges": np.array(VALID_RANGES),
        "samples": ordered(rng, epoch.chips.offsets, order),
        **{name: getattr(epoch.chips, name) for name in CHIP_ARRAYS + ROW_ARRAYS},
    }


def images_folder() -> Path | None:
    shared = Path(os.environ.get("SNIPER_SHARED", REPO.parent / "shared"))
    folders = (REPO / "data" / "coco_mini", shared / "data" / "coco_mini")
    return next((folder for folder in folders if folder.is_dir()), None)


def ordered(rng: np.random.Generator, offsets: np.ndarray, order: str) -> np.ndarray:
    """(BATCH * BATCHES, 2) rows of record, chip of the record."""
    counts = np.diff(offsets)
    every = [np.stack([np.full(n, r), np.arange(n)], axis=1) for r, n in enumerate(counts)]
    samples = np.concatenate([every[record] for record in rng.permutation(len(every))])
    if order == "ungrouped":
        samples = rng.permutation(samples)
    return samples[: BATCH * BATCHES].astype(np.int32)


def ours(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    require_images(arrays)
    from sniper.chips.chip_table import ChipTable
    from sniper.data.record import Record
    from sniper.loader.batch_settings import BatchSettings
    from sniper.loader.stream import BatchStream
    from sniper.targets.anchors import base_anchors
    from sniper.targets.contract import BatchContract
    from sniper.targets.gt import GtLabels
    from sniper.targets.rpn import RpnLabels, RpnTargets

    records = [
        Record(
            image_path=str(arrays["paths"][r]),
            image_id=r,
            width=int(arrays["sizes"][r, 0]),
            height=int(arrays["sizes"][r, 1]),
            flipped=bool(arrays["flipped"][r]),
            boxes=arrays["boxes"][begin:end],
            classes=arrays["classes"][begin:end],
            is_gt=np.ones(end - begin, bool),
        )
        for r, (begin, end) in enumerate(zip(arrays["box_offsets"], arrays["box_offsets"][1:]))
    ]
    parts = (
        RpnLabels(RpnTargets(base_anchors(STRIDE, RATIOS, SCALES), STRIDE, CHIP_PX)),
        GtLabels(CHIP_PX, MAX_GT, VALID_RANGES),
    )
    # The plain code cuts chips as everybody does: on whole px, as in 2018.
    settings = BatchSettings(BatchContract(CHIP_PX, parts), PIXEL_MEANS, legacy_boxes=True)
    chips = ChipTable(**{name: arrays[name] for name in CHIP_ARRAYS + ROW_ARRAYS})
    stream = BatchStream(
        records,
        settings,
        batch_size=BATCH,
        num_workers=threads,
        seed=0,
        cache_bytes=CACHE_BYTES[params["order"]],
    )

    def batches() -> Iterator[Arrays]:
        stream.start(chips.chip, arrays["samples"], epoch=0)
        return ({**batch.data, **batch.label} for batch in stream)

    return prepared(batches)


def dataloader(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    require_images(arrays)
    try:
        import torch
        from torch.utils.data import DataLoader
    except ImportError as error:
        raise PeerMissingError(
            f"torch is not installed ({error}): pip install torch==2.13.0 and "
            "opencv-python-headless, best elsewhere, and name it with --peer-python dataloader=PATH"
        ) from None
    torch.set_num_threads(threads)
    loader = DataLoader(
        PlainChips(arrays),
        batch_size=BATCH,
        num_workers=threads,
        persistent_workers=True,
        worker_init_fn=start_worker,
    )
    return prepared(lambda: iter(loader), unsampled_first_batch(arrays))


def pool(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    require_images(arrays)
    import multiprocessing

    workers = multiprocessing.get_context("fork").Pool(threads, start_pool_worker, (arrays,))

    def batches() -> Iterator[Arrays]:
        samples = workers.imap(pool_sample, range(BATCH * BATCHES), chunksize=4)
        for _ in range(BATCHES):
            part = [next(samples) for _ in range(BATCH)]
            yield {name: np.stack([sample[name] for sample in part]) for name in part[0]}

    return prepared(batches, unsampled_first_batch(arrays))


def require_images(arrays: Arrays) -> None:
    if "missing" in arrays:
        raise PeerMissingError(str(arrays["missing"]))


def prepared(
    batches: Callable[[], Iterable[Arrays]], more: Callable[[], Arrays] = dict
) -> Prepared:
    def run() -> int:
        return sum(1 for _ in batches())

    def first_batch(count: int) -> Arrays:
        if count != BATCHES:
            raise ValueError(f"{count} batches instead of {BATCHES}")
        rest = iter(batches())
        found = {name: np.array(array) for name, array in next(rest).items()}
        for _ in rest:
            pass  # nothing may be left in work when the timing begins
        return {**found, **more()}

    return Prepared(run, first_batch)


def unsampled_first_batch(arrays: Arrays) -> Callable[[], Arrays]:
    """Labels and targets of the first batch without sampling: the generators differ."""

    def labels() -> Arrays:
        plain, rpn = PlainChips(arrays), PlainRpn()
        found = []
        for index in range(BATCH):
            chip = int(plain.chips[index])
            record, factor = int(arrays["samples"][index, 0]), float(arrays["factor"][chip])
            valid, others, _ = plain.boxes(record, chip, arrays["rects"][chip], factor)
            found.append(rpn(valid, others, None)[:2])
        label, target = (np.stack(arrays_of) for arrays_of in zip(*found))
        return {"all_labels": label, "all_targets": target}

    return labels


def compare(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    pixels = agreement.close_array(ours["data"], peer["data"], "pixels", 1e-6)
    for exact in ("gt_boxes", "im_info", "valid_ranges"):
        agreement.same_array(ours[exact], peer[exact], exact)
    for value in (0, 1):
        counts = [(side["label"] == value).sum(axis=1) for side in (ours, peer)]
        agreement.same_array(*counts, f"numbers of labels {value}")
        chosen = ours["label"] == value
        agreement.same_array(ours["label"][chosen], peer["all_labels"][chosen], f"labels {value}")
    positive = np.repeat((ours["label"] == 1).reshape(BATCH, -1, 1, 1024), 4, axis=2)
    positive = positive.reshape(ours["bbox_weight"].shape)
    agreement.same_array(ours["bbox_weight"], positive.astype(np.float32), "weights")
    targets = np.where(positive, peer["all_targets"], 0)
    agreement.close_array(ours["bbox_target"], targets, "targets", 1e-5)
    return f"{pixels}; boxes, labels and targets equal"


CASE = Case(
    name="batch",
    summary="batches of 16 chips with labels from COCO images, 2 workers (--threads: workers)",
    jobs=[
        Job(order, lambda rng, order=order: inputs(rng, order), {"order": order}, goal=goal)
        for order, goal in (
            ("grouped", {"dataloader": 3.0, "pool": 3.0}),
            ("ungrouped", {"dataloader": 1.5, "pool": 1.5}),
        )
    ],
    sides={
        "ours": Side(ours),
        "dataloader": Side(dataloader, foreign=True),
        "pool": Side(pool, foreign=True),
    },
    compare=compare,
    threads=(2,),
)
