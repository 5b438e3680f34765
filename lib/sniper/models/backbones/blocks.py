"""Small pieces that the backbones share: batch norm, casts, channel rounding, TF "SAME" padding."""

from __future__ import annotations

from dataclasses import dataclass

from sniper.models.lazy import mx

# oneDNN computes in blocks of 16 channels; other counts train on much slower kernels.
CHANNEL_MULTIPLE = 16


@dataclass(frozen=True)
class NormSettings:
    """How the batch norms of a network behave.

    Args:
        momentum: of the running averages, `moving = momentum * moving + (1 - momentum) * batch`.
        frozen: every layer normalises with its stored statistics, in training as well.
    """

    momentum: float = 0.995
    frozen: bool = False


def batch_norm(
    data: mx.sym.Symbol,
    name: str,
    norm: NormSettings,
    *,
    eps: float,
    fix_gamma: bool = False,
    global_stats: bool = False,
) -> mx.sym.Symbol:
    """Batch norm `name`; with `global_stats` or frozen `norm` it uses the stored statistics.

    With `fix_gamma` MXNet treats gamma as 1 and overwrites the stored one in training.
    """
    if global_stats or norm.frozen:
        return mx.sym.BatchNorm(
            data, name=name, eps=eps, fix_gamma=fix_gamma, use_global_stats=True
        )
    return mx.sym.BatchNorm(data, name=name, eps=eps, fix_gamma=fix_gamma, momentum=norm.momentum)


def cast(data: mx.sym.Symbol, dtype: str, *, enabled: bool, name: str) -> mx.sym.Symbol:
    """Cast of `data` to `dtype`, or `data` itself: fp32 graphs hold no cast at all."""
    return mx.sym.Cast(data, dtype=dtype, name=name) if enabled else data


def scale_channels(channels: int, width: float) -> int:
    """`channels * width` rounded to the nearest multiple of 16 (at least 16).

    As in the MobileNet papers' code the result is never below 90 % of the exact number. At width 1
    the number itself is returned.
    """
    if width == 1:
        return channels
    exact, unit = channels * width, CHANNEL_MULTIPLE
    rounded = max(unit, int(exact + unit / 2) // unit * unit)
    return rounded + unit if rounded < 0.9 * exact else rounded
