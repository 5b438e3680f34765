"""Keys of the TRAIN section."""

from __future__ import annotations

from sniper.config.kinds import (
    LEGACY,
    NO_EFFECT,
    RATIO,
    Bool,
    BoolOr,
    Float,
    Int,
    Key,
    Row,
    Seq,
    Text,
    TrainScales,
)
from sniper.config.schema_train_legacy import LEGACY_KEYS
from sniper.config.schema_train_targets import TARGET_KEYS

TASK_KEYS = (
    Key("TRAIN.ONLY_PROPOSAL", Bool(), False, "Train the RPN only, to mine negative chips."),
    Key("TRAIN.WITH_MASK", Bool(), False, "Train the mask head; needs a *_mask symbol."),
    Key("TRAIN.AUTO_FOCUS", Bool(), False, "Train the FocusPixel branch of AutoFocus."),
    Key(
        "TRAIN.AUTO_FOCUS_SMALL_THRESH",
        Float(),
        -1.0,
        "sqrt(area) in chip px below which a box is a focus target.",
    ),
    Key(
        "TRAIN.AUTO_FOCUS_DC_LOW",
        Float(),
        -1.0,
        "sqrt(area) in chip px up to which a box is too small to focus on (ignored).",
    ),
    Key(
        "TRAIN.AUTO_FOCUS_DC_HIGH",
        Float(),
        -1.0,
        "sqrt(area) in chip px from which a box is background for the focus map.",
    ),
)

CHIP_KEYS = (
    Key("TRAIN.CHIP_SIZE", Int(minimum=32), 512, "Side of a chip in px; a multiple of the stride."),
    Key(
        "TRAIN.SCALES",
        TrainScales(),
        (3.0, 1.667, 512.0),
        "Pyramid, finest first: (min side, max side) pairs in px, or factors; the last number is a "
        "long side in px that every image gets, or below 16 a factor too.",
    ),
    Key(
        "TRAIN.VALID_RANGES",
        Seq(Row((Float(), Float()))),
        ((-1.0, 80.0), (32.0, 150.0), (120.0, -1.0)),
        "sqrt(area) in image px that each level trains; -1: open.",
    ),
    Key(
        "TRAIN.CHIP_RANGES",
        Seq(Row((Float(), Float())), empty_allowed=True),
        (),
        "sqrt(area) in image px of the boxes that chips of each level are made for, where they are "
        "not those that its box head trains. Empty: VALID_RANGES.",
    ),
    Key(
        "TRAIN.SIDE_LIMITS",
        Seq(Float(), empty_allowed=True),
        (),
        "Of each level, image px, -1: none. A box with a side this long or longer gets chips of "
        "the next coarser level, not of this one, whatever its area (the box head goes by "
        "VALID_RANGES alone). Boxes up to 0.88 x CHIP_SIZE / factor surely fit into a chip. Empty: "
        "none.",
    ),
    Key(
        "TRAIN.COCO_SCALE_OVERRIDE",
        Bool(),
        True,
        "2018 rule: COCO with 81 classes trains at (3.0, 1.667, 512.0) unless --set or a file "
        "with _BASE_ gives TRAIN.SCALES; false: TRAIN.SCALES always counts.",
    ),
    Key(
        "TRAIN.USE_NEG_CHIPS",
        BoolOr(words=("mine",)),
        True,
        "Add negative chips around false alarms. True needs proposal files in proposal_path; mine "
        "makes them first, with a proposal network that is trained for it.",
    ),
    Key(
        "TRAIN.MINING_EPOCHS",
        Int(minimum=1),
        2,
        "USE_NEG_CHIPS mine: epochs of the proposal network.",
    ),
    Key("TRAIN.MAX_NEG_CHIPS", Int(minimum=0), 2, "Negative chips per image and epoch at most."),
    Key(
        "TRAIN.MIN_FALSE_ALARMS",
        Row((Float(minimum=0), Float(minimum=0))),
        None,
        "A negative chip holds more false alarms than these: at the finest level, at the others. "
        "None: 25 and 10 (2018) for 900 proposals of an image and 512 px chips in COCO's images; "
        "fewer in proportion to the proposals, and where a chip is a smaller part of its level.",
        optional=True,
    ),
    Key(
        "TRAIN.BACKGROUND_CHIPS",
        Float(minimum=0, maximum=100),
        0.0,
        "Chips at random places of an image, per chip with objects: 0.5 adds one to every two. "
        "They show what lies around and objects of other levels, each level as often as chips fit "
        "into it, and need no proposals.",
    ),
    Key(
        "TRAIN.RANDOM_CROPS",
        Int(minimum=0, maximum=1000),
        0,
        "Instead of chips: so many windows of CHIP_SIZE of each image and epoch, each at one of "
        "SCALES and a place drawn by chance, with the centre of an object inside where one is "
        "found in 25 tries (the usual training of face detectors). VALID_RANGES then count for the "
        "box head alone. 0: chips.",
    ),
    Key(
        "TRAIN.NEG_CHIPS_WITHOUT_OBJECTS",
        Bool(),
        False,
        "Images without objects stay in training and give negative and background chips (2018 "
        "dropped them).",
    ),
    Key(
        "TRAIN.MIN_VISIBLE",
        RATIO,
        0.0,
        "Share of an object inside a chip from which on the box head takes it for one; smaller "
        "pieces are background. 0: every piece of a valid size is an object, as in 2018.",
    ),
    Key(
        "TRAIN.MAX_GT",
        Int(minimum=1),
        100,
        "Boxes per chip that the targets hold; more are dropped and counted.",
    ),
    Key("TRAIN.MAX_POLYGON_LEN", Int(minimum=8), 500, "Numbers per encoded mask polygon."),
    Key("TRAIN.FLIP", Bool(), True, "Add a mirrored copy of every image."),
    *(
        Key(f"TRAIN.COLOR_JITTER.{name}", Float(minimum=0, maximum=most), 0.0, doc)
        for name, most, doc in (
            ("BRIGHTNESS", 1, "Every chip times a factor from 1 - b to 1 + b; 0: off, as in 2018."),
            ("CONTRAST", 1, "The same for the distance from the chip's mean grey."),
            ("SATURATION", 1, "The same for the distance from each pixel's own grey."),
            ("HUE", 0.5, "Colours turn by up to this share of a full circle."),
        )
    ),
    Key(
        "TRAIN.LEGACY_BOXES",
        Bool(),
        False,
        "2018 rules: boxes lose their fractions of a px, COCO boxes that start outside move "
        "inwards, a chip's picture is up to one image px beside its boxes. False: exact.",
    ),
    Key("TRAIN.CPP_CHIPS", Bool(), False, "Chips are always cut by compiled code.", LEGACY),
    Key("TRAIN.CHIPS_DB_PARTS", Int(minimum=1), 20, "2018 memory setting.", NO_EFFECT),
    Key("TRAIN.SHUFFLE", Bool(), True, "The order is always random.", LEGACY),
    Key(
        "TRAIN.SHUFFLE_WINDOW",
        Int(minimum=0),
        0,
        "Images whose chips are shuffled together, so that each is read once; 0: all, as in 2018. "
        "Keep it well above the batch size.",
    ),
)

OPTIMISER_KEYS = (
    Key("TRAIN.lr", Float(minimum=0), 0.0, "Base learning rate."),
    Key(
        "TRAIN.lr_step",
        Text(),
        "",
        "Comma list of epochs, fractions allowed, or of updates ('1600u') where lr drops.",
    ),
    Key("TRAIN.lr_factor", Float(minimum=0), 0.1, "Factor of each drop."),
    Key(
        "TRAIN.LR_SCHEDULE",
        Text(("step", "cosine")),
        "step",
        "step: drops at lr_step, as in 2018; cosine: half a cosine from the end of the warm-up to "
        "the end of the run (end_epoch or MAX_UPDATES).",
    ),
    Key("TRAIN.warmup", Bool(), False, "Start with a linear warm-up."),
    Key("TRAIN.warmup_lr", Float(minimum=0), 0.0, "Learning rate at which the warm-up starts."),
    Key("TRAIN.warmup_step", Int(minimum=0), 0, "Updates of the warm-up."),
    Key("TRAIN.momentum", RATIO, 0.9, "SGD momentum."),
    Key("TRAIN.wd", Float(minimum=0), 0.0005, "Weight decay."),
    Key("TRAIN.clip_gradient", Float(minimum=0), 0.0, "Limit of each gradient value; 0: off."),
    Key("TRAIN.fp16", Bool(), False, "Half precision with loss scaling (GPU runs)."),
    Key("TRAIN.scale", Float(minimum=1e-6), 1.0, "Loss scale; used with fp16 only."),
    Key(
        "TRAIN.DYNAMIC_LOSS_SCALE",
        Bool(),
        False,
        "Skip an update with overflow and halve the loss scale; TRAIN.scale is its first value.",
    ),
    Key(
        "TRAIN.LOSS_SCALE_WINDOW",
        Int(minimum=1),
        2000,
        "Updates without overflow after which a dynamic loss scale doubles.",
    ),
    Key(
        "TRAIN.ACCUMULATION_STEPS",
        Int(minimum=1),
        1,
        "Batches whose gradients make one update: large batches on few devices.",
    ),
    Key(
        "TRAIN.GRADIENT_REDUCTION",
        Text(("sum", "mean")),
        "sum",
        "Over devices, accumulated batches and workers. sum: as in 2018, the step grows with their "
        "number. mean: it does not, and bbox_loss_divisor 0 then means 188*BATCH_IMAGES.",
    ),
    Key(
        "TRAIN.REFERENCE_REPLICAS",
        Int(minimum=1),
        8,
        "Devices x accumulated batches x workers that TRAIN.lr was chosen for, 8 in 2018; for the "
        "start-up report and --auto-scale-lr.",
    ),
    Key(
        "TRAIN.REFERENCE_IMAGES",
        Int(minimum=1),
        None,
        "BATCH_IMAGES that TRAIN.lr was chosen for; None: those of the file. For --auto-scale-lr.",
        optional=True,
    ),
    Key(
        "TRAIN.EMA_DECAY",
        Float(minimum=0, maximum=0.999999),
        0.0,
        "Decay of a moving average of the weights, which is saved too; 0: none.",
    ),
    Key("TRAIN.begin_epoch", Int(minimum=0), 0, "Epochs done before; shifts the lr steps."),
    Key("TRAIN.end_epoch", Int(minimum=0), 0, "Epochs to train."),
    Key("TRAIN.MAX_UPDATES", Int(minimum=0), 0, "Stop after this many updates; 0: end_epoch."),
    Key("TRAIN.KEEP_CHECKPOINTS", Int(minimum=0), 0, "Newest checkpoints to keep; 0: all."),
    Key("TRAIN.BATCH_IMAGES", Int(minimum=1), 2, "Chips per device and update."),
    Key(
        "TRAIN.bbox_loss_divisor",
        Float(minimum=0),
        0.0,
        "Divisor of the box loss of the box head; 0: the 2018 constant 188*16. Set it when "
        "BATCH_IMAGES is small.",
    ),
    Key(
        "TRAIN.fine_loss_divisor",
        Float(minimum=0),
        0.0,
        "R-FCN-3K: divisor of the loss of the fine head, a sum over positive RoIs; 0: "
        "200*BATCH_IMAGES, as in 2018 for its 300 RoIs.",
    ),
)

LOADER_KEYS = (
    Key(
        "TRAIN.NUM_PROCESS",
        Int(minimum=-1),
        -1,
        "Loader processes: -1 one per core, 0 none (load in the main process); never more than "
        "the cores.",
    ),
    Key(
        "TRAIN.IMAGE_CACHE_MB",
        Int(minimum=0),
        512,
        "Decoded images that all loader processes together keep; each keeps at least one.",
    ),
    Key(
        "TRAIN.REDUCED_DECODING",
        Bool(),
        False,
        "Cut chips at 1/2, 1/4 or 1/8 of the image's size or less from a JPEG decoded at that "
        "scale. Faster for large images when the chips of an image are not trained together; "
        "grey levels differ from those of 2018, which sampled single pixels, by 5 (1/2), 7 to 10 "
        "(1/4) or 12 (1/8) in the mean over photographs.",
    ),
    Key(
        "TRAIN.NUM_THREAD",
        Int(minimum=1),
        8,
        "Image-reading threads of 2018; the loader's processes read the images: see NUM_PROCESS.",
        NO_EFFECT,
    ),
)

RUN_KEYS = (
    Key(
        "TRAIN.CHECKPOINT_EVERY",
        Int(minimum=0),
        0,
        "Updates between checkpoints within an epoch, of which the newest is kept; 0: epochs only.",
    ),
    Key("TRAIN.VALIDATE_EVERY", Int(minimum=0), 0, "Epochs between validations; 0: none."),
    Key("TRAIN.VALIDATION_SET", Text(), "", "Set for validation; empty: dataset.test_image_set."),
    Key("TRAIN.KEEP_BEST", Bool(), True, "Validation keeps the best weights as <prefix>-best."),
    Key(
        "TRAIN.EARLY_STOPPING.PATIENCE",
        Int(minimum=0),
        0,
        "The run ends after so many validations (VALIDATE_EVERY) that are no better; 0: never.",
    ),
    Key(
        "TRAIN.EARLY_STOPPING.MIN_DELTA",
        Float(minimum=0, maximum=1),
        0.0,
        "By how much a validation has to be better, in the figure that decides (AP: 0 to 1).",
    ),
    Key("TRAIN.TENSORBOARD", Bool(), True, "TensorBoard curves, when tensorboardX is installed."),
)

TRAIN_KEYS = (
    *TASK_KEYS,
    *CHIP_KEYS,
    *OPTIMISER_KEYS,
    *TARGET_KEYS,
    *LOADER_KEYS,
    *RUN_KEYS,
    *LEGACY_KEYS,
)
