"""Keys outside TRAIN and TEST: run, devices, network and data set."""

from __future__ import annotations

from sniper.config.kinds import LEGACY, Array, Bool, Float, Int, Key, Name, Seq, Text

# Formats of other packages are checked when a set is opened: this room does not know them.
FORMATS = (
    ("coco", "coco"),
    ("pascalvoc", "PascalVOC"),
    ("voc", "PascalVOC"),
    ("yolo", "yolo"),
    ("folder", "folder"),
    ("imagenet", "imagenet"),
)
KVSTORES = ("local", "device", "nccl", "dist_sync", "dist_device_sync")

RUN_KEYS = (
    Key(
        "name",
        Text(),
        None,
        "Name of the run and of its folder; None: the file's name up to the first dot.",
        optional=True,
    ),
    Key("seed", Int(minimum=0), 0, "Seed of every random stream: chips, targets, new weights."),
    Key("proposal_path", Text(), "data/proposals", "Folder of the proposal files for training."),
    Key("MXNET_VERSION", Text(), "", "Name of the 2018 framework build.", LEGACY),
    Key("output_path", Text(), "./output", "Root folder of models, logs and results."),
    Key(
        "symbol",
        Text(),
        "resnet_mx_101_e2e",
        "Network to build: resnet_mx_101, resnet_mx_50, resnet_mx_18, mobilenetv2 or vgg16, then "
        "_e2e, _e2e_mask, _3k (R-FCN-3K), _rfcn or _ssh (faces); or one of parts that were "
        "registered.",
    ),
    Key("gpus", Text(), "", "Comma list of GPU ordinals; empty or 'cpu': run on the CPU."),
    Key("CLASS_AGNOSTIC", Bool(), True, "The box head is always class-agnostic.", LEGACY),
    Key(
        "default.kvstore",
        Text(KVSTORES),
        "device",
        "dist_sync: several processes (`sniper launch` sets it); all others: one process.",
    ),
)

NETWORK_KEYS = (
    Key(
        "network.pretrained",
        Text(),
        "",
        "Prefix of the initial weights; empty: start from random weights.",
    ),
    Key(
        "network.pretrained_epoch",
        Int(minimum=0),
        0,
        "Number in the file name <prefix>-0000.params of the initial weights.",
    ),
    Key(
        "network.PIXEL_MEANS",
        Array(3),
        (0.0, 0.0, 0.0),
        "Blue, green, red means that are subtracted from the image.",
    ),
    Key("network.RPN_FEAT_STRIDE", Int(minimum=1), 16, "Pixels per cell of the anchor grid."),
    Key(
        "network.FIXED_PARAMS",
        Seq(Text(), empty_allowed=True),
        ("gamma", "beta"),
        "Parameters whose name contains any of these are not trained. Batch norms up to which "
        "nothing is trained use their stored statistics.",
    ),
    Key("network.ANCHOR_RATIOS", Seq(Float(minimum=1e-6)), (0.5, 1.0, 2.0), "Height/width."),
    Key(
        "network.ANCHOR_SCALES",
        Seq(Float(minimum=1e-6)),
        (8.0, 16.0, 32.0),
        "Anchor sizes in multiples of the stride. SSH: of 16 px, a third of them for each of the "
        "strides 8, 16 and 32.",
    ),
    Key(
        "network.NUM_ANCHORS",
        Int(minimum=1),
        None,
        "Anchors per cell: ratios x scales; None computes it.",
        optional=True,
    ),
    Key(
        "network.ANCHOR_ROUNDING",
        Text(("legacy", "half_up")),
        "legacy",
        "legacy: RPN targets round half to even as in 2018; half_up: as the proposal operators.",
    ),
    Key(
        "network.BN_MODE",
        Text(("batch", "frozen")),
        "batch",
        "frozen: global statistics, scale and shift fixed; for few chips per device.",
    ),
    Key(
        "network.BN_MOMENTUM",
        Float(minimum=0, maximum=1),
        0.995,
        "Momentum of the running averages of BatchNorm; the --momentum flag wins.",
    ),
    Key(
        "network.PADDING",
        Text(("symmetric", "tf_same")),
        "symmetric",
        "MobileNetV2: tf_same fits backbones that were trained with TensorFlow.",
    ),
    Key(
        "network.WIDTH",
        Float(minimum=0.05, maximum=4),
        1.0,
        "Channel multiplier of the backbone.",
    ),
    Key(
        "network.ACTIVATION", Text(("relu6", "relu")), "relu6", "Activation of MobileNetV2 blocks."
    ),
    Key(
        "network.DILATE",
        Bool(),
        True,
        "MobileNetV2 at stride 16: dilate the blocks behind the removed stride, so that pretrained "
        "filters see the image at their scale; false is faster and right from scratch.",
    ),
    Key(
        "network.INIT",
        Text(choices=("legacy", "scratch")),
        "legacy",
        "Starting values of what is not pretrained. legacy: heads at N(0, 0.01) as in 2018; "
        "scratch: hidden head layers after He et al., residual blocks (MobileNetV2, bottleneck "
        "ResNets) as identities.",
    ),
    Key(
        "network.RPN_CHANNELS",
        Int(minimum=0),
        0,
        "Channels of the proposal network's 3x3 layer; 0: 512, or 256 for the small networks. SSH: "
        "of the modules of strides 16 and 32, twice those of stride 8; 0: 256.",
    ),
    Key(
        "network.ROI_CHANNELS",
        Int(minimum=1),
        256,
        "Channels of the map that RoIs pool from, and of the mask and FocusPixel layers.",
    ),
    Key(
        "network.FC_CHANNELS",
        Int(minimum=0),
        0,
        "Width of the two dense layers of the box head, or of the 1x1 layers of R-FCN; 0: 1024, or "
        "512 for MobileNetV2.",
    ),
    Key(
        "network.RFCN_RELU",
        Bool(),
        False,
        "R-FCN: a ReLU in front of the position-sensitive maps; R-FCN-3K of 2018 had none.",
    ),
    Key(
        "network.SUPER_CLASSES",
        Text(),
        None,
        "R-FCN-3K: what is detected before classes are told apart: a JSON file, or JSON, such as "
        '{"animal": ["cat", "dog"]}, of class names or category ids; None: one, "object".',
        optional=True,
    ),
    Key(
        "network.FINE_ROIS",
        Int(minimum=1),
        50,
        "R-FCN-3K: positive RoIs of an image that the fine head trains on, at most.",
    ),
    Key(
        "network.FINE_ID_OFFSET",
        Int(minimum=0, maximum=1),
        0,
        "R-FCN-3K at test: 0: output c - 1 of the fine head is class c; 1: output c - 2, for "
        "weights that counted classes from 0 in training (2018).",
    ),
)

DATASET_KEYS = (
    Key(
        "dataset.dataset",
        Name(spellings=FORMATS),
        "PascalVOC",
        "Kind of data set: coco, PascalVOC, yolo, folder, imagenet, openimages, wider, or a "
        "registered one, in any case.",
    ),
    Key(
        "dataset.image_set",
        Text(),
        "2007_trainval",
        "Training sets joined by '+'; also names the model folder, for testing too.",
    ),
    Key("dataset.test_image_set", Text(), "2007_test", "Set for testing or proposal extraction."),
    Key("dataset.root_path", Text(), "./data", "Parent of the cache folder."),
    Key("dataset.dataset_path", Text(), "./data/VOCdevkit", "Root folder of the data set."),
    Key(
        "dataset.EXIF",
        Text(("auto", "apply", "ignore")),
        "auto",
        "EXIF orientation of photos: auto (the annotated size decides; where both fit, photos are "
        "turned and TIFFs are not), apply, or ignore (boxes count the stored pixels).",
    ),
    Key(
        "dataset.CLASS_BALANCED",
        Float(minimum=0, maximum=1),
        0.0,
        "Images with rare classes are trained several times an epoch: a class of a share f of the "
        "images max(1, sqrt(CLASS_BALANCED / f)) times, an image as often as its rarest class "
        "(repeat factor sampling; 0.001 for thousands of classes). 0: every image once (2018).",
    ),
    Key(
        "dataset.annotation_file",
        Text(),
        "",
        "COCO: the annotations, if they are not annotations/instances_<set>.json; {set} stands for "
        "the set's name, e.g. {set}/_annotations.coco.json. ImageNet: their folder, if it is not "
        "<set>_bbox. WIDER: the text, if it is not wider_face_split/wider_face_<set>_bbx_gt.txt.",
    ),
    Key(
        "dataset.image_folder",
        Text(),
        "",
        "COCO, ImageNet, WIDER: the folder of the images, if it is not images/<set> or <set> "
        "(WIDER_<set>/images); {set} stands for the set's name.",
    ),
    Key("dataset.NUM_CLASSES", Int(minimum=2), 21, "Classes including the background."),
    Key("dataset.proposal", Text(("rpn",)), "rpn", "Source of proposals for negative chips."),
)
