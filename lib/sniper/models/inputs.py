"""Names and shapes of a detector's inputs."""

from __future__ import annotations

from sniper.errors import ConfigError
from sniper.models.spec import DetectorSpec


def data_names(spec: DetectorSpec, *, train: bool, rpn_only: bool = False) -> list[str]:
    """Names of the inputs, in the order of the 2018 iterators (the same for every network)."""
    if train:
        return ["data"] if rpn_only else ["data", "valid_ranges", "im_info"]
    names = ["data", "im_info", "im_ids"]
    return names if rpn_only else [*names, "chip_ids"]


def label_names(spec: DetectorSpec, *, rpn_only: bool = False) -> list[str]:
    """Names of the labels in training, in the order of the 2018 iterators."""
    names = ["label", "bbox_target", "bbox_weight"]
    if rpn_only:
        return names
    names.append("gt_boxes")
    names += ["scale_label"] if spec.auto_focus else []
    names += ["gt_masks"] if spec.with_masks else []
    return names


def train_input_shapes(
    spec: DetectorSpec, chip_size: int, *, rpn_only: bool = False
) -> dict[str, tuple[int, ...]]:
    """Shapes of all data and labels of one device.

    Raises:
        ConfigError: the chip is not made of whole feature cells.
    """
    cell = spec.feature_stride
    if chip_size <= 0 or chip_size % cell:
        raise ConfigError(
            "the chip size must be a multiple of the network's stride",
            where="TRAIN.CHIP_SIZE",
            got=chip_size,
            expected=f"a multiple of {cell}",
        )
    images, anchors, side = spec.batch_images, spec.num_anchors, chip_size // cell
    shapes = {
        "data": (images, 3, chip_size, chip_size),
        "valid_ranges": (images, 2),
        "im_info": (images, 3),
        "label": (images, anchors * side * side),
        "bbox_target": (images, 4 * anchors, side, side),
        "bbox_weight": (images, 4 * anchors, side, side),
        "gt_boxes": (images, spec.max_gt, 5),
        "scale_label": (images, side * side),
        "gt_masks": (images, spec.max_gt, spec.mask_row_length),
    }
    names = data_names(spec, train=True, rpn_only=rpn_only)
    names += label_names(spec, rpn_only=rpn_only)
    return {name: shapes[name] for name in names}


def inference_input_shapes(
    spec: DetectorSpec, batch_images: int, height: int, width: int, *, rpn_only: bool = False
) -> dict[str, tuple[int, ...]]:
    """Shapes of all inputs of one device at test time."""
    shapes = {
        "data": (batch_images, 3, height, width),
        "im_info": (batch_images, 3),
        "im_ids": (batch_images,),
        "chip_ids": (batch_images,),
    }
    return {name: shapes[name] for name in data_names(spec, train=False, rpn_only=rpn_only)}
