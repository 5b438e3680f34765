"""SNIPER training on one page, without the engine: records, loader, symbol, bind, loop.

    sniper make-toy-data data/toy
    python examples/plain_train.py data/toy --updates 200

`main_train.py` does the same updates (a test compares the weights) and adds what a real run needs:
configuration, several devices and machines, checkpoints and --resume, validation, logs, guards.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import sniper  # noqa: F401  (first of all: prepares the process for MXNet)

import mxnet as mx  # isort: skip

from sniper.chips import ChipSettings
from sniper.data import Record, append_flipped, filter_trainable, load_dataset
from sniper.loader.batch_settings import BatchSettings
from sniper.loader.train import Batch, TrainLoader
from sniper.models.assembly import (
    batch_contract,
    batch_metrics,
    build_detector,
    short_output_names,
)
from sniper.models.cpu_graph import for_training_on_cpu
from sniper.models.initialisers import initialise
from sniper.models.spec import DetectorSpec, ProposalSettings, TargetSettings
from sniper.models.weights import Params, with_test_params, write_params

# A pyramid of three levels, finest first, and the sizes of the objects that each is trained on.
CHIPS = ChipSettings(
    scales=(2.0, 0.7, 128.0),  # factors; the last one: the long side of the image, px
    valid_ranges=((-1, 50), (36, 130), (100, -1)),  # sqrt(width x height), image px
    chip_size=128,
)
PIXEL_MEANS = (103.939, 116.779, 123.68)  # BGR
SGD = {"learning_rate": 0.02, "momentum": 0.9, "wd": 1e-4}


def detector_spec(num_classes: int, batch_images: int = 16) -> DetectorSpec:
    """A narrow MobileNetV2 that a CPU trains from scratch."""
    anchors = {"anchor_scales": (1.5, 2.5, 4, 6.5, 10), "anchor_ratios": (0.5, 1, 2)}
    backbone = {"width": 0.5, "activation": "relu", "dilate": False, "bn_momentum": 0.95}
    channels = {"rpn_channels": 64, "roi_channels": 64, "fc_channels": 256}
    return DetectorSpec(
        symbol="mobilenetv2_e2e",
        num_classes=num_classes,
        feature_stride=16,
        batch_images=batch_images,
        rpn_batch_size=64,
        proposal=ProposalSettings(pre_nms_top_n=-1, post_nms_top_n=20),
        bbox_loss_divisor=500,
        targets=TargetSettings(valid_ranges=CHIPS.valid_ranges),
        **{**anchors, **backbone, **channels},
    )


def endless(loader: TrainLoader) -> Iterator[Batch]:
    """Batches of one epoch after the other; every epoch has other chips."""
    for epoch in itertools.count():
        loader.start_epoch(epoch)
        yield from loader


def train(
    records: Sequence[Record], spec: DetectorSpec, updates: int, seed: int = 0
) -> tuple[Params, Params]:
    """Trains from scratch on the CPU; returns parameters and batch-norm averages by name."""
    # The heads say which arrays they need of a chip; loader and network take the same list.
    contract = batch_contract(spec, CHIPS.chip_size)
    batches = BatchSettings(contract, pixel_means=PIXEL_MEANS)
    loading = {"batch_size": spec.batch_images, "num_workers": 1, "seed": seed}
    # Before the network: its worker is a fork, and MXNet has no threads yet.
    with TrainLoader(records, CHIPS, batches, **loading) as loader:
        symbol = build_detector(spec, train=True)
        shapes = contract.input_shapes(spec.batch_images)
        arg, aux, _ = initialise(symbol, shapes, None, seed, init="scratch")
        names = [name for name in symbol.list_arguments() if name in arg]
        as_run = for_training_on_cpu(symbol, shapes)  # with the convolutions of this project
        bound = as_run.simple_bind(mx.cpu(), grad_req=dict.fromkeys(names, "write"), **shapes)
        bound.copy_params_from(arg, aux)
        weights = [bound.arg_dict[name] for name in names]
        gradients = [bound.grad_dict[name] for name in names]
        sgd = mx.optimizer.SGD(sym=symbol, param_idx2name=dict(enumerate(names)), **SGD)
        update = mx.optimizer.get_updater(sgd)
        measure, output_names = batch_metrics(spec), short_output_names(symbol.list_outputs(), spec)
        for number, batch in enumerate(itertools.islice(endless(loader), updates), 1):
            for name, array in {**batch.data, **batch.label}.items():
                bound.arg_dict[name][:] = array
            outputs = bound.forward(is_train=True)  # probabilities and losses
            bound.backward()
            update(list(range(len(names))), gradients, weights)
            named = {name: value.asnumpy() for name, value in zip(output_names, outputs)}
            sums = measure(named, batch.label).items()  # numerator and denominator of each
            figures = [f"{name} {top / max(bottom, 1):.3f}" for name, (top, bottom) in sums]
            print(f"update {number} of {updates}:", ", ".join(figures), flush=True)
        return dict(zip(names, weights)), dict(bound.aux_dict)


def main() -> None:
    """Reads the arguments, trains on `<folder>/.../instances_train.json`, writes the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="data set in COCO layout")
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("plain.params"))
    args = parser.parse_args()
    if args.updates < 1:
        parser.error("--updates: at least 1")
    dataset = load_dataset("coco", args.folder, "train")
    records = filter_trainable(append_flipped(dataset.records))
    arg, aux = train(records, detector_spec(len(dataset.class_names)), args.updates)
    write_params(args.out, with_test_params(arg), aux)


if __name__ == "__main__":
    main()
