"""How training on the CPU is spread over its cores: MXNet contexts, and threads of each.

Several contexts of one thread train faster than one of several: small operators do not scale, and
each context always has work. They share a batch: what an update is made of stays as it is but for
batch norm, which sees the chips of its context only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from easydict import EasyDict

from sniper.errors import ConfigError
from sniper.process import has_default_threads, omp_threads, set_threads, usable_cores
from sniper.runs.devices import CPU, Device

# Batch statistics of fewer chips are noisy, and with larger chips one context keeps its threads
# busy (scripts/bench/README.md).
FEWEST_CHIPS = 8
LARGEST_CHIP_PX = 256
# Set by `prepare_threads` for this process and those that it starts.
_CHOSEN = "SNIPER_CPU_CONTEXTS"
# What reads OMP_NUM_THREADS when it is loaded.
_WITH_OPENMP = ("mxnet", "sniper.native._native")


@dataclass(frozen=True)
class CpuSpread:
    """Contexts of a device.

    Attributes:
        devices: all of them.
        shares: contexts that share the batch of one configured device.
    """

    devices: tuple[Device, ...]
    shares: int = 1


def prepare_threads(cfg: EasyDict) -> None:
    """Sets the threads of a context, in a process that has not loaded OpenMP yet.

    Whoever has set OMP_NUM_THREADS keeps it, and has one context unless `TRAIN.CPU_CONTEXTS` says
    another number.
    """
    if not has_default_threads() or any(name in sys.modules for name in _WITH_OPENMP):
        return
    if not _is_one_cpu(cfg):
        return
    contexts = cfg.TRAIN.CPU_CONTEXTS or _by_rule(cfg, usable_cores())
    if contexts > 1:
        set_threads(max(usable_cores() // contexts, 1))
        os.environ[_CHOSEN] = str(contexts)


def cpu_spread(cfg: EasyDict, devices: Sequence[Device]) -> CpuSpread:
    """The contexts that a configuration trains on.

    Args:
        cfg: a checked configuration.
        devices: those of `gpus`.

    Raises:
        ConfigError: `TRAIN.CPU_CONTEXTS` does not fit the devices, the batch or the network.
    """
    asked, chips = cfg.TRAIN.CPU_CONTEXTS, cfg.TRAIN.BATCH_IMAGES
    if asked > 1:
        problem, fix = "", "leave it at 0, or say 1"
        if not _is_one_cpu(cfg):
            problem = f"gpus is '{cfg.gpus}', and contexts are those of one 'cpu'"
        elif chips % asked:
            problem, fix = f"TRAIN.BATCH_IMAGES {chips} cannot be shared equally", "take a divisor"
        elif not _is_shareable(cfg):
            problem = "losses of FocusPixels, masks or fine classes do not add up over contexts"
        if problem:
            raise ConfigError(problem, where="TRAIN.CPU_CONTEXTS", got=asked, fix=fix)
    chosen = int(os.environ.get(_CHOSEN, "1")) if not asked else asked
    if chosen < 2 or (not asked and _by_rule(cfg, usable_cores()) != chosen):
        return CpuSpread(tuple(devices))
    return CpuSpread(tuple(Device(CPU, number) for number in range(chosen)), chosen)


def spread_text(spread: CpuSpread, chips: int) -> str:
    """What the start-up report says of it; empty for one context.

    Args:
        spread: in force.
        chips: of the batch that the contexts share.
    """
    if spread.shares < 2:
        return ""
    return (
        f"CPU: {spread.shares} contexts of {omp_threads()} thread(s) share the batch, "
        f"{chips // spread.shares} chips each, which is what a batch norm sees; another number: "
        "TRAIN.CPU_CONTEXTS, 1 for one context"
    )


def _by_rule(cfg: EasyDict, cores: int) -> int:
    """The most contexts, one core each at least, with enough chips for their batch norms."""
    train = cfg.TRAIN
    fits = _is_one_cpu(cfg) and _is_shareable(cfg) and "dist" not in cfg.default.kvstore
    if not fits or train.CHIP_SIZE > LARGEST_CHIP_PX:
        return 1
    fewest = 1 if cfg.network.BN_MODE == "frozen" else FEWEST_CHIPS
    counts = range(min(cores, train.BATCH_IMAGES // fewest), 1, -1)
    return next((count for count in counts if train.BATCH_IMAGES % count == 0), 1)


def _is_one_cpu(cfg: EasyDict) -> bool:
    return str(cfg.gpus).strip() in ("", CPU)


def _is_shareable(cfg: EasyDict) -> bool:
    """Whether the losses of equal parts of a batch have the mean of the whole one's."""
    train = cfg.TRAIN
    return not (train.AUTO_FOCUS or train.WITH_MASK or cfg.network.SUPER_CLASSES)
