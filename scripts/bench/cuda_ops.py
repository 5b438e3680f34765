#!/usr/bin/env python3
"""Times the CUDA kernels of the operators on the GPU of this machine; see README.md beside it.

    python scripts/bench/cuda_ops.py
    python scripts/bench/cuda_ops.py --only psroi --json results.json

Needs libsniper_cuda.so (bash scripts/compile.sh --cuda), g++ and NumPy, and for the peers PyTorch
and torchvision; no MXNet. The launchers are called through the tests' harness. Outputs are compared
with the CPU kernels before anything is timed.

"call" is the time of a call among others in a row, launches by the host included; "kernels" the
same work replayed as one CUDA graph. Both are medians of --rounds rounds between two CUDA events.
Exit code: 0 measured, 1 outputs differ, 2 no GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(ROOT / "scripts"), str(ROOT)]

from bench import cuda_peers as peers  # noqa: E402
from bench import inputs as make  # noqa: E402
from bench.cases import chips as chip_case  # noqa: E402
from bench.cases import mask_targets as mask_case  # noqa: E402
from bench.cases import multi_proposal_target as target_case  # noqa: E402
from bench.cases import psroi as pool_case  # noqa: E402
from bench.cases import rfcn as rfcn_case  # noqa: E402
from tests.native import cuda_calls as calls  # noqa: E402
from tests.native import cuda_harness as harness  # noqa: E402
from tests.native import cuda_sources as sources  # noqa: E402

REFERENCE = ROOT / "build" / "cpu_reference"  # the CPU kernels, compiled
ROUND_MS = 8.0
TARGET_NAMES = ("bbox_pred", "im_info", "gt_boxes", "valid_ranges")
PROPOSALS = {"pre_nms_top_n": 6000, "post_nms_top_n": 300, "nms_thresh": 0.7, "min_size": 3}
# A run is all calls of a job, in order: (operator, its function with the inputs).
Calls = list[tuple[str, Callable[..., Any]]]


# ---- Jobs ----------------------------------------------------------------------------------------


def one(operator: str, *arguments: Any, **settings: Any) -> Calls:
    function = getattr(calls, operator)
    return [(operator, lambda backend: function(backend, *arguments, **settings))]


def proposals(height: int, width: int, batch: int) -> Calls:
    maps = make.rpn_maps(np.random.default_rng(0), height, width, batch, True)
    return one("multi_proposal", *maps.values(), **PROPOSALS, **calls.RESNET)


def targets(operator: str) -> Calls:
    arrays = target_case.inputs(np.random.default_rng(0), True)
    scores = arrays["cls_prob"].reshape(target_case.CHIPS, 2, -1, target_case.CELLS)
    rest = [arrays[name] for name in TARGET_NAMES]
    return one(operator, scores, *rest, **PROPOSALS, **calls.RESNET)


def detections(count: int, classes: int, images: int, threshold: float) -> Calls:
    """`count` boxes of each class and image."""
    rows = peers.detections(count, classes, images)
    return one("multi_scale_nms", *rows, np.float32([[-1, -1]]), threshold=threshold)


def pooling(operator: str, batch: int) -> Calls:
    rng = np.random.default_rng(0)
    each = [pool_case.inputs(rng, True) for _ in range(batch)]
    for image, arrays in enumerate(each):
        arrays["rois"][:, 0] = image
    names = ["data", "rois", "trans", *(["head"] if operator == "psroi_backward" else [])]
    arrays = [np.concatenate([one_image[name] for one_image in each]) for name in names]
    return one(operator, *arrays, pool_case.ATTRIBUTES)


def rfcn_pooling(operator: str, channels: int, head: tuple[int, ...], batch: int) -> Calls:
    """`channels` and `head` as in the case."""
    rng = np.random.default_rng(0)
    each = [rfcn_case.inputs(rng, channels, head) for _ in range(batch)]
    for image, arrays in enumerate(each):
        arrays["rois"][:, 0] = image
    names = ["data", "rois", *(["head"] if operator.endswith("backward") else [])]
    arrays = [np.concatenate([one_image[name] for one_image in each]) for name in names]
    if operator.startswith("psroi"):
        attributes = {**rfcn_case.SCORES, "part_size": 0, "trans_std": 0.0}
        return one(operator, *arrays[:2], None, *arrays[2:], attributes)
    bins = {"pooled_size": rfcn_case.BINS, "spatial_scale": 1 / 16}
    return one(operator, *arrays, bins)


def mask_targets() -> Calls:
    arrays = mask_case.inputs(np.random.default_rng(0), (8, 61))
    return one("mask_rcnn_target", *(arrays[name] for name in ("rois", "polygons", "ids")))


def chips(kind: str, boxes: int) -> Calls:
    """All levels of all images of the CPU benchmark, one call each."""
    inputs = getattr(chip_case, f"{kind}_inputs")(np.random.default_rng(0), True, boxes)
    levels = chip_case.levels(inputs)
    return [call for level in levels for call in one("chip_generator", *level, max_chips=100)]


def relu6(operator: str) -> Calls:
    """A map of 100 MB, twice the largest cache of a GPU of today."""
    rng = np.random.default_rng(0)
    count = 2 if operator == "relu6_backward" else 1
    shape = (16, 96, 128, 128)
    return one(operator, *(rng.normal(3, 4, shape).astype(np.float32) for _ in range(count)))


def jobs() -> Iterator[tuple[str, Callable[[], Calls]]]:
    for batch in (1, 16):
        for height, width in ((32, 32), (50, 80), (88, 125)):
            name = f"multi_proposal: {height}x{width}, batch {batch}"
            yield name, partial(proposals, height, width, batch)
    for operator in ("multi_proposal_target", "multi_proposal_target_mask"):
        yield f"{operator}: 16 chips", partial(targets, operator)
    for kind, threshold in (("soft", -1.0), ("hard", 0.7)):
        for count in (300, 1000, 3000, 6000, 12000):
            name = f"multi_scale_nms: {kind}, one class of {count}"
            yield name, partial(detections, count, 1, 1, threshold)
        name = f"multi_scale_nms: {kind}, 16 images, 80 classes of 100"
        yield name, partial(detections, 100, 80, 16, threshold)
    for batch in (1, 16):
        for direction in ("forward", "backward"):
            name = f"psroi {direction}: {300 * batch} RoIs of {batch} chips"
            yield name, partial(pooling, f"psroi_{direction}", batch)
    bins = rfcn_case.BINS
    for direction in ("forward", "backward"):
        maps = (2 * bins**2, (2, bins, bins), 16)
        name = f"psroi {direction}: score maps, 4800 RoIs of 16 chips"
        yield name, partial(rfcn_pooling, f"psroi_{direction}", *maps)
        for classes in (120, 1000):
            name = f"roi_max_mean {direction}: {classes} classes, 4800 RoIs of 16 chips"
            yield name, partial(rfcn_pooling, f"roi_max_mean_{direction}", classes, (classes,), 16)
    yield "mask_rcnn_target: 128 RoIs", mask_targets
    yield "chip_generator: positive, 16 images of 8 boxes", partial(chips, "positive", 8)
    for direction in ("forward", "backward"):
        yield f"relu6 {direction}: 16x96x128x128", partial(relu6, f"relu6_{direction}")
    for boxes in (300, 1000, 2000):
        name = f"chip_generator: negative, 4 images of {boxes} proposals"
        yield name, partial(chips, "negative", boxes)


# ---- Timing --------------------------------------------------------------------------------------


class Clock:
    """Medians between CUDA events on one stream."""

    def __init__(self, device: Any, rounds: int) -> None:
        self.device, self.rounds = device, rounds
        self.events = [ctypes.c_void_p(), ctypes.c_void_p()]
        for event in self.events:
            device.call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))

    def once_ms(self, run: Callable[[], None], times: int) -> float:
        """Mean of `times` runs in a row."""
        stream, elapsed = ctypes.c_void_p(self.device.stream), ctypes.c_float()
        self.device.call("cuEventRecord", self.events[0], stream)
        for _ in range(times):
            run()
        self.device.call("cuEventRecord", self.events[1], stream)
        self.device.call("cuEventSynchronize", self.events[1])
        self.device.call("cuEventElapsedTime", ctypes.byref(elapsed), *self.events)
        return elapsed.value / times

    def median_ms(self, run: Callable[[], None]) -> tuple[float, float, float]:
        """Median, least and largest of the rounds."""
        self.once_ms(run, 3)
        times = max(1, int(ROUND_MS / max(self.once_ms(run, 3), 1e-3)))
        rounds = [self.once_ms(run, times) for _ in range(self.rounds)]
        return statistics.median(rounds), min(rounds), max(rounds)


def captured(device: Any, run: Callable[[], None]) -> Callable[[], None]:
    """`run` as a CUDA graph."""
    stream = ctypes.c_void_p(device.stream)
    graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
    device.call("cuStreamBeginCapture_v2", stream, ctypes.c_int(2))
    run()
    device.call("cuStreamEndCapture", stream, ctypes.byref(graph))
    device.call(
        "cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0)
    )
    return lambda: device.call("cuGraphLaunch", executable, stream)


def measure(gpu: Any, cpu: Any, clock: Clock, job: Calls) -> dict[str, Any]:
    worst: dict[int, float] = {}
    for operator, call in job:
        found = calls.differences(operator, call(gpu), call(cpu))
        worst = {k: max(worst.get(k, 0.0), value) for k, value in enumerate(found)}
    prepared = [call(gpu.prepared()) for _, call in job]
    gpu.device.wait()

    def run() -> None:
        for call in prepared:
            call.launch(gpu.device.stream)

    result = {"call_ms": clock.median_ms(run)}
    result["kernels_ms"] = clock.median_ms(captured(gpu.device, run))
    gpu.device.finish()
    for call in prepared:
        call.release()
    loose = {k: value for k, value in worst.items() if value > 0}
    result["outputs"] = (
        ", ".join(f"output {k} to {v:.0e}" for k, v in loose.items()) or "equal bits"
    )
    return result


# ---- The table -----------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only jobs with TEXT in their name"
    )
    parser.add_argument("--rounds", type=int, default=25, help="of each job (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    arguments = parser.parse_args()
    found, reason = harness.find_gpu()
    if not found:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    gpu = harness.Backend(harness.GpuDevice(*found))
    clock = Clock(gpu.device, arguments.rounds)
    results: dict[str, Any] = {"GPU": gpu.device.model()}
    failed = False
    print(
        f"{results['GPU']}\n\n| job | call ms | kernels ms (min-max) | outputs |\n|---|---|---|---|"
    )
    REFERENCE.mkdir(parents=True, exist_ok=True)
    cpu = harness.Backend(harness.HostDevice(sources.build_reference(REFERENCE)))
    for name, make_calls in jobs():
        if arguments.only not in name:
            continue
        try:
            result = measure(gpu, cpu, clock, make_calls())
        except AssertionError as error:
            print(f"| {name} | FAILED: {error} |", flush=True)
            failed = True
            continue
        results[name] = result
        kernels = "{:.4f} ({:.4f}-{:.4f})".format(*result["kernels_ms"])
        row = f"| {name} | {result['call_ms'][0]:.4f} | {kernels} | {result['outputs']} |"
        print(row, flush=True)
    for name, result in peers.measure(gpu, arguments.rounds, arguments.only):
        results[name] = result
        print(f"| {name} | {result['call_ms']:.4f} | | {result['outputs']} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
