"""Blocks of images whose feature maps fit into memory together."""

from __future__ import annotations

from collections.abc import Sequence

from sniper.chips.pyramid import test_factor as factor_at_test


def image_blocks(
    sizes: Sequence[tuple[int, int]],
    scales: Sequence[tuple[int, int]],
    *,
    bytes_per_px: float,
    memory_bytes: float,
) -> list[list[int]]:
    """Indices of the images of each block; images of one size stand together, which fills batches.

    Args:
        sizes: (width, height) of every image, px.
        scales: (short side, longest long side) of every pyramid level, px.
        bytes_per_px: of the maps, for each px of a network's input.
        memory_bytes: what the maps of a block may need; one image may exceed it.
    """
    blocks: list[list[int]] = []
    used = 0.0
    for index in sorted(range(len(sizes)), key=lambda i: (*sizes[i], i)):
        width, height = sizes[index]
        factors = [factor_at_test(width, height, scale) for scale in scales]
        need = bytes_per_px * width * height * sum(factor**2 for factor in factors)
        if not blocks or used + need > memory_bytes:
            blocks.append([])
            used = 0.0
        blocks[-1].append(index)
        used += need
    return blocks
