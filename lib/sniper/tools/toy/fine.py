"""Fine classes: every shape in every hue and filling, and which of them training never sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sniper.tools.toy.shapes import ToyClass
from sniper.tools.toy.textures import FILLINGS

# 51 degrees apart; an object's own hue differs from that of its class by 15 at most.
HUES = {"red": 0, "yellow": 51, "green": 103, "teal": 154, "blue": 206, "violet": 257, "pink": 309}


def fine_classes(shapes: Sequence[ToyClass]) -> tuple[ToyClass, ...]:
    """Shape x hue x filling, named `striped-red-ring`, by ascending category id.

    Size and place say nothing of a fine class: they are drawn without it.
    """
    return tuple(
        _fine_class(shape, hue, filling)
        for shape in shapes
        for hue in range(len(HUES))
        for filling in range(len(FILLINGS))
    )


def held_out_first(shapes: Sequence[ToyClass]) -> list[ToyClass]:
    """All fine classes in the order in which they are held out.

    The first ones have all shapes, hues and fillings about equally often, so that each of these is
    seen in training, though not together. Counts of hues and fillings have no common divisor:
    stepping through both at once meets every pair.
    """
    turns = range(len(HUES) * len(FILLINGS))
    return [
        _fine_class(shape, (place + 3 * turn) % len(HUES), (place + turn) % len(FILLINGS))
        for turn in turns
        for place, shape in enumerate(shapes)
    ]


def _fine_class(shape: ToyClass, hue: int, filling: int) -> ToyClass:
    hue_name, filling_name = list(HUES)[hue], FILLINGS[filling]
    return replace(
        shape,
        name=f"{filling_name}-{hue_name}-{shape.name}",
        category_id=100 * shape.category_id + 10 * hue + filling,
        hue_deg=float(HUES[hue_name]),
        filling=filling_name,
        group=shape.name,
    )
