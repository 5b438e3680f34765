"""Masks as compressed run lengths, the form of COCO annotations and results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

# Of one run length in the compressed form: 60 bits.
MOST_CHARACTERS = 12


def encode_mask(mask: np.ndarray) -> bytes:
    """Compressed run lengths of a mask.

    Args:
        mask: (H, W) uint8 of zeros and ones; columns in one piece (Fortran order) save a copy.
    """
    return coco_mask.encode(np.asfortranarray(mask))["counts"]


def decode_mask(counts: bytes, height: int, width: int) -> np.ndarray:
    """(height, width) uint8 of zeros and ones; inverse of `encode_mask`."""
    return coco_mask.decode({"size": [height, width], "counts": counts})


def segmentation(counts: bytes, height: int, width: int) -> dict[str, Any]:
    """The `segmentation` of a COCO result: `{"size": [height, width], "counts": str}`."""
    return {"size": [height, width], "counts": counts.decode("ascii")}


def decode_run_lengths(checked: dict[str, Any]) -> np.ndarray:
    """(H, W) uint8 of zeros and ones, of what `checked_run_lengths` gives."""
    return coco_mask.decode(checked)


def checked_run_lengths(segmentation: Mapping[str, Any], size: list[int]) -> dict[str, Any]:
    """Compressed run lengths of a `segmentation` that holds run lengths, compressed or not.

    Args:
        segmentation: as annotations and results have it.
        size: height and width of the image, px.

    Raises:
        TypeError, ValueError, KeyError: it is broken or of another size.
    """
    if list(segmentation["size"]) != size:
        raise ValueError(
            f"its mask is {_sides(segmentation['size'])} (height x width), its image {_sides(size)}"
        )
    counts = segmentation["counts"]
    compressed = isinstance(counts, (str, bytes))
    runs = decompressed_runs(counts) if compressed else np.asarray(counts)
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or (runs < 0).any():
        raise ValueError("its runs are no whole numbers from 0 on")
    if runs.sum() != size[0] * size[1]:
        raise ValueError(f"its runs cover {runs.sum()} px of {size[0] * size[1]}")
    if compressed:
        return {"size": size, "counts": counts}
    return coco_mask.frPyObjects({"size": size, "counts": list(counts)}, *size)


def _sides(size: Iterable[object]) -> str:
    return "x".join(map(str, size))


def decompressed_runs(counts: str | bytes) -> np.ndarray:
    """Run lengths (n,) int64 of COCO's compressed form.

    Each character holds 5 bits of a number, lowest first, and whether more follow; from the fourth
    number on it is the difference to the number two places before.

    Raises:
        ValueError: this is no such text.
    """
    text = counts.encode("ascii") if isinstance(counts, str) else counts
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - ord("0")
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("its counts are no compressed run lengths")
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > MOST_CHARACTERS:
        raise ValueError("its counts hold a number that no image has")
    places = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & 31) << (5 * places), starts)
    numbers -= np.where(codes[ends] & 16, 1 << (5 * lengths), 0)
    runs = numbers.copy()
    runs[1::2] = np.cumsum(numbers[1::2])
    runs[2::2] = np.cumsum(numbers[2::2])
    return runs
