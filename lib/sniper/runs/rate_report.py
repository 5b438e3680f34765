"""What the start-up says of an update: its chips, the learning rate, and what both go with."""

from __future__ import annotations

from sniper.runs.plan import TrainPlan
from sniper.training.step_settings import StepSettings


def batch_line(plan: TrainPlan, samples: int, num_workers: int) -> str:
    """The chips of an update and where they come from.

    Args:
        plan: of the run.
        samples: padded chips of an epoch.
        num_workers: processes that train together.
    """
    accumulation = plan.step.accumulation
    batch = update_replicas(plan, num_workers) * plan.batch_images
    factors = [f"{len(plan.devices)} device(s)", f"{plan.batch_images} (TRAIN.BATCH_IMAGES)"]
    if accumulation > 1:
        factors.append(f"{accumulation} batches (TRAIN.ACCUMULATION_STEPS)")
    if num_workers > 1:
        factors.append(f"{num_workers} workers")
    return (
        f"batch: {batch} chips an update = {' x '.join(factors)}; {samples // batch} updates an "
        f"epoch, {plan.loop.end_epoch} epochs"
    )


def rate_line(plan: TrainPlan, num_workers: int) -> str:
    """The learning rate, what it was chosen for, and how it goes with devices and batch.

    Every device's losses are means over its chips, so that BATCH_IMAGES does not change the step.
    Their gradients are summed (2018), so that the number of devices does, or averaged.
    """
    step, replicas = plan.step, update_replicas(plan, num_workers)
    warmup = f" after {step.warmup_step} updates from {step.warmup_lr:g}"
    rule = _mean_rule if step.reduction == "mean" else _sum_rule
    return (
        f"lr {step.lr:g}{warmup if step.warmup_step else ''}, wd {step.wd:g}. "
        f"{rule(step, replicas, plan.reference_replicas)} With k x {plan.batch_images} "
        f"BATCH_IMAGES set TRAIN.lr to k x {step.lr:g} (--auto-scale-lr does): each gradient is a "
        f"mean over its chips{_exception(plan)}"
    )


def _sum_rule(step: StepSettings, replicas: int, reference: int) -> str:
    return (
        f"An update takes the sum of {replicas} gradient(s), one per device, accumulated batch and "
        f"worker: their mean with lr {replicas * step.lr:g} and wd {step.wd / replicas:g}. The "
        f"recipe assumes {reference} (TRAIN.REFERENCE_REPLICAS): leave TRAIN.lr with more or fewer,"
        f" the step goes with them, here {replicas / reference:g} of it."
    )


def _mean_rule(step: StepSettings, replicas: int, reference: int) -> str:
    scaled = f": by the linear rule {replicas} take TRAIN.lr {step.lr * replicas / reference:g}"
    return (
        f"An update takes the mean of {replicas} gradient(s), one per device, accumulated batch "
        f"and worker: the step does not grow with them. The recipe assumes {reference} "
        f"(TRAIN.REFERENCE_REPLICAS){scaled if replicas != reference else ''}. (One written for a "
        f"sum, as in 2018, takes {reference} x its lr and 1/{reference} of its wd here.)"
    )


def _exception(plan: TrainPlan) -> str:
    """The box head's loss is divided by a constant, unless the number of chips is in it."""
    if plan.box_loss_is_mean:
        return ""
    return ", but for the box head's box loss (TRAIN.bbox_loss_divisor)"


def update_replicas(plan: TrainPlan, num_workers: int) -> int:
    """Gradients of an update: one per device, accumulated batch and worker."""
    return len(plan.devices) * plan.step.accumulation * num_workers
