"""A detector bound for inference: batches of images in, raw boxes and scores out."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import mxnet as mx
import numpy as np

from sniper import boxes as box_ops
from sniper.errors import DataError
from sniper.loader.test import TestBatch
from sniper.models.detector import DetectorSpec, build_detector, data_names

logger = logging.getLogger(__name__)

# Detections with a lower class score are dropped before merging (2018 behaviour).
MIN_SCORE = 1e-3


@dataclass(frozen=True)
class Model:
    """A network description with its weights, ready for inference.

    Attributes:
        spec: the network; `batch_images` is set per pyramid level.
        arg: parameters by name, `_test` tensors already in place.
        aux: batch-norm statistics by name.
        class_names: index 0 is the background.
    """

    spec: DetectorSpec
    arg: dict[str, mx.nd.NDArray]
    aux: dict[str, mx.nd.NDArray]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class ChipDetections:
    """What the network found in one chip (or whole image) of one level.

    Attributes:
        image_index: row of the image in the list of records.
        chip_index: which chip of the image.
        boxes: (R, 4) float32, px of the original image, relative to the chip's origin.
        scores: (R, C) class probabilities, or (R,) objectness of an RPN-only network.
    """

    image_index: int
    chip_index: int
    boxes: np.ndarray
    scores: np.ndarray


class LevelForward:
    """A model bound for one batch size on the given devices; any image size."""

    def __init__(
        self,
        model: Model,
        devices: list[mx.Context],
        batch_images: int,
        *,
        rpn_only: bool = False,
    ) -> None:
        self.devices = devices
        self.batch_size = batch_images * len(devices)
        self.rpn_only = rpn_only
        self._rois_per_image = model.spec.proposal.post_nms_top_n
        self._model = model
        spec = dataclasses.replace(model.spec, batch_images=batch_images)
        self._symbol = build_detector(spec, train=False, rpn_only=rpn_only)
        self._data_names = data_names(False, rpn_only)
        self._output_names = [name.removesuffix("_output") for name in self._symbol.list_outputs()]
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
        arg = {name: self._model.arg[name] for name in self._present(shapes, "arg")}
        aux = {name: self._model.aux[name] for name in self._present(shapes, "aux")}
        module.set_params(arg, aux)
        return module

    def _present(self, shapes: list[tuple[str, tuple[int, ...]]], kind: str) -> list[str]:
        """Names of the network's tensors, after a check that the weights have them all."""
        per_device = {name: (s[0] // len(self.devices), *s[1:]) for name, s in shapes}
        arg_shapes, _, aux_shapes = self._symbol.infer_shape(**per_device)
        if kind == "arg":
            names, wanted, have = self._symbol.list_arguments(), arg_shapes, self._model.arg
        else:
            names, wanted, have = self._symbol.list_auxiliary_states(), aux_shapes, self._model.aux
        wrong = [
            f"{name} {have[name].shape if name in have else 'missing'}, expected {shape}"
            for name, shape in zip(names, wanted)
            if name not in per_device and (name not in have or have[name].shape != shape)
        ]
        if wrong:
            raise DataError(
                "the weights do not fit the network",
                where=self._model.spec.symbol,
                got="; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if wrong[5:] else ""),
                fix="use the recipe that the weights were trained with",
            )
        return [name for name in names if name not in per_device]

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
