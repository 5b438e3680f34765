"""Keys of the TEST section."""

from __future__ import annotations

from sniper.config.kinds import (
    LEGACY,
    RATIO,
    Bool,
    BoolOr,
    Float,
    Int,
    Key,
    OneOrMany,
    Row,
    Seq,
    Text,
)

_PER_SCALE_BOOL = Seq(Bool())

PYRAMID_KEYS = (
    Key(
        "TEST.SCALES",
        Seq(Row((Int(minimum=1), Int(minimum=1)))),
        ((1400, 2000), (800, 1280), (480, 512)),
        "(min side, max side) in px of each level.",
    ),
    Key(
        "TEST.VALID_RANGES",
        Seq(Row((Float(), Float()))),
        ((-1.0, 90.0), (32.0, 180.0), (75.0, -1.0)),
        "sqrt(area) in image px of the detections that each level keeps; -1: open.",
    ),
    Key(
        "TEST.BATCH_IMAGES",
        OneOrMany(Int(minimum=1)),
        1,
        "Windows read and computed at once per device (a CPU computes them one by one); per level.",
    ),
    Key(
        "TEST.SKIP_STRIDES",
        Seq(Seq(Int(minimum=1), empty_allowed=True), empty_allowed=True),
        (),
        "SSH: per level, strides of the modules whose detections do not count; empty: all count. "
        "The original leaves stride 32 out on the finest level of its pyramid.",
    ),
    Key(
        "TEST.MAX_PIXELS",
        Int(minimum=0),
        0,
        "Most network px of a window: bounds the memory of a level. Images that would have more "
        "are seen smaller on that level, which is told; 0: no limit but that of the scales.",
    ),
    Key("TEST.AUTO_FOCUS", Bool(), False, "Coarse-to-fine inference on FocusChips."),
    Key(
        "TEST.DO_PRUNING",
        _PER_SCALE_BOOL,
        (False, False, False),
        "Per level: take chips from the level before it and prune at their borders.",
    ),
    Key(
        "TEST.CHIP_HYPERPARAMS",
        Seq(Row((Int(), Float(maximum=1), Int()))),
        ((-1, -1.0, -1),) * 3,
        "Per level, for the next one: dilation in cells, map threshold, least chip side in cells.",
    ),
    Key(
        "TEST.USE_CACHE",
        _PER_SCALE_BOOL,
        (False, False, False),
        "Per level: keep its raw detections on disk and read them while nothing has changed.",
    ),
)

TEST_MODES = ("auto", "single", "pyramid", "focus", "slice")
TEST_ENGINES = ("auto", "mxnet", "onnxruntime", "openvino")

MODE_KEYS = (
    Key(
        "TEST.MODE",
        Text(TEST_MODES),
        "auto",
        "One level, all levels in full, FocusChips, or uniform windows; auto: by AUTO_FOCUS.",
    ),
    Key(
        "TEST.ENGINE",
        Text(TEST_ENGINES),
        "auto",
        "What computes the network; auto: MXNet for weights of MXNet, and for archives of `sniper "
        "export --format onnx` the fastest engine that is installed.",
    ),
    Key(
        "TEST.SINGLE_SCALE",
        Row((Int(minimum=1), Int(minimum=1))),
        None,
        "(min side, max side) in px for modes single and slice; None: the middle level's.",
        optional=True,
    ),
    Key("TEST.SLICE_SIZE", Int(minimum=32), 512, "Side of the windows of mode slice, image px."),
    Key(
        "TEST.SLICE_OVERLAP",
        Float(minimum=0, maximum=0.9),
        0.2,
        "Least overlap of neighbouring windows, as a share of their side.",
    ),
    Key("TEST.SLICE_FACTOR", Float(minimum=0.01), 1.0, "Network px per image px in the windows."),
    Key("TEST.SLICE_WITH_IMAGE", Bool(), True, "See the whole image at the single scale as well."),
    Key("TEST.SLICE_BATCH_IMAGES", Int(minimum=1), 1, "Windows per device in mode slice."),
)

RESULT_KEYS = (
    Key(
        "TEST.MIN_SCORE",
        Float(minimum=0.001, maximum=1),
        0.001,
        "Detections need a higher score before they are merged; 0.001 as in 2018.",
    ),
    Key("TEST.MAX_PER_IMAGE", Int(), 200, "Detections kept per image; 0 or less: all."),
    Key(
        "TEST.CLASS_AGNOSTIC",
        Bool(),
        False,
        "One class, `object`: boxes by their probability of being any object; no masks.",
    ),
    Key("TEST.NMS", Float(), -1.0, "IoU of hard NMS; not positive: soft NMS is used."),
    Key("TEST.NMS_SIGMA", Float(), 0.55, "Sigma of Gaussian soft NMS; not positive: off."),
    Key(
        "TEST.BOX_VOTING",
        RATIO,
        0.0,
        "After NMS a box becomes the mean, weighted with the scores, of all found boxes of its "
        "class with this IoU or more; 0: off.",
    ),
    Key(
        "TEST.FLIP",
        Bool(),
        False,
        "See every window mirrored as well and merge what both find: twice the time. Classes that "
        "mirroring changes (left and right arrows) need it off.",
    ),
    Key(
        "TEST.TEST_EPOCH",
        Int(minimum=0),
        None,
        "Number of the checkpoint to test; None: the newest one.",
        optional=True,
    ),
    Key("TEST.CONCURRENT_JOBS", Int(minimum=1), 1, "Processes, each with its own networks."),
    Key(
        "TEST.RPN_POST_NMS_TOP_N",
        Int(minimum=1),
        300,
        "RoIs per image; TEST.PROPOSAL_OP.post_nms_top_n wins when it is given as well.",
    ),
    Key("TEST.PROPOSAL_OP.pre_nms_top_n", Int(minimum=-1), 12000, "Boxes before NMS; -1: all."),
    Key("TEST.PROPOSAL_OP.nms_thresh", RATIO, 0.7, "IoU above which NMS drops a proposal."),
    Key("TEST.PROPOSAL_OP.min_size", Int(minimum=0), 3, "Least side of a proposal in px."),
    Key("TEST.PROPOSAL_OP.post_nms_top_n", Int(minimum=1), 300, "RoIs per image."),
    Key(
        "TEST.PROPOSALS_AS_TRAINED",
        Bool(),
        True,
        "For the area of a chip no more RoIs of valid sizes than TRAIN.PROPOSAL_OP.post_nms_top_n: "
        "the box head takes others, which it never saw, for objects. No change at 2018's numbers.",
    ),
    Key(
        "TEST.EXTRACT_PROPOSALS",
        BoolOr(words=("detections",)),
        False,
        "Write proposals instead of detections: those of the proposal network (true), or what the "
        "whole detector takes for objects (detections).",
    ),
    Key(
        "TEST.N_PROPOSAL_PER_SCALE",
        Int(),
        300,
        "Proposals that EXTRACT_PROPOSALS keeps of a level.",
    ),
    Key("TEST.PROPOSAL_SAVE_PATH", Text(), "output/proposals", "Folder of extracted proposals."),
    Key(
        "TEST.VISUALIZATION_PATH",
        Text(),
        "./debug/visualization",
        "Folder of --vis drawings; 2018's value stands for <output_path>/visualization.",
    ),
    Key(
        "TEST.SKIP_BAD_IMAGES",
        Bool(),
        False,
        "Sets without annotations: leave unreadable images out, list them, exit with code 3.",
    ),
    Key("TEST.VISUALIZE_INTERMEDIATE_SCALES", Bool(), False, "Nothing: --vis draws the results."),
)

_DEAD = (
    ("HAS_RPN", Bool(), False, "Nothing."),
    ("TEST_FLAG", Bool(), False, "Nothing."),
    ("CXX_PROPOSAL", Bool(), True, "Proposals are always made by the compiled operator."),
    ("PROPOSAL_NMS_THRESH", Float(), 0.7, "Nothing; see TEST.PROPOSAL_OP."),
    ("PROPOSAL_PRE_NMS_TOP_N", Int(), 20000, "Nothing; see TEST.PROPOSAL_OP."),
    ("PROPOSAL_POST_NMS_TOP_N", Int(), 2000, "Nothing; see TEST.PROPOSAL_OP."),
    ("PROPOSAL_MIN_SIZE", Int(), 16, "Nothing; see TEST.PROPOSAL_OP."),
    ("max_per_image", Int(), 300, "Nothing; see TEST.MAX_PER_IMAGE."),
    ("test_epoch", Int(), 0, "Nothing; see TEST.TEST_EPOCH."),
    ("RPN_NMS_THRESH", Float(), 0.7, "Never reached the operator; see TEST.PROPOSAL_OP."),
    ("RPN_PRE_NMS_TOP_N", Int(), 6000, "Never reached the operator; see TEST.PROPOSAL_OP."),
    ("RPN_MIN_SIZE", Int(), 16, "Never reached the operator; see TEST.PROPOSAL_OP."),
)

TEST_KEYS = (
    PYRAMID_KEYS
    + MODE_KEYS
    + RESULT_KEYS
    + tuple(Key(f"TEST.{name}", kind, value, doc, LEGACY) for name, kind, value, doc in _DEAD)
)
