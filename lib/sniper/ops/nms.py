"""Front of multi-scale NMS, for graphs; host code calls `sniper.native._native.multi_scale_nms`."""

from __future__ import annotations

import mxnet as mx

from sniper.ops.checks import Tensor, frontend, integer, number, require_tensor
from sniper.ops.library import load_library

MAX_DETECTIONS = 2**30


def multi_scale_nms(
    dets: Tensor,
    levels: Tensor,
    classes: Tensor,
    images: Tensor,
    valid_ranges: Tensor,
    *,
    sigma: float = 0.55,
    nms_threshold: float = -1.0,
    min_score: float = 0.001,
    max_per_image: int = -1,
    name: str = "multi_scale_nms",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Merges the detections of all pyramid levels (2018 behaviour; no gradient).

    The same as the host function, with tensors of a fixed size.

    Args:
        dets: (n, 5) x1 y1 x2 y2 score, image px. Rows that are not finite are dropped.
        levels: (n,) rows of `valid_ranges`, as float32 integers.
        classes: (n,).
        images: (n,); rows with a negative image are padding.
        valid_ranges: (L, 2): low < sqrt(area) <= high in image px; a bound <= 0 is no bound.
        sigma: of soft-NMS, exp(-overlap^2 / sigma).
        nms_threshold: IoU of hard NMS, at most 1; <= 0 selects soft-NMS.
        min_score: soft-NMS drops rows whose decayed score is lower.
        max_per_image: keeps the scores >= the max_per_image-th largest of an image; -1 or 0: all.
        name: names the symbol's outputs `<name>_output`, `<name>_classes_output`,
            `<name>_images_output` and `<name>_count_output`.

    Returns:
        dets (n, 5), classes (n,) and images (n,), grouped by image, then class, then order of
        selection, padded with -1; and the number of detections (1,).

    Raises:
        OpsError: a tensor or an argument is wrong, or the library is missing.
    """
    op = "multi_scale_nms"
    columns = {"levels": levels, "classes": classes, "images": images}
    front = frontend(op, dets=dets, **columns, valid_ranges=valid_ranges)
    require_tensor(op, "dets", dets, (None, 5))
    rows = dets.shape[0] if front is mx.nd else None
    for column_name, column in columns.items():
        require_tensor(op, column_name, column, (rows,))
    require_tensor(op, "valid_ranges", valid_ranges, (None, 2))
    attributes = {
        "sigma": number(op, "sigma", sigma, 1e-6, 1e6),
        "nms_threshold": number(op, "nms_threshold", nms_threshold, -1e6, 1),
        "min_score": number(op, "min_score", min_score, -1e30, 1e30),
        "max_per_image": integer(op, "max_per_image", max_per_image, -1, MAX_DETECTIONS),
    }
    load_library()
    inputs = [front.BlockGrad(tensor) for tensor in (dets, *columns.values(), valid_ranges)]
    if front is not mx.sym:
        merged, out_classes, out_images, count = front.MultiScaleNMS(*inputs, **attributes)
        return merged, out_classes, out_images, count
    outputs = front.MultiScaleNMS(*inputs, name=f"{name}_merged", **attributes)
    return (
        front.identity(outputs[0], name=name),
        front.identity(outputs[1], name=f"{name}_classes"),
        front.identity(outputs[2], name=f"{name}_images"),
        front.identity(outputs[3], name=f"{name}_count"),
    )
