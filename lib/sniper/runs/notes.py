"""What a configuration asks for and a plan leaves out, a sentence each."""

from __future__ import annotations

from easydict import EasyDict

from sniper.runs.rates import COSINE

Notes = tuple[str, ...]


def train_notes(cfg: EasyDict, *, fp16: bool) -> Notes:
    """Of a training run; `fp16` is what is in force."""
    return (*_fp16_note(cfg, fp16), *_schedule_note(cfg))


def test_notes(cfg: EasyDict, *, fp16: bool, rpn_only: bool) -> Notes:
    """Of detection, or with `rpn_only` of proposals."""
    return (*_fp16_note(cfg, fp16), *_mask_note(cfg), *(_flip_note(cfg) if rpn_only else ()))


def _fp16_note(cfg: EasyDict, fp16: bool) -> tuple[str, ...]:
    if bool(cfg.TRAIN.fp16) == fp16:
        return ()
    return ("fp16 and the loss scale are off: MXNet has no fp16 convolution on the CPU",)


def _mask_note(cfg: EasyDict) -> tuple[str, ...]:
    if not (cfg.TEST.CLASS_AGNOSTIC and cfg.TRAIN.WITH_MASK):
        return ()
    return ("there are no masks with TEST.CLASS_AGNOSTIC: the network makes them for classes",)


def _schedule_note(cfg: EasyDict) -> Notes:
    if cfg.TRAIN.LR_SCHEDULE != COSINE or not cfg.TRAIN.lr_step:
        return ()
    return (
        f"TRAIN.lr_step {cfg.TRAIN.lr_step} is not in force: with TRAIN.LR_SCHEDULE {COSINE} the "
        "rate falls all the time",
    )


def _flip_note(cfg: EasyDict) -> Notes:
    if not cfg.TEST.FLIP:
        return ()
    return ("TEST.FLIP is for detections: proposals are extracted from images as they are",)
