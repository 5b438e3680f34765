"""Writes a detector of torchvision with random weights as ONNX, and what torch finds with it.

    /path/with/torch/bin/python scripts/bench/peers/torchvision_detectors.py \
        fasterrcnn_resnet50_fpn 800x608 FOLDER

Needs torch, torchvision and onnx, and nothing of this package; `whole_detectors.py` calls it. The
files are FOLDER/<name>_<size>.onnx and .npz: an image, what is found in it, the numbers of RoIs and
of GFLOP (2 for each multiplication of a convolution or fully connected layer).
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

CLASSES, ROIS = 81, 300
# Spread of what each layer of the heads puts out, as after training: scores that differ from place
# to place and from RoI to RoI, some above torchvision's threshold, and boxes near their anchors.
SPREADS = {"rpn.cls": 1.0, "rpn.box": 0.3, "roi.cls": 2.0, "roi.box": 1.0}


def detector(name: str, width: int, height: int) -> Any:
    """In eager mode; images of this size are not resized."""
    import torch
    import torchvision

    torch.manual_seed(0)
    return getattr(torchvision.models.detection, name)(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        min_size=min(width, height),
        max_size=max(width, height),
        rpn_post_nms_top_n_test=ROIS,
        rpn_score_thresh=0.0,
    )


def spread(model: Any, image: Any) -> int:
    """Gives batch norms the statistics of an image and heads outputs that differ.

    Returns:
        How many RoIs the image has.
    """
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    predictor, rpn = model.roi_heads.box_predictor, model.rpn.head
    layers = {
        "rpn.cls": rpn.cls_logits,
        "rpn.box": rpn.bbox_pred,
        "roi.cls": predictor.cls_score,
        "roi.box": predictor.bbox_pred,
    }
    rois = 0
    with torch.no_grad():
        model.eval()
        model.backbone.train()
        model.backbone(model.transform([image])[0].tensors)
        model.eval()
        for key, layer in layers.items():
            seen: list[Any] = []
            hook = layer.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output))
            model([image])
            hook.remove()
            rows = torch.cat([one.movedim(1, -1).reshape(-1, one.shape[1]) for one in seen])
            factor = SPREADS[key] / rows.std(dim=0).mean()
            layer.weight *= factor
            layer.bias.copy_(factor * (layer.bias - rows.mean(dim=0)))
            rois = len(rows)
    return rois


def main(name: str, size: str, folder: str) -> None:
    import torch
    import torchvision
    from torch.utils.flop_counter import FlopCounterMode

    warnings.simplefilter("ignore")  # of the exporter, about sizes: the one it sees is the one used
    width, height = (int(side) for side in size.split("x"))
    model = detector(name, width, height)
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(1))
    image = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    rois = spread(model, image)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        (found,) = model([image])
    path = Path(folder) / f"{name}_{size}"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        model,
        ([image],),
        f"{path}.onnx",
        opset_version=17,
        dynamo=False,
        input_names=["image"],
        output_names=["boxes", "labels", "scores"],
    )
    np.savez(
        f"{path}.npz",
        image=image.numpy(),
        rois=rois,
        gflop=counter.get_total_flops() / 1e9,
        version=torchvision.__version__,
        **{key: value.numpy() for key, value in found.items()},
    )
    print(f"{path}.onnx: {rois} RoIs, {len(found['boxes'])} boxes")


if __name__ == "__main__":
    main(*sys.argv[1:])
