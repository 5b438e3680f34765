"""Agreement of two sides' outputs: each function gives one sentence or refuses with the numbers."""

from __future__ import annotations

from typing import Optional

import numpy as np

from bench.case import OutputsDifferError


def require(holds: bool, sentence: str, expected: str) -> str:
    """The sentence, if it holds.

    Raises:
        OutputsDifferError: otherwise.
    """
    if not holds:
        raise OutputsDifferError(f"{sentence}, expected {expected}")
    return sentence


def same_array(ours: np.ndarray, peer: np.ndarray, what: str) -> str:
    """Bit for bit."""
    if ours.shape != peer.shape:
        raise OutputsDifferError(f"{what}: shape {ours.shape} here, {peer.shape} there")
    differing = int((ours != peer).sum())
    sentence = f"{what}: {differing} of {ours.size} values differ"
    require(differing == 0, sentence, "none")
    return f"{what} identical"


def close_array(ours: np.ndarray, peer: np.ndarray, what: str, tolerance: float) -> str:
    """Largest difference, in units of the peer's largest value."""
    if ours.shape != peer.shape:
        raise OutputsDifferError(f"{what}: shape {ours.shape} here, {peer.shape} there")
    scale = float(np.abs(peer).max(initial=0.0)) or 1.0
    difference = float(np.abs(ours.astype(np.float64) - peer).max(initial=0.0)) / scale
    sentence = f"{what}: largest difference {difference:.1e} of the largest value"
    return require(difference <= tolerance, sentence, f"at most {tolerance:.0e}")


def common_rows(
    ours: np.ndarray, peer: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of each side have a row of the other side within `tolerance` in every column."""
    distance = np.zeros((len(ours), len(peer)), np.float32)
    for column in range(ours.shape[1]):
        difference = np.abs(ours[:, column, None] - peer[None, :, column])
        np.maximum(distance, difference, out=distance)
    near = distance <= tolerance
    return near.any(axis=1), near.any(axis=0)


def same_boxes(
    ours: np.ndarray, peer: np.ndarray, least: float, tolerance: float, what: str = "boxes"
) -> str:
    """Boxes of one or several images as sets.

    Args:
        ours: (images, n, 4) px.
        peer: (images, m, 4) px.
        least: share of the boxes of each side that the other must have too, in every image.
        tolerance: px.
        what: the name in the sentence.
    """
    shares = []
    for a, b in zip(ours, peer):
        in_peer, in_ours = common_rows(a, b, tolerance)
        shares.append(min(in_peer.sum() / max(len(a), 1), in_ours.sum() / max(len(b), 1)))
    count = max(ours.shape[1], peer.shape[1])
    worst = min(shares)
    sentence = f"{round(worst * count)} of {count} {what} equal to {tolerance:g} px"
    if len(shares) > 1:
        sentence += f" in the worst of {len(shares)} images"
    return require(worst >= least, sentence, f"at least {least * count:.0f}")


def same_prefix(ours: np.ndarray, peer: np.ndarray, what: str, least: Optional[int] = None) -> str:
    """Sequences of the same length that agree in (at least `least`) places."""
    if ours.shape != peer.shape:
        raise OutputsDifferError(f"{what}: {len(ours)} here, {len(peer)} there")
    equal = int((ours == peer).sum())
    least = len(ours) if least is None else least
    return require(equal >= least, f"{equal} of {len(ours)} {what} equal", f"at least {least}")
