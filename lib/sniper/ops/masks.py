"""Front of the mask targets: rois and encoded polygons in, rasterised masks out."""

from __future__ import annotations

from sniper.ops.checks import Tensor, blocked, call, frontend, named_outputs


def mask_rcnn_target(
    rois: Tensor,
    mask_polys: Tensor,
    mask_ids: Tensor,
    *,
    mask_size: int = 28,
    ignore_label: float = -1.0,
    name: str = "mask_rcnn_target",
) -> tuple[Tensor, Tensor]:
    """Polygons cut out by their rois and rasterised like the COCO tools do it (no gradient).

    The pixels are those of pycocotools' `decode(frPyObjects(...))` with x and y exchanged, of the
    polygon moved and scaled into the roi (2018 behaviour). Overlapping segments are united.

    Args:
        rois: (R, 5), image, x1, y1, x2, y2 in image px.
        mask_polys: (N, G, L), one polygon per row: class - 1, number of segments n, the n lengths
            (twice the vertices), then x, y, x, y, ... of all segments in image px, padding.
        mask_ids: (R, 1), the roi's row of `mask_polys[image]`, or -1.
        mask_size: pixels per side of a mask.
        ignore_label: target of rois without a usable polygon.
        name: names the symbol's outputs `<name>_mask_targets_output` and `<name>_mask_cls_output`.

    Returns:
        mask_targets (R, mask_size, mask_size), 0 or 1, rows are y; mask_cls of the same shape, the
        polygon's class - 1 in every pixel. A roi has no usable polygon when its id or image does
        not exist, when the row holds no segment, a negative class or lengths that do not fit, or
        when coordinates are not finite: then its targets are `ignore_label` and its classes 0.

    Raises:
        OpsError: a tensor or an argument is wrong, or the library is missing.
    """
    op = "mask_rcnn_target"
    front = frontend(op, rois=rois, mask_polys=mask_polys, mask_ids=mask_ids)
    arguments = {"mask_size": mask_size, "ignore_label": ignore_label}
    inputs = blocked(front, rois, mask_polys, mask_ids)
    outputs = call(op, front, "MaskRcnnTarget", inputs, arguments, name=name)
    names = (f"{name}_mask_targets", f"{name}_mask_cls")
    targets, classes = named_outputs(front, outputs, names)
    return targets, classes
