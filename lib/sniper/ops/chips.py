"""Front of the chip generator, for graphs; host code calls `sniper.native._native.chip_cover`."""

from __future__ import annotations

from sniper.ops.checks import Tensor, blocked, call, frontend, named_outputs


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
    legacy_clip: bool = False,
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
        legacy_clip: boxes end one px before the border of the level, as in 2018; False: at it.
        name: names the symbol's outputs `<name>_output` and `<name>_count_output`.

    Returns:
        chips (max_chips, 4) in image px, in the order of selection and padded with -1, and their
        number (1,).

    Raises:
        OpsError: a tensor or an argument is wrong, or the library is missing.
    """
    op = "chip_generator"
    front = frontend(op, boxes=boxes)
    arguments = {
        "width": width,
        "height": height,
        "factor": factor,
        "chip_size": chip_size,
        "stride": stride,
        "seed": seed,
        "max_chips": max_chips,
        "legacy_clip": legacy_clip,
    }
    inputs = blocked(front, boxes)
    outputs = call(op, front, "ChipGenerator", inputs, arguments, name=f"{name}_chips")
    chips, count = named_outputs(front, outputs, (name, f"{name}_count"))
    return chips, count
