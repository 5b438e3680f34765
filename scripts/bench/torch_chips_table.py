"""Chips against whole images at equal network px: torchvision's Faster R-CNN from scratch.

    pip install torch torchvision
    sniper make-toy-data data/toy5 --classes 5 --train 600 --val 60 --test 120
    python scripts/bench/torch_chips_table.py --data data/toy5 --split val --mpx 40 \\
        --seeds 1 --factors 0.5 0.7 1.0
    python scripts/bench/torch_chips_table.py --data data/toy5 --factors 0.7      # half an hour

One detector, that of `examples/torch_chips.py` on a plainer backbone, is trained twice with each
seed: on chips, exported with `sniper export-chips --format coco` (background that resembles a box
that a chip is not trained on gives no loss), and on whole images resized by one factor. A training
ends when the network has seen `--mpx` million px, padding included; batches of both have about as
many px, RoIs and anchors in the loss; optimiser, rate (warm-up, then a cosine, over the px) and
augmentation (mirroring) are equal.

Both detectors look at the same images: at all levels of the recipe's pyramid, merged by its valid
ranges and soft NMS as by `sniper merge-detections`; the second also at its own scale alone, and at
the pyramid without valid ranges. COCO metrics of the split. One thread.

Trainings go on where they were stopped, and what is finished under `--out` is not done again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))

from torch_chips import detector
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FasterRCNN

from bench.training_runs import mean_and_spread, tool
from sniper import load_config
from sniper.chips import test_factor
from sniper.data import Dataset, load_dataset
from sniper.evaluation import protocol_of
from sniper.files import atomic_write, atomic_write_text
from sniper.inference.merge_levels import LevelDetections, merge_levels
from sniper.tools.export_chips import merge_plan

RECIPE = "sniper_mobilenetv2_toy"
CHIPS_OF_BATCH, CHIP_PX = 16, 128
BATCH_PX = CHIPS_OF_BATCH * CHIP_PX**2
# In the loss, of a batch of BATCH_PX.
BATCH_ANCHORS, BATCH_ROIS = 1024, 512
STRIDE_PX = 32  # torchvision pads pictures to whole multiples
WARM_UP = 0.05  # share of the training
SAVE_EVERY = 50  # updates
MAX_NORM = 10.0  # of the gradient
MEASURES = {
    "AP": "ap",
    "AP50": "ap50",
    "small": "ap_small",
    "medium": "ap_medium",
    "large": "ap_large",
}


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture to train on; boxes (n, 4) x1 y1 x2 y2, ends of the last px, in px of the file."""

    path: str
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    factor: float = 1.0
    flips: bool = False  # else there are mirrored pictures among the others

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as the network sees it."""
        return round(self.width * self.factor), round(self.height * self.factor)


@dataclass(frozen=True)
class Batch:
    """Pictures of one update, whether each is mirrored, and what the network sees with padding."""

    samples: tuple[Sample, ...]
    mirrored: tuple[bool, ...]
    px: int


def main() -> int:
    """Trains and tests what is missing, then prints the table."""
    args = _parser().parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    for seed, factor in itertools.product(args.seeds, (None, *args.factors)):
        for how, report in run(args, factor, seed).items():
            rows[how].append(report)
    print(table(rows))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="toy set in COCO layout")
    parser.add_argument("--out", type=Path, default=Path("output/torch_chips"))
    parser.add_argument("--split", default="test", help="to test on (default: %(default)s)")
    parser.add_argument(
        "--factors", nargs="+", type=float, default=[0.7], help="of the whole images"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--mpx", type=float, default=80.0, help="million px of a training (80)")
    parser.add_argument("--lr", type=float, default=2e-3, help="of AdamW (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=1, help="of chips, seen in turn (default: 1)")
    return parser


def run(args: argparse.Namespace, factor: float | None, seed: int) -> dict[str, dict[str, float]]:
    """What the detector of one training reaches, by the way it looks at the images."""
    name = "chips" if factor is None else f"images-{factor:g}"
    folder = args.out / f"{name}-{args.mpx:g}mpx-lr{args.lr:g}-{seed}"
    folder.mkdir(exist_ok=True)
    dataset = load_dataset("coco", args.data, args.split)
    found_path = folder / f"found_{args.split}.npz"
    if not found_path.exists():
        model = trained(args, factor, seed, folder, len(dataset.class_names))
        found = looked_at(model, dataset, factor)
        atomic_write(found_path, lambda path: _save_npz(path, found))
    with np.load(found_path) as file:
        found = dict(file)
    ranges = list(merge_plan(load_config(RECIPE)).valid_ranges)
    every = [(-1.0, -1.0)] * len(ranges)
    pyramid = tuple(range(len(ranges)))
    ways = {"pyramid": (pyramid, ranges)}
    if factor is not None:
        ways["pyramid, all sizes at all levels"] = (pyramid, every)
        ways["its scale alone"] = ((len(ranges),), every)
    return {
        f"{name}, {way}": report(dataset, found, levels, [*of_levels, (-1.0, -1.0)])
        for way, (levels, of_levels) in ways.items()
    }


def _save_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as stream:
        np.savez(stream, **arrays)


def chip_samples(args: argparse.Namespace, epoch: int) -> list[Sample]:
    """The chips of an epoch, exported unless they are there."""
    out = args.out.absolute() / "exported" / str(epoch)
    if not (out / "chips.json").exists():
        keys = ("dataset.dataset_path", args.data.absolute(), "dataset.root_path", args.out)
        classes = ("dataset.NUM_CLASSES", len(load_dataset("coco", args.data, "val").class_names))
        flags = ("--out", out, "--format", "coco", "--epoch", epoch, "--threads", 1)
        tool("export-chips", "--cfg", RECIPE, *flags, "--set", *keys, *classes)
    content = json.loads((out / "annotations" / "instances_chips.json").read_text("utf-8"))
    labels = {one["id"]: place for place, one in enumerate(content["categories"], 1)}
    of_image = defaultdict(list)
    for one in content["annotations"]:
        of_image[one["image_id"]].append(one)
    samples = []
    for image in content["images"]:
        ones = of_image[image["id"]]
        boxes = np.array([one["bbox"] for one in ones], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        trained_on = np.array([not one["iscrowd"] for one in ones], bool)
        classes = np.array([labels[one["category_id"]] for one in ones], np.int64)
        path = str(out / "images" / "chips" / image["file_name"])
        kept = boxes[trained_on], classes[trained_on], boxes[~trained_on]
        samples.append(Sample(path, image["width"], image["height"], *kept))
    return samples


def image_samples(args: argparse.Namespace, factor: float) -> list[Sample]:
    """The whole images, with all their boxes."""
    return [
        Sample(
            *(record.image_path, record.width, record.height),
            *(record.boxes + np.float32([0, 0, 1, 1]), record.classes.astype(np.int64)),
            *(np.zeros((0, 4), np.float32), factor, True),
        )
        for record in load_dataset("coco", args.data, "train").records
    ]


def batches(epochs: Sequence[list[Sample]], seed: int, budget_px: float) -> list[Batch]:
    """All updates of a training: epochs in turn, shuffled, pictures of one orientation together."""
    rng = np.random.default_rng(seed)
    made: list[Batch] = []
    spent_px = 0
    waiting: dict[bool, list[Sample]] = defaultdict(list)
    mean_px = np.mean([_padded([sample]) for samples in epochs for sample in samples])
    # Chips count as full ones: a batch is as wide and high as its largest picture.
    count = CHIPS_OF_BATCH if not epochs[0][0].flips else max(1, round(BATCH_PX / mean_px))
    for samples in itertools.cycle(epochs):
        for index in rng.permutation(len(samples)).tolist():
            sample = samples[index]
            group = waiting[sample.flips and sample.size[0] > sample.size[1]]
            group.append(sample)
            if len(group) < count:
                continue
            mirrored = rng.integers(2, size=count).astype(bool) & sample.flips
            made.append(Batch(tuple(group), tuple(mirrored.tolist()), _padded(group)))
            group.clear()
            spent_px += made[-1].px
            if spent_px >= budget_px:
                return made
    raise AssertionError("the epochs go on for ever")


def _padded(samples: Sequence[Sample]) -> int:
    """Px of a batch of these pictures."""
    sides = np.max([sample.size for sample in samples], axis=0)
    return len(samples) * int(np.prod(np.ceil(sides / STRIDE_PX) * STRIDE_PX))


def plain_backbone() -> BackboneWithFPN:
    """Nine convolutions and FPN: half the time of the example's MobileNetV2."""

    def unit(before: int, after: int, stride: int) -> torch.nn.Sequential:
        convolution = torch.nn.Conv2d(before, after, 3, stride, 1, bias=False)
        return torch.nn.Sequential(convolution, torch.nn.BatchNorm2d(after), torch.nn.ReLU())

    units = [unit(3, 16, 2), unit(16, 32, 2), unit(32, 32, 1)]
    for before, after in ((32, 64), (64, 96), (96, 128)):
        units += [unit(before, after, 2), unit(after, after, 1)]
    layers = {"4": "0", "6": "1", "8": "2"}  # strides 8, 16, 32
    features = torch.nn.Sequential(*units)
    return BackboneWithFPN(features, layers, [64, 96, 128], 64, norm_layer=torch.nn.BatchNorm2d)


def trained(
    args: argparse.Namespace, factor: float | None, seed: int, folder: Path, num_classes: int
) -> FasterRCNN:
    """The detector after its training, which goes on from the last saved state."""
    chips = factor is None
    epochs = [chip_samples(args, epoch) for epoch in range(args.epochs)] if chips else []
    updates = batches(epochs or [image_samples(args, factor or 1)], seed, args.mpx * 1e6)
    torch.manual_seed(seed)
    model = detector(num_classes, plain_backbone()).train()
    of_batch = len(updates[0].samples)
    model.rpn.fg_bg_sampler.batch_size_per_image = BATCH_ANCHORS // of_batch
    model.roi_heads.fg_bg_sampler.batch_size_per_image = BATCH_ROIS // of_batch
    # As many proposals to draw from, which are 100 for a chip.
    model.rpn._post_nms_top_n["training"] = 100 * CHIPS_OF_BATCH // of_batch
    model.rpn._pre_nms_top_n["training"] = 200 * CHIPS_OF_BATCH // of_batch
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01)
    state_path = folder / "state.pt"
    done, spent_px, seconds = 0, 0, 0.0
    if state_path.exists():
        state = torch.load(state_path)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        done, spent_px, seconds = state["done"], state["px"], state["seconds"]
    total_px = sum(batch.px for batch in updates)
    start_s = time.process_time() - seconds
    sums: dict[str, float] = defaultdict(float)
    for number, batch in enumerate(updates[done:], done + 1):
        for group in optimizer.param_groups:
            group["lr"] = args.lr * _share_of_rate(spent_px / total_px)
        images, targets = zip(*loaded(batch))
        losses = model(list(images), list(targets))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        spent_px += batch.px
        for name, loss in losses.items():
            sums[name] += loss.item()
        if number % SAVE_EVERY and number < len(updates):
            continue
        seconds = time.process_time() - start_s
        if not all(map(math.isfinite, sums.values())):
            raise SystemExit(f"{folder}: a loss is not finite: {dict(sums)}")
        since = number % SAVE_EVERY or SAVE_EVERY
        means = ", ".join(f"{name} {value / since:.3f}" for name, value in sums.items())
        print(
            f"{folder.name}: {number} of {len(updates)} updates of {of_batch}, {means}, "
            f"{spent_px / 1e6:.1f} Mpx, {seconds:.0f} s of processor time",
            flush=True,
        )
        sums.clear()
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        state |= {"rng": torch.get_rng_state(), "done": number, "px": spent_px, "seconds": seconds}
        atomic_write(state_path, lambda path, state=state: torch.save(state, path))
    facts = {"updates": len(updates), "pictures": of_batch * len(updates), "px": spent_px}
    content_px = sum(math.prod(one.size) for batch in updates for one in batch.samples)
    facts |= {"padding": 1 - content_px / total_px, "seconds": seconds}
    atomic_write_text(folder / "training.json", json.dumps(facts, indent=1) + "\n")
    return model


def _share_of_rate(share: float) -> float:
    """Of the highest rate, at a share of the training."""
    if share < WARM_UP:
        return max(share / WARM_UP, 0.02)
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP))) / 2


def loaded(batch: Batch) -> Iterator[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Pictures and targets as the example's detector takes them."""
    for sample, mirrored in zip(batch.samples, batch.mirrored):
        image = tensor_of(sample.path, sample.factor, mirrored=mirrored)
        boxes, ignored = (
            each * np.float32(sample.factor) for each in (sample.boxes, sample.ignored)
        )
        if mirrored:
            boxes[:, [0, 2]] = image.shape[2] - boxes[:, [2, 0]]
        yield (
            image,
            {
                "boxes": torch.from_numpy(boxes),
                "labels": torch.from_numpy(sample.labels),
                "ignored": torch.from_numpy(ignored),
            },
        )


def tensor_of(path: str, factor: float, *, mirrored: bool = False) -> torch.Tensor:
    """(3, h, w) RGB from 0 to 1, resized as chips are."""
    image = cv2.imread(path)
    if factor != 1:
        image = cv2.resize(image, None, None, factor, factor, cv2.INTER_LINEAR)
    rgb = image[:, ::-1, ::-1] if mirrored else image[:, :, ::-1]
    return torch.from_numpy(rgb.transpose(2, 0, 1).copy()).float() / 255


@torch.no_grad()
def looked_at(model: FasterRCNN, dataset: Dataset, own: float | None) -> dict[str, np.ndarray]:
    """What the detector finds at each level of the pyramid, and at its own factor as the last."""
    model.eval()
    # NMS is the merging's.
    model.roi_heads.score_thresh, model.roi_heads.nms_thresh = 0.05, 0.7
    model.roi_heads.detections_per_img = 200
    scales = load_config(RECIPE).TEST.SCALES
    found = defaultdict(list)
    for number, record in enumerate(dataset.records):
        factors = [test_factor(record.width, record.height, scale) for scale in scales]
        for level, factor in enumerate([*factors, *([] if own is None else [own])]):
            (result,) = model([tensor_of(record.image_path, factor)])
            boxes = result["boxes"].numpy() / np.float32(factor) - np.float32([0, 0, 1, 1])
            found["rows"].append(np.column_stack([boxes, result["scores"].numpy()]))
            found["classes"].append(result["labels"].numpy().astype(np.int32))
            found["places"].append(np.tile(np.int32([number, level]), (len(boxes), 1)))
        if number % 20 == 19:
            print(f"{number + 1} of {len(dataset.records)} images looked at", flush=True)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def report(
    dataset: Dataset,
    found: dict[str, np.ndarray],
    levels: Sequence[int],
    valid_ranges: Sequence[tuple[float, float]],
) -> dict[str, float]:
    """COCO metrics of what was found at some levels, in points."""
    parts = []
    for number in range(len(dataset.records)):
        parts.append([])
        for level in levels:
            here = (found["places"] == (number, level)).all(axis=1)
            rows = found["rows"][here].astype(np.float32)
            parts[-1].append(LevelDetections(level, 0, rows, found["classes"][here]))
    merged, _ = merge_levels(parts, valid_ranges, merge_plan(load_config(RECIPE)).settings)
    measured = protocol_of(dataset).evaluate(dataset, merged)
    return {title: 100 * float(getattr(measured, key)) for title, key in MEASURES.items()}


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """A line for each way of training and looking: means and half the range over the seeds."""
    lines = [f"| trained on, tested at | {' | '.join(MEASURES)} |", "|---" * 6 + "|"]
    for name, reports in rows.items():
        cells = [mean_and_spread([report[title] for report in reports]) for title in MEASURES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
