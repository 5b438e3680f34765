"""Whole detectors of an image: ours beside torchvision's, in three engines each.

Sides
* ours: the network in MXNet (proposals, heads, decoding) and the merge of its detections.
* ours-onnxruntime, ours-openvino: the same network as `sniper export --format onnx` writes it, and
  the same merge. OpenVINO has no deformable convolutions and refuses ResNet-50.
* torchvision, torchvision-channels-last: Faster R-CNN with FPN in PyTorch, eager.
* torchvision-onnxruntime, torchvision-openvino: the same, exported by torch.onnx.

Equal: size of the image, 300 RoIs, 81 classes, random weights, fp32. Not equal, since no library
has our networks: torchvision's ResNet-50 has an FPN of five maps and two fully connected layers a
RoI, ours one map of stride 16 with dilated deformable units; torchvision's small one is MobileNetV3
with FPN, ours MobileNetV2. So their GFLOP are in the last column (2 for each multiplication of a
convolution or fully connected layer), and there is no goal: milliseconds for GFLOP say how well an
engine is used, milliseconds alone what a user waits for.

Compared: RoI maps of our network between engines (relative L2 difference below 1e-4), and of
torchvision's detections in an engine with those in PyTorch at least 97 % (boxes to 0.1 px).

The files of torchvision's networks are made by `whole_detectors.py` in the folder that the variable
SNIPER_BENCH_MODELS names.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench import compare as agreement
from bench.case import Arrays, Case, Job, PeerMissingError, Prepared, Side

FOLDER = "SNIPER_BENCH_MODELS"
# Job -> our network and torchvision's.
NETWORKS = {
    "ResNet-50": ("resnet_mx_50_e2e", "fasterrcnn_resnet50_fpn"),
    "MobileNet": ("mobilenetv2_e2e", "fasterrcnn_mobilenet_v3_large_fpn"),
}
SIZES = ((800, 608),)
MAP_TOLERANCE, BOX_PX, LEAST_SHARE = 1e-4, 0.1, 0.97
PIXEL_SPREAD = 120.0
COUNTED = ("Convolution", "FullyConnected", "_contrib_DeformableConvolution")


def models_folder() -> Path:
    """Where the files of torchvision's networks are."""
    return Path(os.environ.get(FOLDER) or Path(tempfile.gettempdir()) / "sniper-bench-models")


def picture(rng: np.random.Generator, width: int, height: int) -> Arrays:
    """(3, height, width) float32 minus a mean: a grid of random colours of 16 px."""
    coarse = rng.uniform(-PIXEL_SPREAD, PIXEL_SPREAD, (3, height // 16, width // 16))
    return {"image": coarse.repeat(16, axis=1).repeat(16, axis=2).astype(np.float32)}


def ours_in(engine: str) -> Callable[[Arrays, Mapping[str, Any], int], Prepared]:
    """Our network in an engine, "" for MXNet."""

    def setup(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
        import sniper  # noqa: F401 (prepares the process for MXNet)
        from bench.random_detectors import RECIPES, info, random_detector
        from sniper.inference.decode import decode_batch
        from sniper.inference.merge_levels import MergeSettings, keep_confident, merge_levels
        from sniper.loader.windows import TestBatch
        from sniper.models.assembly import inference_input_shapes

        image = arrays["image"]
        detector = random_detector(RECIPES[NETWORKS[params["network"]][0]], ())
        executor = executor_of(detector, engine)
        zero = np.zeros(1, np.int64)
        batch = TestBatch(image[None], info(image), zero, zero, np.zeros(1, bool))
        settings = MergeSettings()

        def run() -> Any:
            (found,) = decode_batch(executor.run(batch.data, batch.im_info), batch)
            merge_levels([[keep_confident(found, 0)]], [(-1, -1)], settings)
            return found

        def outputs(found: Any) -> Arrays:
            inputs = inference_input_shapes(detector.model.spec, 1, *image.shape[1:])
            return {
                "roi_map": np.array(found.roi_map),
                # The heads compute as many, whether or not a box is in each.
                "rois": np.array(detector.model.spec.proposal.post_nms_top_n),
                "gflop": np.array(gflop(inputs, detector.graph.symbol)),
            }

        return Prepared(run, outputs)

    return setup


def executor_of(detector: Any, engine: str) -> Any:
    """A random detector in an engine."""
    if not engine:
        import mxnet as mx

        from sniper.inference.mxnet_executor import MxnetExecutor

        return MxnetExecutor(detector.model, [mx.cpu()])
    from bench.onnx_engines import reason_of
    from sniper.errors import ConfigError, DataError
    from sniper.inference.onnx_engines import onnx_engine
    from sniper.inference.onnx_executor import OnnxExecutor
    from sniper.models.model import OnnxModel

    model = detector.model
    network = OnnxModel(model.spec, detector.program(), None, model.class_names)
    try:
        return OnnxExecutor(network, onnx_engine(engine))
    except (ConfigError, DataError) as error:
        raise PeerMissingError(f"{engine} does not run it: {reason_of(error)}") from None


def gflop(inputs: Mapping[str, tuple[int, ...]], symbol: Any) -> float:
    """2 for each multiplication of convolutions and fully connected layers, in 1e9.

    Args:
        inputs: shapes by name; those that the symbol does not have are passed over.
        symbol: the network.
    """
    import json

    nodes = json.loads(symbol.tojson())["nodes"]
    internals = symbol.get_internals()
    names = internals.list_arguments()
    used = {name: shape for name, shape in inputs.items() if name in names}
    arguments, outputs, _ = internals.infer_shape(**used)
    maps, weights = dict(zip(internals.list_outputs(), outputs)), dict(zip(names, arguments))
    total = 0.0
    for node in nodes:
        if node["op"] in COUNTED:
            sources = (nodes[source]["name"] for source, *_ in node["inputs"])
            weight = next(name for name in sources if name.endswith("_weight"))
            # Every number is a sum over what one row of the weights multiplies.
            sums = np.prod(maps[f"{node['name']}_output"], dtype=float)
            total += 2 * sums * np.prod(weights[weight][1:], dtype=float)
    return total / 1e9


def exported(params: Mapping[str, Any]) -> tuple[Path, dict[str, np.ndarray]]:
    """The ONNX file of a network of torchvision, and its example.

    Raises:
        PeerMissingError: it has not been made.
    """
    name = f"{NETWORKS[params['network']][1]}_{params['size']}"
    path = models_folder() / f"{name}.onnx"
    if not path.is_file():
        raise PeerMissingError(
            f"there is no {path.name} (whole_detectors.py --torch-python PATH makes it)"
        )
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as content:
        return path, dict(content)


def as_photo(image: np.ndarray) -> np.ndarray:
    """What torchvision's networks take: 0 to 1."""
    return (image / (2 * PIXEL_SPREAD) + 0.5).astype(np.float32)


def torchvision_side(layout: str) -> Callable[[Arrays, Mapping[str, Any], int], Prepared]:
    """torchvision in PyTorch."""

    def setup(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
        try:
            import torch

            from bench.peers.torchvision_detectors import detector, spread
        except ImportError as error:
            raise PeerMissingError(f"torchvision is not installed ({error})") from None
        _, example = exported(params)
        torch.set_num_threads(threads)
        width, height = (int(side) for side in params["size"].split("x"))
        model = detector(NETWORKS[params["network"]][1], width, height)
        spread(model, torch.from_numpy(example["image"]))
        if layout == "channels-last":
            model = model.to(memory_format=torch.channels_last)

        def detect(image: np.ndarray) -> dict[str, np.ndarray]:
            with torch.inference_mode():
                (found,) = model([torch.from_numpy(image)])
            return {key: value.numpy() for key, value in found.items()}

        return prepared(detect, as_photo(arrays["image"]), example)

    return setup


def torchvision_onnxruntime(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    try:
        import onnxruntime
    except ImportError as error:
        raise PeerMissingError(f"ONNX Runtime is not installed ({error})") from None
    path, example = exported(params)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def detect(image: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {"image": image})))

    return prepared(detect, as_photo(arrays["image"]), example)


def torchvision_openvino(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    from bench.peers import openvino as peer

    peer.opset()
    path, example = exported(params)
    infer = peer.compiled_file(path, threads)

    def detect(image: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(("boxes", "labels", "scores"), infer({"image": image})))

    return prepared(detect, as_photo(arrays["image"]), example)


def prepared(
    detect: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    image: np.ndarray,
    example: Mapping[str, np.ndarray],
) -> Prepared:
    """A side of torchvision, which finds in its example what PyTorch has found there."""

    def outputs(_: Any) -> Arrays:
        found = detect(example["image"])
        same = agreement.common_rows(labelled(found), labelled(example), BOX_PX)
        shares = [rows.mean() if len(rows) else 0.0 for rows in same]
        return {
            "equal": np.array(min(shares)),
            "boxes": np.array(len(example["boxes"])),
            "rois": example["rois"],
            "gflop": example["gflop"],
        }

    return Prepared(lambda: detect(image), outputs)


def labelled(found: Mapping[str, np.ndarray]) -> np.ndarray:
    """(n, 5): boxes, and classes so far apart that no two of them are close."""
    return np.column_stack([found["boxes"], 1000 * found["labels"]]).astype(np.float32)


def compare(ours: Arrays, peer: Arrays, job: Job, name: str) -> str:
    agreement.require(
        int(ours["rois"]) == int(peer["rois"]),
        f"{ours['rois']} RoIs here, {peer['rois']} there",
        "equal numbers",
    )
    if "roi_map" in peer:
        difference = np.linalg.norm(ours["roi_map"] - peer["roi_map"])
        difference /= np.linalg.norm(ours["roi_map"])
        sentence = f"RoI maps to {difference:.0e}; {float(ours['gflop']):.0f} GFLOP on both sides"
        return agreement.require(difference <= MAP_TOLERANCE, sentence, f"{MAP_TOLERANCE:.0e}")
    share, boxes = float(peer["equal"]), int(peer["boxes"])
    sentence = (
        f"{float(ours['gflop']):.0f} GFLOP here, {float(peer['gflop']):.0f} there; {share:.0%} of "
        f"its {boxes} boxes as in PyTorch"
    )
    return agreement.require(
        boxes > 0 and share >= LEAST_SHARE, sentence, f"at least {LEAST_SHARE:.0%}"
    )


CASE = Case(
    name="whole_detectors",
    summary="an image through ResNet-50 and MobileNet detectors, 300 RoIs: ours and torchvision's",
    jobs=[
        Job(
            f"{network}, {width}x{height}",
            lambda rng, width=width, height=height: picture(rng, width, height),
            {"network": network, "size": f"{width}x{height}"},
        )
        for network in NETWORKS
        for width, height in SIZES
    ],
    sides={
        "ours": Side(ours_in("")),
        "ours-onnxruntime": Side(ours_in("onnxruntime")),
        "ours-openvino": Side(ours_in("openvino")),
        "torchvision": Side(torchvision_side("default"), foreign=True),
        "torchvision-channels-last": Side(torchvision_side("channels-last"), foreign=True),
        "torchvision-onnxruntime": Side(torchvision_onnxruntime, foreign=True),
        "torchvision-openvino": Side(torchvision_openvino, foreign=True),
    },
    compare=compare,
)
