"""Front of multi-scale NMS, for graphs; host code calls `sniper.native._native.multi_scale_nms`."""

from __future__ import annotations

from sniper.ops.checks import Tensor, blocked, call, frontend, named_outputs


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
    tensors = {
        "dets": dets,
        "levels": levels,
        "classes": classes,
        "images": images,
        "valid_ranges": valid_ranges,
    }
    front = frontend(op, **tensors)
    arguments = {
        "sigma": sigma,
        "nms_threshold": nms_threshold,
        "min_score": min_score,
        "max_per_image": max_per_image,
    }
    inputs = blocked(front, *tensors.values())
    outputs = call(op, front, "MultiScaleNMS", inputs, arguments, name=f"{name}_merged")
    names = (name, f"{name}_classes", f"{name}_images", f"{name}_count")
    kept, kept_classes, kept_images, count = named_outputs(front, outputs, names)
    return kept, kept_classes, kept_images, count
