"""Front of the chip generator, for graphs; host code calls `sniper.native._native.chip_cover`."""

from __future__ import annotations

import mxnet as mx

from sniper.ops.checks import Tensor, frontend, integer, number, require_tensor
from sniper.ops.library import load_library

MAX_SIDE_PX = 2**24


def chip_generator(
    boxes: Tensor,
    *,
    width: int,
    height: int,
    factor: float,
    stride: int,
    chip_size: int = 512,
    seed: int = 0,
    max_chips: int = 100,
    name: str = "chip_generator",
) -> tuple[Tensor, Tensor]:
    """Chips of one pyramid level that together contain the boxes (SNIPER, section 3.1).

    The greedy cover of `chip_cover` with the same numbers for the same seed (no gradient).

    Args:
        boxes: (n, 4) x1 y1 x2 y2, image px. Rows with x2 < 0 or y2 < 0 are padding.
        width: of the image, px.
        height: of the image, px.
        factor: scale factor of the level.
        stride: step of the candidate chips, scaled px.
        chip_size: side of a chip, scaled px.
        seed: 64-bit integer; decides between chips that contain equally many boxes.
        max_chips: rows of the result; further chips are dropped.
        name: names the symbol's outputs `<name>_output` and `<name>_count_output`.

    Returns:
        chips (max_chips, 4) in image px, in the order of selection and padded with -1, and their
        number (1,).

    Raises:
        OpsError: a tensor or an argument is wrong, or the library is missing.
    """
    op = "chip_generator"
    front = frontend(op, boxes=boxes)
    require_tensor(op, "boxes", boxes, (None, 4))
    bits = integer(op, "seed", seed, -(2**63), 2**64 - 1) & (2**64 - 1)
    attributes = {
        "width": integer(op, "width", width, 1, MAX_SIDE_PX),
        "height": integer(op, "height", height, 1, MAX_SIDE_PX),
        "factor": number(op, "factor", factor, 1e-6, 1e6),
        "chip_size": integer(op, "chip_size", chip_size, 1, MAX_SIDE_PX),
        "stride": integer(op, "stride", stride, 1, MAX_SIDE_PX),
        "seed": bits & 0xFFFFFFFF,
        "seed_high": bits >> 32,
        "max_chips": integer(op, "max_chips", max_chips, 1, MAX_SIDE_PX),
    }
    load_library()
    blocked = front.BlockGrad(boxes)
    if front is not mx.sym:
        chips, count = front.ChipGenerator(blocked, **attributes)
        return chips, count
    outputs = front.ChipGenerator(blocked, name=f"{name}_chips", **attributes)
    return (
        front.identity(outputs[0], name=name),
        front.identity(outputs[1], name=f"{name}_count"),
    )
