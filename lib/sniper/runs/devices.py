"""The devices that a configuration or a flag asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sniper.errors import ConfigError

# Tools that look at data alone import this room's modules, but not MXNet.
if TYPE_CHECKING:
    import mxnet as mx


ON_CPU = "--set gpus cpu"


def contexts(gpus: str, name: str = "gpus", on_cpu: str = ON_CPU) -> list[mx.Context]:
    """Devices of a `gpus` value: `'0,1'` -> two GPUs; `''`, `'cpu'` or `'cpu,cpu'` -> CPU contexts.

    Args:
        gpus: the value.
        name: what the user knows it by, for messages.
        on_cpu: what the user writes to take the CPU.

    Raises:
        ConfigError: an entry is no device ordinal, or the GPU does not exist.
    """
    import mxnet as mx

    entries = [entry.strip() for entry in str(gpus).split(",") if entry.strip()] or ["cpu"]
    if set(entries) == {"cpu"}:
        return [mx.cpu(i) for i in range(len(entries))]
    if not all(entry.isdigit() for entry in entries):
        raise ConfigError(
            f"{name} must list device ordinals",
            got=repr(gpus),
            expected="'0', '0,1', ... or 'cpu'",
            fix=f"{on_cpu} runs on the CPU",
        )
    visible = _gpu_count()
    missing = [entry for entry in entries if int(entry) >= visible]
    if missing:
        raise ConfigError(
            "the configuration asks for GPUs that MXNet does not see",
            got=f"{name} '{gpus}', {visible} GPU(s) visible",
            fix=f"run on the CPU with {on_cpu}, or install a CUDA wheel (README, GPUs)",
        )
    return [mx.gpu(int(entry)) for entry in entries]


def _gpu_count() -> int:
    import mxnet as mx

    try:
        return mx.context.num_gpus()
    except mx.MXNetError:  # a CUDA wheel without a driver
        return 0


def uses_gpu(devices: Sequence[mx.Context]) -> bool:
    """True if any device is a GPU."""
    return any(device.device_type == "gpu" for device in devices)
