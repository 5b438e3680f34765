"""Detection in the windows of a large image, from decoded pixels to merged boxes.

Sides
* ours: `sniper.inference.detector.Detector` with one level of slices, as in the mode `slice`.
* sahi: `sahi.predict.get_sliced_prediction` with `postprocess_type="NMS"`, without its look at the
  whole image; its NMS is compiled when numba is installed. The network is in a `DetectionModel`.
* supervision: `supervision.InferenceSlicer` with NMS by class, which makes a table of all pairs; so
  it takes no part at 48 MP.

All sides cut the same windows of 640 px that share 20 %, one in a batch, and suppress at the same
IoU class by class; there is no cap. They call the same network, so peers need an interpreter that
has MXNet and this package as well. It is a half-width MobileNetV2 with random weights, which runs
and finds nothing; what it "finds" is 60 boxes of 10 classes that are drawn by a checksum of the
window's pixels: a side that shows it other pixels gets other boxes. In the jobs "without the
network" it does not run: what is left is cutting, making the network's input, moving boxes, NMS.

Pixel convention as in the case `nms`; corners are whole pixels. Compared: all boxes with classes
and scores, exactly.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bench import compare as agreement
from bench.case import Arrays, Case, Job, PeerMissingError, Prepared, Side

WINDOW_PX, OVERLAP = 640, 0.2
# No ratio of the areas of such boxes: sides differ in "more" and "not less".
THRESHOLD = 0.45003
RECIPE = "sniper_mobilenetv2_toy"
CLASSES, OBJECTS, BOXES = 10, 12, 5
SETS = 64
PATCH = slice(8, 40)
PIXEL = np.array([0, 0, 1, 1], np.float32)  # from our inclusive corners to the peers'
ROW_PIXEL = np.append(PIXEL, np.float32(0))
SIZES = {"3 MP": (2048, 1536), "12 MP": (4000, 3000), "48 MP": (8000, 6000)}
INSTALL = "pip install -r requirements-bench-peers.txt, beside this package"

Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # (n, 4) inclusive px, classes from 1, scores


def picture(rng: np.random.Generator, width: int, height: int) -> Arrays:
    pixels = np.frombuffer(rng.bytes(width * height * 3), np.uint8)
    return {"image": pixels.reshape(height, width, 3)}


class Network:
    """Boxes of a window by its pixels, after the real network has run or without it."""

    def __init__(self, runs: bool) -> None:
        self._run = executor().run if runs else None
        self._sets = [drawn(np.random.default_rng(number)) for number in range(SETS)]

    def __call__(self, data: np.ndarray) -> Found:
        """Args: data: (1, 3, h, w) float32 RGB."""
        if self._run is not None:
            self._run(data, np.float32([[*data.shape[2:], 1]]))
        patch = data[0, :, PATCH, PATCH].astype(np.uint8)
        return self._sets[zlib.crc32(patch.tobytes()) % SETS]


def drawn(rng: np.random.Generator) -> Found:
    """Boxes around a few objects of one class each."""
    sizes = np.exp(rng.uniform(np.log(16), np.log(200), (OBJECTS, 2)))
    corners = rng.uniform(0, WINDOW_PX - sizes)
    objects = np.hstack([corners, corners + sizes])
    boxes = objects.repeat(BOXES, axis=0)
    boxes += rng.normal(0, 0.12, boxes.shape) * np.tile(sizes.repeat(BOXES, axis=0), 2)
    boxes = np.clip(np.round(boxes), 0, WINDOW_PX - 1).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    scores = rng.uniform(0.3, 1, len(boxes)).astype(np.float32)
    return boxes, rng.integers(1, CLASSES + 1, OBJECTS).repeat(BOXES), scores


def executor() -> Any:
    """The network that runs for nothing."""
    import sniper  # noqa: F401, I001 (prepares the process for MXNet)
    import mxnet as mx

    from bench.random_detectors import random_detector
    from sniper.inference.mxnet_executor import MxnetExecutor

    return MxnetExecutor(random_detector(RECIPE, ()).model, [mx.cpu()])


def blob(pixels: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 RGB -> (1, 3, h, w) float32, what peers' users write."""
    import cv2

    return cv2.dnn.blobFromImage(pixels)


def ours(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from sniper.chips.slices import SliceSettings
    from sniper.data.record import image_record
    from sniper.inference.detector import Detector
    from sniper.inference.level import SLICES, Level
    from sniper.inference.merge_levels import MergeSettings
    from sniper.progress import silent
    from sniper.runs.predictor import InMemoryImages

    image = arrays["image"]
    level = Level(1.0, windows=SLICES, slices=SliceSettings(WINDOW_PX, OVERLAP))
    detector = Detector(
        DrawnExecutor(Network(params["network"])),
        [level],
        MergeSettings(THRESHOLD, max_per_image=-1),
        (0.0, 0.0, 0.0),
        num_threads=threads,
    )
    records = [image_record("image", 0, image.shape[1], image.shape[0])]
    images = InMemoryImages({"image": image})

    def outputs(table: Any) -> Arrays:
        return {"rows": table[0].rows, "classes": table[0].classes}

    return Prepared(lambda: detector.detect(records, images=images, on_step=silent), outputs)


class DrawnExecutor:
    """The network as our detector sees it."""

    num_devices = 1

    def __init__(self, network: Network) -> None:
        from sniper.inference.executor import DetectorTraits

        names = ("background", *(str(number) for number in range(1, CLASSES + 1)))
        self.traits = DetectorTraits(names, 16, 0, has_masks=False)
        self._network = network

    def run(self, data: np.ndarray, im_info: np.ndarray) -> list[Any]:
        """See `sniper.inference.executor.Executor`."""
        from sniper.models.parts import WindowDetections

        boxes, classes, own = self._network(data)
        scores = np.zeros((len(boxes), CLASSES + 1), np.float32)
        scores[np.arange(len(boxes)), classes] = own
        return [WindowDetections(boxes, scores)]


def sahi(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    try:
        from sahi.models.base import DetectionModel
        from sahi.predict import get_sliced_prediction
        from sahi.prediction import ObjectPrediction
    except ImportError as error:
        raise PeerMissingError(f"SAHI is not installed ({error}): {INSTALL}") from None
    network = peer_network(params)

    class Model(DetectionModel):
        """The network as SAHI sees it; written like SAHI's own models."""

        def load_model(self) -> None:
            self.model = network

        def perform_inference(self, image: np.ndarray) -> None:
            self._original_predictions = self.model(blob(image))

        def _create_object_prediction_list_from_original_predictions(
            self, shift_amount_list: Any = ((0, 0),), full_shape_list: Any = None
        ) -> None:
            boxes, classes, scores = self._original_predictions
            found = zip((boxes + PIXEL).tolist(), classes.tolist(), scores.tolist())
            self._object_prediction_list_per_image = [
                [
                    ObjectPrediction(
                        bbox=box,
                        category_id=number,
                        category_name=str(number),
                        score=score,
                        shift_amount=shift_amount_list[0],
                        full_shape=None if full_shape_list is None else full_shape_list[0],
                    )
                    for box, number, score in found
                ]
            ]

    model = Model()
    image = rgb(arrays)

    def run() -> Any:
        return get_sliced_prediction(
            image,
            model,
            slice_height=WINDOW_PX,
            slice_width=WINDOW_PX,
            overlap_height_ratio=OVERLAP,
            overlap_width_ratio=OVERLAP,
            perform_standard_pred=False,
            postprocess_type="NMS",
            postprocess_match_metric="IOU",
            postprocess_match_threshold=THRESHOLD,
            verbose=0,
        ).object_prediction_list

    def outputs(found: Any) -> Arrays:
        rows = [[*one.bbox.to_xyxy(), one.score.value] for one in found]
        return {
            "rows": np.float32(rows).reshape(-1, 5) - ROW_PIXEL,
            "classes": np.int32([one.category.id for one in found]),
        }

    return Prepared(run, outputs)


def supervision(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    try:
        from supervision import Detections, InferenceSlicer, OverlapFilter
    except ImportError as error:
        raise PeerMissingError(f"supervision is not installed ({error}): {INSTALL}") from None
    network = peer_network(params)

    def detect(window: np.ndarray) -> Any:
        boxes, classes, scores = network(blob(window))
        return Detections(xyxy=boxes + PIXEL, confidence=scores, class_id=classes)

    shared = round(WINDOW_PX * OVERLAP)
    slicer = InferenceSlicer(
        callback=detect,
        slice_wh=(WINDOW_PX, WINDOW_PX),
        overlap_wh=(shared, shared),
        overlap_filter=OverlapFilter.NON_MAX_SUPPRESSION,
        iou_threshold=THRESHOLD,
        thread_workers=1,
    )
    image = rgb(arrays)

    def outputs(found: Any) -> Arrays:
        rows = np.column_stack([found.xyxy, found.confidence]).astype(np.float32) - ROW_PIXEL
        return {"rows": rows, "classes": found.class_id}

    return Prepared(lambda: slicer(image), outputs)


def peer_network(params: Mapping[str, Any]) -> Callable[[np.ndarray], Found]:
    try:
        return Network(params["network"])
    except ImportError as error:
        raise PeerMissingError(f"the network needs this package and MXNet ({error})") from None


def rgb(arrays: Arrays) -> np.ndarray:
    """The image as peers want it."""
    return np.ascontiguousarray(arrays["image"][:, :, ::-1])


def compare(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    sides = [
        {(*row, int(number)) for row, number in zip(side["rows"].tolist(), side["classes"])}
        for side in (ours, peer)
    ]
    common = len(sides[0] & sides[1])
    sentence = f"{common} of {len(sides[0])} and {len(sides[1])} detections equal"
    return agreement.require(len(sides[0]) == len(sides[1]) == common > 0, sentence, "all")


def job(size: str, with_network: bool) -> Job:
    width, height = SIZES[size]
    return Job(
        f"{size}, {'with' if with_network else 'without'} the network",
        lambda rng: picture(rng, width, height),
        {"network": with_network},
        ("sahi",) if size == "48 MP" else None,
    )


CASE = Case(
    name="slices",
    summary="windows of a large image: cut, detect, move, NMS",
    jobs=[job(size, with_network) for with_network in (False, True) for size in SIZES],
    # Peers call our network: an interpreter is named for each, never by --peer-python PATH alone.
    sides={"ours": Side(ours), "sahi": Side(sahi), "supervision": Side(supervision)},
    compare=compare,
)
