"""What the kernels compute, as digests: prints a JSON object that test_isa.py compares between
processes with different SNIPER_MAX_ISA. A script, because the variable is read once a process.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from sniper import native  # before MXNet: it prepares the process
from sniper.native import _native

# isort: split
import mxnet as mx

from tests.native import fuzz_native_cases
from tests.ops import operator_cases

TESTS = Path(__file__).resolve().parents[1]
F = np.float32
# Row counts around the widths of all registers, and rows for several blocks of every loop.
SIZES = [
    {"images": images, "height": side, "width": side + 1, "scales": 3, "ratios": 2, "post": post,
     "rows": rows, "masks": 5, "poison": poison}
    for images, side, post, rows, poison in (
        (1, 3, 7, 2, 0.05), (2, 6, 33, 17, 0), (1, 13, 300, 40, 0), (2, 21, 150, 9, 0.02),
    )
]  # fmt: skip
SEEDS = 4
RESNET = {"scales": (2, 4, 7, 10, 13, 16, 24), "ratios": (0.5, 1, 2), "feature_stride": 16}
MAPS = ("cls_prob", "bbox_pred", "im_info")
TARGETS = ("golden_multi_proposal_target.npz", (*MAPS, "gt_boxes", "valid_ranges"), RESNET)
GOLDEN = {
    "multi_proposal": ("golden_multi_proposal_exact.npz", MAPS, RESNET),
    "multi_proposal_target": TARGETS,
    "multi_proposal_target_mask": TARGETS,
    "mask_rcnn_target": ("golden_mask_rcnn_target.npz", ("rois", "mask_polys", "mask_ids"), {}),
}


def digest(outputs):
    """SHA-256 of the shapes and bits of arrays."""
    found = hashlib.sha256()
    for output in outputs if isinstance(outputs, (tuple, list)) else [outputs]:
        array = output.asnumpy() if isinstance(output, mx.nd.NDArray) else np.asarray(output)
        found.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()


def host_case(name, sizes, rng):
    function, arguments, _ = fuzz_native_cases.CASES[name](sizes, rng)
    return function(**arguments)


def graph_case(name, sizes, rng):
    """The outputs of a graph operator and its gradients."""
    call = operator_cases.CASES[name](sizes, rng)
    tensors = [mx.nd.array(array) for array in call.arrays.values()]
    for tensor in tensors:
        tensor.attach_grad()
    with mx.autograd.record():
        outputs = call.front(*tensors, **call.attributes)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    mx.autograd.backward(outputs, [mx.nd.array(rng.normal(size=o.shape)) for o in outputs])
    return [*outputs, *(tensor.grad for tensor in tensors)]


def rpn_case(sizes, rng):
    """Matching, sampling, targets and their dense form on chips of 256 px."""
    anchors = _native.operator_anchors(16, (1, 2, 4, 7), (0.5, 1, 2))
    matcher = _native.RpnMatcher(anchors, 16, 256, 0, 0.5, 0.4, 0.3, 256, 64)
    sides = rng.uniform(5, 120, (2, sizes["rows"], 2))
    corners = rng.uniform(0, 200, sides.shape)
    valid, invalid = np.concatenate([corners, corners + sides], 2).astype(F)
    label, index, values = matcher(valid, invalid, int(rng.integers(2**63)))
    dense = [np.empty(label.shape, F), *(np.empty((4 * len(anchors), 16, 16), F) for _ in range(2))]
    _native.expand_rpn(label, index, values, *dense)
    return [label, index, values, *dense]


def image_case(sizes, rng):
    side = sizes["post"]
    pixels = rng.integers(0, 256, (2, side, side + 3, 3), np.uint8)
    out = np.empty((2, 3, side + 5, side + 5), F)
    content = np.array([[side, side + 3], [side // 2, side - 2]], np.int32)
    _native.image_to_chw(pixels, content, (103.06, 115.9, 123.15), out)
    return out


def golden_case(name):
    """An operator on the inputs of its golden vectors: the same bits make the same match."""
    file, inputs, settings = GOLDEN[name]
    data = np.load(TESTS / "golden" / file)
    return getattr(_native, name)(*(data[key] for key in inputs), **settings)


def main():
    cases = {f"host {name}": (host_case, name) for name in fuzz_native_cases.CASES}
    cases.update({f"graph {name}": (graph_case, name) for name in operator_cases.CASES})
    cases.update({"host rpn": (rpn_case,), "host image_to_chw": (image_case,)})
    found = {
        f"{title}, size {number}, seed {seed}": digest(
            function(*name, sizes, np.random.default_rng((number, seed)))
        )
        for title, (function, *name) in cases.items()
        for number, sizes in enumerate(SIZES)
        for seed in range(SEEDS)
    }
    for name in GOLDEN:
        found[f"golden {name}"] = digest(golden_case(name))
    json.dump({"isa": native.isa(), "digests": found}, sys.stdout)


if __name__ == "__main__":
    main()
