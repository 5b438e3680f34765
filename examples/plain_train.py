"""SNIPER training on one page, without the engine: records, loader, symbol, bind, loop.

    sniper make-toy-data data/toy
    python examples/plain_train.py data/toy --updates 200

`main_train.py` does the same updates (a test compares the weights) and adds what a real run needs:
configuration, several devices and machines, checkpoints and --resume, validation, logs, guards.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import sniper  # noqa: F401  (first of all: prepares the process for MXNet)

import mxnet as mx  # isort: skip

from sniper.chips import ChipSettings
from sniper.data import Record, append_flipped, filter_trainable, load_dataset
from sniper.loader.batch_settings import BatchSettings
from sniper.loader.train import TrainLoader
from sniper.models.assembly import (
    DetectorSpec,
    ProposalSettings,
    build_detector,
    train_input_shapes,
)
from sniper.models.initialisers import initialise
from sniper.models.weights import Params, with_test_params, write_params
from sniper.targets.anchors import base_anchors

STRIDE, ANCHOR_SCALES, ANCHOR_RATIOS = 16, (1.5, 2.5, 4, 6.5, 10), (0.5, 1, 2)


def chip_settings() -> ChipSettings:
    """A pyramid of three levels, finest first, and the object sizes that each is trained on."""
    ranges = ((-1, 50), (36, 130), (100, -1))  # sqrt(width x height), image px
    return ChipSettings(scales=(2.0, 0.7, 128.0), valid_ranges=ranges, chip_size=128)


def batch_settings(chips: ChipSettings) -> BatchSettings:
    """What the arrays of a chip look like."""
    return BatchSettings(
        chip_size=chips.chip_size,
        feature_stride=STRIDE,
        base_anchors=base_anchors(STRIDE, ANCHOR_RATIOS, ANCHOR_SCALES),
        pixel_means=(103.939, 116.779, 123.68),
        valid_ranges=chips.valid_ranges,
        rpn_batch_size=64,
    )


def detector_spec(num_classes: int, batch_images: int) -> DetectorSpec:
    """A narrow MobileNetV2 that a CPU trains from scratch."""
    return DetectorSpec(
        symbol="mobilenetv2_e2e",
        num_classes=num_classes,
        anchor_scales=ANCHOR_SCALES,
        anchor_ratios=ANCHOR_RATIOS,
        feature_stride=STRIDE,
        batch_images=batch_images,
        rpn_batch_size=64,
        bn_momentum=0.95,
        width=0.5,
        activation="relu",
        dilate=False,
        rpn_channels=64,
        roi_channels=64,
        fc_channels=256,
        proposal=ProposalSettings(pre_nms_top_n=-1, post_nms_top_n=20),
        bbox_loss_divisor=500,
    )


def train(
    records: Sequence[Record],
    chips: ChipSettings,
    batch: BatchSettings,
    spec: DetectorSpec,
    *,
    updates: int,
    lr: float = 0.05,
    wd: float = 1e-4,
    seed: int = 0,
) -> tuple[Params, Params]:
    """Trains from scratch on the CPU; returns parameters and batch-norm averages by name."""
    with TrainLoader(
        records, chips, batch, batch_size=spec.batch_images, num_workers=1, seed=seed
    ) as loader:
        loader.start_epoch(0)  # forks its worker: before MXNet starts threads
        symbol = build_detector(spec, train=True)
        shapes = train_input_shapes(spec, chips.chip_size)
        arg, aux, _ = initialise(symbol, shapes, None, seed, init="scratch")
        requests = {name: "write" if name in arg else "null" for name in symbol.list_arguments()}
        bound = symbol.simple_bind(mx.cpu(), grad_req=requests, **shapes)
        bound.copy_params_from(arg, aux)
        names = [name for name in symbol.list_arguments() if name in arg]
        sgd = mx.optimizer.SGD(
            learning_rate=lr, momentum=0.9, wd=wd, sym=symbol, param_idx2name=dict(enumerate(names))
        )
        update = mx.optimizer.get_updater(sgd)
        for number in range(updates):
            made = next(loader, None)
            if made is None:
                loader.start_epoch(loader.epoch + 1)
                made = next(loader)
            for name, array in {**made.data, **made.label}.items():
                bound.arg_dict[name][:] = array
            bound.forward(is_train=True)
            bound.backward()
            for index, name in enumerate(names):
                update(index, bound.grad_dict[name], bound.arg_dict[name])
            mx.nd.waitall()
            print(f"update {number + 1} of {updates}", end="\r", flush=True)
        return {name: bound.arg_dict[name] for name in names}, dict(bound.aux_dict)


def main() -> None:
    """Reads the arguments, trains on `<folder>/.../instances_train.json`, writes the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="data set in COCO layout")
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("plain.params"))
    args = parser.parse_args()
    dataset = load_dataset("coco", args.folder, "train")
    records = filter_trainable(append_flipped(dataset.records))
    chips = chip_settings()
    spec = detector_spec(len(dataset.class_names), batch_images=16)
    arg, aux = train(records, chips, batch_settings(chips), spec, updates=args.updates)
    write_params(args.out, with_test_params(arg), aux)


if __name__ == "__main__":
    main()
