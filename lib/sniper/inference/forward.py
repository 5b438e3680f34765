"""A detector bound for inference: batches of images in, raw boxes and scores out."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import mxnet as mx
import numpy as np

from sniper import boxes as box_ops
from sniper.inference.weights import Model, params_of
from sniper.loader.test import TestBatch
from sniper.models.detector import build_detector, data_names, short_output_names

logger = logging.getLogger(__name__)

# Detections with a lower class score are dropped before merging (2018 behaviour).
MIN_SCORE = 1e-3

ROI_MAP = "conv_new_1_relu"


@dataclass(frozen=True)
class ChipDetections:
    """What the network found in one chip (or whole image) of one level.

    Attributes:
        image_index: row of the image in the list of records.
        chip_index: which chip of the image.
        boxes: (R, 4) float32, px of the original image, relative to the chip's origin.
        scores: (R, C) class probabilities, or (R,) objectness of an RPN-only network.
        factor: px of the original image -> px of the network's input.
        roi_map: (K, h, w) what the mask head reads; None where it was not asked for.
    """

    image_index: int
    chip_index: int
    boxes: np.ndarray
    scores: np.ndarray
    factor: float = 1.0
    roi_map: np.ndarray | None = None


class LevelForward:
    """A model bound for one batch size on the given devices; any image size."""

    def __init__(
        self,
        model: Model,
        devices: list[mx.Context],
        batch_images: int,
        *,
        rpn_only: bool = False,
        roi_map: bool = False,
    ) -> None:
        self.devices = devices
        self.batch_size = batch_images * len(devices)
        self.rpn_only = rpn_only
        self._rois_per_image = model.spec.proposal.post_nms_top_n
        self._model = model
        spec = dataclasses.replace(model.spec, batch_images=batch_images)
        self._symbol = build_detector(spec, train=False, rpn_only=rpn_only, roi_map=roi_map)
        self._data_names = data_names(spec, train=False, rpn_only=rpn_only)
        self._output_names = short_output_names(self._symbol.list_outputs())
        self._module: mx.mod.Module | None = None

    def __call__(self, batch: TestBatch) -> Iterator[ChipDetections]:
        """Detections of every image of the batch, padding left out."""
        outputs = self._forward(batch)
        for row in np.flatnonzero(~batch.is_padding):
            rois, boxes, scores = self._decode(outputs, batch.im_info[row], int(row))
            # Slots that no proposal filled are zero boxes.
            filled = np.any(rois != 0, axis=1)
            yield ChipDetections(
                int(batch.image_index[row]),
                int(batch.chip_index[row]),
                (boxes[filled] / batch.im_info[row, 2]).astype(np.float32),
                scores[filled],
                float(batch.im_info[row, 2]),
                outputs[ROI_MAP][row] if ROI_MAP in outputs else None,
            )

    def _forward(self, batch: TestBatch) -> dict[str, np.ndarray]:
        inputs = {
            "data": batch.data,
            "im_info": batch.im_info,
            "im_ids": batch.image_index.astype(np.float32),
            "chip_ids": batch.chip_index.astype(np.float32),
        }
        arrays = [mx.nd.array(inputs[name]) for name in self._data_names]
        shapes = [(name, array.shape) for name, array in zip(self._data_names, arrays)]
        if self._module is None:
            self._module = self._bind(shapes)
        data_batch = mx.io.DataBatch(arrays, provide_data=[mx.io.DataDesc(*s) for s in shapes])
        self._module.forward(data_batch, is_train=False)
        results = self._module.get_outputs()
        return dict(zip(self._output_names, (array.asnumpy() for array in results)))

    def _bind(self, shapes: list[tuple[str, tuple[int, ...]]]) -> mx.mod.Module:
        module = mx.mod.Module(
            self._symbol,
            self._data_names,
            label_names=None,
            context=self.devices,
            logger=logger,
        )
        module.bind(shapes, for_training=False)
        per_device = {name: (s[0] // len(self.devices), *s[1:]) for name, s in shapes}
        module.set_params(*params_of(self._symbol, per_device, self._model))
        return module

    def _decode(
        self, outputs: dict[str, np.ndarray], im_info: np.ndarray, row: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """RoIs, refined boxes (px of the level, clipped) and scores of one image."""
        count = self._rois_per_image
        rois = outputs["rois"][row * count : (row + 1) * count, 1:]  # (R, 4)
        if self.rpn_only:
            return rois, rois, outputs["rois_score"].reshape(-1, count)[row]
        deltas = outputs["bbox_pred_reshape"][row]  # (R, 4)
        boxes = box_ops.clip(box_ops.decode(rois, deltas), im_info[0], im_info[1])
        return rois, boxes, outputs["cls_prob_reshape"][row]
