"""What the start-up report says about the batch and the learning rate."""

from __future__ import annotations

from easydict import EasyDict


def batch_line(cfg: EasyDict, samples: int, num_devices: int, num_workers: int) -> str:
    """The chips of an update and where they come from.

    Args:
        cfg: the checked configuration.
        samples: padded chips of an epoch.
        num_devices: devices of each worker.
        num_workers: processes that train together.
    """
    train = cfg.TRAIN
    batch = _replicas(cfg, num_devices, num_workers) * train.BATCH_IMAGES
    factors = [f"{num_devices} device(s)", f"{train.BATCH_IMAGES} (TRAIN.BATCH_IMAGES)"]
    if train.ACCUMULATION_STEPS > 1:
        factors.append(f"{train.ACCUMULATION_STEPS} batches (TRAIN.ACCUMULATION_STEPS)")
    if num_workers > 1:
        factors.append(f"{num_workers} workers")
    return (
        f"batch: {batch} chips an update = {' x '.join(factors)}; {samples // batch} updates an "
        f"epoch, {train.end_epoch} epochs"
    )


def rate_line(cfg: EasyDict, num_devices: int, num_workers: int) -> str:
    """The learning rate, what it was chosen for, and how it goes with devices and batch.

    Every device's losses are means over its chips, so that BATCH_IMAGES does not change the step.
    Their gradients are summed (2018), so that the number of devices does, or averaged.
    """
    train = cfg.TRAIN
    replicas = _replicas(cfg, num_devices, num_workers)
    warmup = f" after {train.warmup_step} updates from {train.warmup_lr:g}" if train.warmup else ""
    rule = _mean_rule if train.GRADIENT_REDUCTION == "mean" else _sum_rule
    return (
        f"lr {train.lr:g}{warmup}, wd {train.wd:g}. {rule(train, replicas)} With k x "
        f"{train.BATCH_IMAGES} BATCH_IMAGES set TRAIN.lr to k x {train.lr:g}: each gradient is a "
        f"mean over its chips{_exception(cfg)}"
    )


def _sum_rule(train: EasyDict, replicas: int) -> str:
    reference = train.REFERENCE_REPLICAS
    return (
        f"An update takes the sum of {replicas} gradient(s), one per device, accumulated batch and "
        f"worker: their mean with lr {replicas * train.lr:g} and wd {train.wd / replicas:g}. The "
        f"recipe assumes {reference} (TRAIN.REFERENCE_REPLICAS): leave TRAIN.lr with more or fewer,"
        f" the step goes with them, here {replicas / reference:g} of it."
    )


def _mean_rule(train: EasyDict, replicas: int) -> str:
    reference = train.REFERENCE_REPLICAS
    scaled = f": by the linear rule {replicas} take TRAIN.lr {train.lr * replicas / reference:g}"
    return (
        f"An update takes the mean of {replicas} gradient(s), one per device, accumulated batch "
        f"and worker: the step does not grow with them. The recipe assumes {reference} "
        f"(TRAIN.REFERENCE_REPLICAS){scaled if replicas != reference else ''}. (One written for a "
        f"sum, as in 2018, takes {reference} x its lr and 1/{reference} of its wd here.)"
    )


def _exception(cfg: EasyDict) -> str:
    """The box head's loss is divided by a constant, unless the number of chips is in it."""
    train = cfg.TRAIN
    per_chip = train.GRADIENT_REDUCTION == "mean" or cfg.symbol.startswith("mobilenet")
    if per_chip and not train.bbox_loss_divisor:
        return ""
    return ", but for the box head's box loss (TRAIN.bbox_loss_divisor)"


def _replicas(cfg: EasyDict, num_devices: int, num_workers: int) -> int:
    return num_devices * cfg.TRAIN.ACCUMULATION_STEPS * num_workers
