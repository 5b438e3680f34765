"""Keys of the TRAIN section: what the network shall learn of a chip, and how the losses count."""

from __future__ import annotations

from sniper.config.kinds import NO_EFFECT, RATIO, Bool, Float, Int, Key

TARGET_KEYS = (
    *(
        Key(
            f"TRAIN.{name}",
            RATIO,
            default,
            "Image filter of 2018, which kept the images with objects whatever the value; so does "
            "training.",
            NO_EFFECT,
        )
        for name, default in (("FG_THRESH", 0.5), ("BG_THRESH_HI", 0.5), ("BG_THRESH_LO", 0.0))
    ),
    Key(
        "TRAIN.SOFT_SAMPLING.ENABLE",
        Bool(),
        False,
        "Soft Sampling: background far from every annotated object counts less in the class loss "
        "of the box head, for data with missing annotations. By the overlap o with the nearest "
        "object: A + (1 - A) exp(-B exp(-C o)); objects count 1.",
    ),
    Key("TRAIN.SOFT_SAMPLING.A", RATIO, 0.25, "What background counts that touches no object."),
    Key(
        "TRAIN.SOFT_SAMPLING.B",
        Float(minimum=0, maximum=1000),
        50.0,
        "How far the rise is delayed.",
    ),
    Key("TRAIN.SOFT_SAMPLING.C", Float(minimum=0, maximum=1000), 20.0, "How steep the rise is."),
    Key(
        "TRAIN.CROWD_IOA",
        RATIO,
        0.0,
        "A RoI with more than this share of its area in a crowd region (COCO's iscrowd, Open "
        "Images' group boxes) is not trained as background; 0: it is, as in 2018 for COCO.",
    ),
    Key(
        "TRAIN.MAX_CROWD",
        Int(minimum=1),
        10,
        "Crowd regions per chip that the targets hold; more are dropped and counted.",
    ),
    Key(
        "TRAIN.RPN_IGNORE_CROWD",
        Bool(),
        False,
        "The same rule for the anchors of the RPN; needs TRAIN.CROWD_IOA. False: as in 2018.",
    ),
    Key(
        "TRAIN.RPN_ALLOWED_BORDER",
        Float(minimum=0),
        None,
        "Px by which anchors may stick out of a chip and still be trained. None: as published, RPN "
        "32; SSH 0, and 512 in the module of stride 32, which never has less. Small chips need "
        "more: an object at their border has no anchor inside.",
        optional=True,
    ),
    Key("TRAIN.RPN_BATCH_SIZE", Int(minimum=1), 256, "Anchors sampled per chip."),
    Key("TRAIN.RPN_FG_FRACTION", RATIO, 0.5, "Largest share of positive anchors."),
    Key("TRAIN.RPN_POSITIVE_OVERLAP", RATIO, 0.7, "IoU from which an anchor is positive."),
    Key("TRAIN.RPN_NEGATIVE_OVERLAP", RATIO, 0.3, "IoU below which an anchor is negative."),
    Key(
        "TRAIN.LEGACY_GT_CENTRE",
        Bool(),
        True,
        "Box targets of the box head take the centre as x1 + w/2, as in 2018.",
    ),
    Key(
        "TRAIN.LEGACY_AREAS",
        Bool(),
        True,
        "Proposals: IoU with +1 in the intersection but not in the areas, as in 2018; False: +1 "
        "everywhere.",
    ),
    Key(
        "TRAIN.LEGACY_MIN_SIZE",
        Bool(),
        True,
        "Proposals: only those are too small whose width and height both are, as in 2018; False: "
        "width or height.",
    ),
    Key(
        "TRAIN.LEGACY_FINE_CAP",
        Bool(),
        False,
        "R-FCN-3K: the images of a batch share their network.FINE_ROIS, so that late images may "
        "get none, as in 2018; False: each has its own.",
    ),
    Key(
        "TRAIN.PROPOSAL_OP.pre_nms_top_n",
        Int(minimum=-1),
        None,
        "Boxes before NMS; -1: all; None: as in 2018 all, with masks 6000.",
        optional=True,
    ),
    Key("TRAIN.PROPOSAL_OP.nms_thresh", RATIO, 0.7, "IoU above which NMS drops a proposal."),
    Key("TRAIN.PROPOSAL_OP.min_size", Int(minimum=0), 3, "Least side of a proposal in px."),
    Key("TRAIN.PROPOSAL_OP.post_nms_top_n", Int(minimum=1), 300, "RoIs per chip."),
)
