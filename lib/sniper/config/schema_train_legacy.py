"""Keys of the TRAIN section that files of 2018 have and nothing reads."""

from __future__ import annotations

from sniper.config.kinds import LEGACY, Array, Bool, Float, Int, Key, Seq, Text

_DEAD = (
    ("model_prefix", Text(), "", "Nothing."),
    ("ENABLE_OHEM", Bool(), False, "Chose a metric's label."),
    ("END2END", Bool(), False, "Training is always end to end."),
    ("BATCH_ROIS", Int(), 128, "RoIs of an older head; see TRAIN.PROPOSAL_OP.post_nms_top_n."),
    ("BATCH_ROIS_OHEM", Int(), 128, "RoIs of a network that does not exist any more."),
    ("FG_FRACTION", Float(), 0.25, "Share of foreground RoIs of an older head."),
    ("BBOX_REGRESSION_THRESH", Float(), 0.5, "Threshold of a computation that is gone."),
    ("BBOX_WEIGHTS", Array(4), (1.0, 1.0, 1.0, 1.0), "Weights of an older box loss."),
    ("BBOX_NORMALIZATION_PRECOMPUTED", Bool(), False, "Box targets always use fixed stds."),
    ("BBOX_MEANS", Seq(Float(), 4), (0.0, 0.0, 0.0, 0.0), "The means are always 0."),
    ("BBOX_STDS", Seq(Float(), 4), (0.1, 0.1, 0.2, 0.2), "The stds are always these."),
    ("RPN_CLOBBER_POSITIVES", Bool(), False, "Rule of an older RPN target."),
    ("RPN_BBOX_WEIGHTS", Seq(Float(), 4), (1.0, 1.0, 1.0, 1.0), "Weights of an older RPN loss."),
    ("RPN_POSITIVE_WEIGHT", Float(), -1.0, "Weight of an older RPN loss."),
    ("CXX_PROPOSAL", Bool(), True, "Proposals are always made by the compiled operator."),
    ("RPN_NMS_THRESH", Float(), 0.7, "Never reached the operator; see TRAIN.PROPOSAL_OP."),
    ("RPN_PRE_NMS_TOP_N", Int(), 12000, "Never reached the operator; see TRAIN.PROPOSAL_OP."),
    ("RPN_POST_NMS_TOP_N", Int(), 2000, "Never reached the operator; see TRAIN.PROPOSAL_OP."),
    ("RPN_MIN_SIZE", Int(), 16, "Never reached the operator; see TRAIN.PROPOSAL_OP."),
    ("visualization_path", Text(), "debug/visualization", "Folder of a metric that is gone."),
    ("visualization_freq", Int(), 100, "Period of a metric that is gone."),
)

_ALTERNATE_STAGES = ("rpn1", "rfcn1", "rpn2", "rfcn2", "rpn3")


def _legacy_keys() -> tuple[Key, ...]:
    keys = [
        Key(f"TRAIN.{name}", kind, default, doc, LEGACY, optional=name == "model_prefix")
        for name, kind, default, doc in _DEAD
    ]
    doc = "Setting of alternate training, which does not exist."
    fields: list[tuple[str, Int | Float | Text, object]] = [
        ("RPN_BATCH_IMAGES", Int(), 0),
        ("RCNN_BATCH_IMAGES", Int(), 0),
    ]
    for stage in _ALTERNATE_STAGES:
        fields += [
            (f"{stage}_lr", Float(), 0.0),
            (f"{stage}_lr_step", Text(), ""),
            (f"{stage}_epoch", Int(), 0),
        ]
    keys += [
        Key(f"TRAIN.ALTERNATE.{name}", kind, value, doc, LEGACY) for name, kind, value in fields
    ]
    return tuple(keys)


LEGACY_KEYS = _legacy_keys()
