"""Whole detectors with random weights, in fp32 and INT8, and the pictures that they see.

What `int8.py`, `onnx_engines.py`, `onnx_agreement.py` and the case `whole_detectors` measure: the
networks of two recipes, whose weights are the same in every process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Networks and the recipes that they come from.
RECIPES = {"resnet_mx_50_e2e": "sniper_res50_e2e", "mobilenetv2_e2e": "sniper_mobilenetv2_e2e"}
# Scale of the last batch norm of residual branches, so that activations of random weights do not
# grow from unit to unit as those of trained ones do not.
BRANCH_SCALE = 0.3
BRANCHES = ("_bn3_gamma", "linear-batchnorm_gamma")
CALIBRATION_IMAGES = 4


@dataclass(frozen=True)
class RandomDetector:
    """A network of a recipe.

    Attributes:
        model: `Model` in fp32; its symbol puts out the RoI map as well.
        graph: the same as `WeightedGraph`, without parameters that the symbol does not have.
        inputs: what it is calibrated with, all inputs by name.
    """

    model: Any
    graph: Any
    inputs: list[dict[str, Any]]

    def int8(self) -> Any:
        """The `Model` in INT8, by MXNet."""
        from dataclasses import replace

        from sniper.models.quantize import quantize_network

        int8 = quantize_network(self.graph, self.inputs)
        return replace(self.model, arg=int8.arg, aux=int8.aux, symbol=int8.symbol)

    def program(self) -> Any:
        """The ONNX graphs in fp32."""
        from sniper.models.archive import ModelArchive
        from sniper.runs.export import as_onnx

        return as_onnx(self.model.spec, ModelArchive(self.graph, None, {})).detector

    def int8_program(self) -> Any:
        """The ONNX graphs in INT8, by ONNX Runtime."""
        from sniper.runs.int8 import QuantizeSettings, quantized_program

        settings = QuantizeSettings(len(self.inputs))
        return quantized_program(self.program(), lambda: iter(self.inputs), settings)


def random_detector(recipe: str, data: Any, keys: tuple[str, ...] = ()) -> RandomDetector:
    """A recipe's detector with random weights that keep maps in size.

    Args:
        recipe: a name of `RECIPES`' values, or another one.
        data: (n, 3, H, W) float32, what INT8 is calibrated with.
        keys: names and values of the configuration to change, in turn.
    """
    from dataclasses import replace

    import numpy as np

    from sniper.config import load_config
    from sniper.models.archive import WeightedGraph
    from sniper.models.assembly import build_detector
    from sniper.runs.plan import test_plan
    from sniper.runs.speed import random_model

    model = random_model(test_plan(load_config(recipe, list(keys)), devices="cpu").detector)
    for name, value in model.arg.items():
        if name.endswith(BRANCHES):
            value[:] = BRANCH_SCALE
    symbol = build_detector(model.spec, train=False, roi_map=True)
    needed = set(symbol.list_arguments())
    arg = {name: value for name, value in model.arg.items() if name in needed}
    ids = np.zeros(1, np.float32)
    inputs = [
        {"data": image[None], "im_info": info(image), "im_ids": ids, "chip_ids": ids}
        for image in data
    ]
    return RandomDetector(
        replace(model, symbol=symbol), WeightedGraph(symbol, arg, model.aux), inputs
    )


def images(count: int, width: int, height: int) -> Any:
    """(count, 3, height, width) float32: smooth random patterns minus a mean."""
    import cv2
    import numpy as np

    generator = np.random.default_rng(0)
    small = generator.uniform(-120, 120, (count * 3, height // 8, width // 8)).astype(np.float32)
    planes = [cv2.resize(plane, (width, height)) for plane in small]
    return np.stack(planes).reshape(count, 3, height, width)


def info(image: Any) -> Any:
    """(1, 3) float32: height, width, factor."""
    import numpy as np

    return np.array([[*image.shape[1:], 1.0]], np.float32)


def relative_difference(one: Any, reference: Any) -> float:
    """L2 norm of the difference, as a share of the reference's."""
    import numpy as np

    return float(np.linalg.norm(one - reference) / np.linalg.norm(reference))
