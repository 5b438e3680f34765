"""What the start-up says of the devices: contexts, threads, and the chips of a batch norm."""

from __future__ import annotations

from collections.abc import Iterator

from sniper.process import omp_threads, usable_cores
from sniper.runs.devices import uses_gpu
from sniper.runs.plan import TrainPlan


def device_line(plan: TrainPlan) -> str:
    """Where the network runs, on the CPU with how many threads, and what batch norms go over."""
    count, spec = len(plan.devices), plan.detector
    devices = _counted(count, "GPU")
    if not uses_gpu(plan.devices):
        each = " each" if count > 1 else ""
        devices = f"{_counted(count, 'CPU context')} with {_counted(omp_threads(), 'thread')}{each}"
    if not spec.network.backbone.has_batch_norms:
        return f"runs on {devices}"
    if spec.bn_mode == "frozen":
        return f"runs on {devices}; batch norms keep their stored statistics"
    of_each = " of a context" if count > 1 else ""
    return f"runs on {devices}; a batch norm goes over {plan.batch_images} chips{of_each}"


def device_warnings(plan: TrainPlan) -> Iterator[str]:
    """What to change where the contexts of the CPU have more threads than there are cores."""
    count, threads, cores = len(plan.devices), omp_threads(), usable_cores()
    if uses_gpu(plan.devices) or count * threads <= cores:
        return
    fix = f"set OMP_NUM_THREADS to {max(1, cores // count)}"
    if count > 1:
        fix += ", or gpus to cpu: one context with all threads is faster"
    yield f"{count * threads} threads share {cores} core(s), and wait for each other: {fix}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"
