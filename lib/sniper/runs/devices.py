"""The devices that a configuration or a flag asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sniper.errors import ConfigError
from sniper.models.lazy import mx
from sniper.process import is_installed

ON_CPU = "--set gpus cpu"
CPU, GPU = "cpu", "gpu"


@dataclass(frozen=True)
class Device:
    """Where a network runs, as a plain value: only what runs it in MXNet imports MXNet.

    Attributes:
        kind: "cpu" or "gpu".
        number: from 0.
    """

    kind: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.kind}({self.number})"

    def context(self) -> mx.Context:
        """The same to MXNet."""
        return mx.Context(self.kind, self.number)


def devices_of(gpus: str, name: str = "gpus", on_cpu: str = ON_CPU) -> list[Device]:
    """Devices of a `gpus` value: `'0,1'` -> two GPUs; `''`, `'cpu'` or `'cpu,cpu'` -> CPUs.

    Args:
        gpus: the value.
        name: what the user knows it by, for messages.
        on_cpu: what the user writes to take the CPU.

    Raises:
        ConfigError: an entry is no device ordinal, or the GPU does not exist.
    """
    entries = [entry.strip() for entry in str(gpus).split(",") if entry.strip()] or [CPU]
    if set(entries) == {CPU}:
        return [Device(CPU, number) for number in range(len(entries))]
    if not all(entry.isdigit() for entry in entries):
        raise ConfigError(
            f"{name} must list device ordinals",
            got=repr(gpus),
            expected="'0', '0,1', ... or 'cpu'",
            fix=f"{on_cpu} runs on the CPU",
        )
    if not is_installed("mxnet"):
        raise ConfigError(
            "detectors without MXNet run on the CPU",
            got=f"{name} '{gpus}', and MXNet is not installed",
            fix=on_cpu,
        )
    visible = _gpu_count()
    missing = [entry for entry in entries if int(entry) >= visible]
    if missing:
        raise ConfigError(
            "the configuration asks for GPUs that MXNet does not see",
            got=f"{name} '{gpus}', {visible} GPU(s) visible",
            fix=f"run on the CPU with {on_cpu}, or install a CUDA wheel (docs/gpus.md)",
        )
    return [Device(GPU, int(entry)) for entry in entries]


def _gpu_count() -> int:
    import mxnet

    try:
        return mxnet.context.num_gpus()
    except mxnet.MXNetError:  # a CUDA wheel without a driver
        return 0


def uses_gpu(devices: Sequence[Device]) -> bool:
    """True if any device is a GPU."""
    return any(device.kind == GPU for device in devices)
