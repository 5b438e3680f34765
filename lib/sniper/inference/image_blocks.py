"""Blocks of images that fit into memory together."""

from __future__ import annotations

from collections.abc import Sequence


def image_blocks(
    sizes: Sequence[tuple[int, int]],
    factors: Sequence[Sequence[float]],
    *,
    bytes_per_px: float,
    memory_bytes: float,
    most_images: int,
) -> list[list[int]]:
    """Indices of the images of each block; images of one size stand together, which fills batches.

    Args:
        sizes: (width, height) of every image, px.
        factors: image px -> network px of every image on every level.
        bytes_per_px: of the maps that are kept, for each px of a network's input.
        memory_bytes: what the maps of a block may need; one image may exceed it.
        most_images: of a block.
    """
    blocks: list[list[int]] = []
    used = 0.0
    for index in sorted(range(len(sizes)), key=lambda i: (*sizes[i], i)):
        width, height = sizes[index]
        need = bytes_per_px * width * height * sum(factor**2 for factor in factors[index])
        if not blocks or used + need > memory_bytes or len(blocks[-1]) == most_images:
            blocks.append([])
            used = 0.0
        blocks[-1].append(index)
        used += need
    return blocks
