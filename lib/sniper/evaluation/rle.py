"""Masks as compressed run lengths, the form of COCO annotations and results."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask


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
