"""From an fp32 test network to one that computes in INT8 on the CPU (oneDNN).

Convolutions and fully connected layers, the batch norms between them, sums, concatenation and
pooling get integers in and give integers out; weights are quantised by channel, maps by one range
each, which calibration images decide. Deformable convolutions become samples in fp32 and a 1x1
convolution of them in INT8. Proposals, softmax and our operators keep fp32, and so do the layers
that are named. How exact that is depends on the processor: see
`int8_support`.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace

import mxnet as mx
import numpy as np
from mxnet.contrib import quantization

from sniper.errors import ConfigError, DataError
from sniper.models.archive import WeightedGraph
from sniper.models.cpu_graph import deformable_layers, for_cpu, with_columns
from sniper.ops import load_library

BACKEND = "MKLDNN_QUANTIZE"
CALIBRATIONS = ("naive", "entropy")
WEIGHT, OUTPUT = "_weight", "_output"
# Integer levels of a map that has negative numbers, and of one that has none.
SIGNED_LEVELS, UNSIGNED_LEVELS = 255, 511
# Odd: one bin holds the zeros.
BINS = 2001
SMALLEST_RANGE = 1e-8
NAMES_SHOWN = 5

Ranges = dict[str, tuple[float, float]]
Inputs = Mapping[str, np.ndarray]


def quantize_network(
    network: WeightedGraph,
    inputs: Iterable[Inputs],
    *,
    calibration: str = "naive",
    fp32_layers: Sequence[str] = (),
) -> WeightedGraph:
    """The network in INT8, with the same inputs and outputs.

    Its parameters are those of the fp32 network, the weights of deformable convolutions in another
    shape (see `with_columns`): oneDNN packs them as integers when it first runs.

    Args:
        network: a test network in fp32, whose symbol has not been fused.
        inputs: what the network is calibrated with, all inputs by name; any sizes.
        calibration: "naive": ranges are the extremes seen; "entropy": ranges that lose the least
            information (Kullback-Leibler), clipping rare large values.
        fp32_layers: convolutions and fully connected layers that stay as they are.

    Raises:
        ConfigError: the calibration is not known, or a layer is not in the network.
        DataError: there are no inputs, or they give numbers that are not finite.
    """
    if calibration not in CALIBRATIONS:
        raise ConfigError(
            "there is no such calibration", got=calibration, expected=" or ".join(CALIBRATIONS)
        )
    load_library()
    # The whole convolution stays, and no node that could be left out.
    named = [layer for layer in fp32_layers if layer not in deformable_layers(network.symbol)]
    network = _with_columns(network, fp32_layers)
    fused = _guarded(network.symbol).get_backend_symbol(BACKEND)
    symbol, _, _, collector = quantization.quantize_graph(
        fused,
        network.arg,
        network.aux,
        ctx=mx.cpu(),
        excluded_sym_names=_fused_names(fused, named),
        quantize_mode="smart",
        quantize_granularity="channel-wise",
        calib_mode="naive",
        quantized_dtype="auto",
    )
    ranges = _collect(fused, network, inputs, collector.include_layer, calibration)
    symbol, arg, aux = quantization.calib_graph(
        symbol,
        network.arg,
        network.aux,
        SimpleNamespace(min_max_dict=ranges),
        calib_mode="customize",
        quantized_dtype="auto",
        logger=None,
    )
    symbol = symbol.get_backend_symbol(BACKEND)
    return WeightedGraph(_with_outputs(symbol, network.symbol.list_outputs()), arg, aux)


def _with_columns(network: WeightedGraph, fp32_layers: Sequence[str]) -> WeightedGraph:
    symbol, weights = with_columns(network.symbol, fp32_layers)
    arg = dict(network.arg)
    for name in weights.values():
        arg[name] = arg[name].reshape((0, -1, 1, 1))
    return WeightedGraph(symbol, arg, network.aux)


def fusable_layers(symbol: mx.sym.Symbol) -> list[str]:
    """Layers with weights that oneDNN runs, in the order of the graph: what can be quantised."""
    symbol, _ = with_columns(symbol, ())
    return list(_layers_of_nodes(symbol.get_backend_symbol(BACKEND)))


def _fused_names(fused: mx.sym.Symbol, layers: Sequence[str]) -> list[str]:
    """Nodes of the fused graph that hold the given layers."""
    nodes = _layers_of_nodes(fused)
    unknown = [layer for layer in layers if layer not in nodes]
    if unknown:
        raise ConfigError(
            "the network has no such layers to leave out",
            got=", ".join(unknown),
            expected=", ".join(nodes),
        )
    return [nodes[layer] for layer in layers]


def _layers_of_nodes(fused: mx.sym.Symbol) -> dict[str, str]:
    nodes = json.loads(fused.tojson())["nodes"]
    return {
        nodes[source]["name"].removesuffix(WEIGHT): node["name"]
        for node in nodes
        if node["op"].startswith("_sg_mkldnn_")
        for source, *_ in node["inputs"]
        if nodes[source]["name"].endswith(WEIGHT)
    }


def _collect(
    fused: mx.sym.Symbol,
    network: WeightedGraph,
    inputs: Iterable[Inputs],
    names: Iterable[str],
    calibration: str,
) -> Ranges:
    """Ranges of the maps `names`."""
    seen = {name: _Seen(calibration == "entropy") for name in names}

    def note(name: bytes | str, handle: int) -> None:
        text = name.decode() if isinstance(name, bytes) else name
        if text in seen:
            seen[text].add(_array(handle))

    _run(fused, network, inputs, note)
    broken = sorted(name for name, values in seen.items() if not values.is_finite)
    if broken:
        raise DataError(
            "calibration needs at least one image, and a network that gives finite numbers",
            got=", ".join(broken[:NAMES_SHOWN]),
        )
    return {name: values.range() for name, values in seen.items()}


class _Seen:
    """What the values of a map were like."""

    def __init__(self, with_histogram: bool) -> None:
        self._low, self._high = np.inf, -np.inf
        self._with_histogram = with_histogram
        self._histogram: tuple | None = None

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite([self._low, self._high]).all())

    def add(self, values: np.ndarray) -> None:
        low, high = float(values.min()), float(values.max())
        # In this order a NaN stays.
        self._low, self._high = min(low, self._low), max(high, self._high)
        if not self._with_histogram or not self.is_finite:
            return
        limit = max(abs(low), abs(high), SMALLEST_RANGE)
        if self._histogram is None:
            counts, edges = np.histogram(values, BINS, (-limit, limit))
            self._histogram = (counts, edges, low, high, limit)
        else:
            old = self._histogram
            self._histogram = quantization.combine_histogram(old, values, low, high, limit)

    def range(self) -> tuple[float, float]:
        """Extremes, or with a histogram the range whose integers lose the least information."""
        if self._histogram is None:
            return self._low, self._high
        counts, edges, *_ = self._histogram
        unsigned = self._low >= 0
        threshold, _ = mx.nd.contrib.calibrate_entropy(
            hist=mx.nd.array(counts),
            hist_edges=mx.nd.array(edges),
            num_quantized_bins=UNSIGNED_LEVELS if unsigned else SIGNED_LEVELS,
        )
        limit = float(threshold.asscalar())
        return (0.0 if unsigned else -limit), limit


def _run(
    fused: mx.sym.Symbol,
    network: WeightedGraph,
    inputs: Iterable[Inputs],
    note: Callable[[bytes | str, int], None],
) -> None:
    """Feeds the inputs and shows every map to `note`."""
    executor = None
    for feed in inputs:
        shapes = {name: array.shape for name, array in feed.items()}
        if executor is None:
            executor = for_cpu(fused).simple_bind(mx.cpu(), grad_req="null", **shapes)
            executor.copy_params_from(network.arg, network.aux)
        else:
            executor = executor.reshape(allow_up_sizing=True, **shapes)
        executor.set_monitor_callback(note, monitor_all=True)
        for output in executor.forward(is_train=False, **feed):
            output.wait_to_read()


def _array(handle: int) -> np.ndarray:
    """Values of a tensor that MXNet hands to a monitor; once, for that frees the handle."""
    pointer = ctypes.cast(handle, mx.base.NDArrayHandle)
    return mx.nd.NDArray(pointer, writable=False).asnumpy()


def _guarded(symbol: mx.sym.Symbol) -> mx.sym.Symbol:
    """The symbol with a node of its own for every output.

    MXNet 1.9.1 converts a quantised map that is an output as well back to fp32 twice.
    """
    outputs = [symbol[index] for index in range(len(symbol.list_outputs()))]
    return mx.sym.Group(
        [
            # Variables have no children.
            output
            if output.get_children() is None
            else mx.sym.BlockGrad(output, name=f"{name.removesuffix(OUTPUT)}_kept")
            for output, name in zip(outputs, symbol.list_outputs())
        ]
    )


def _with_outputs(symbol: mx.sym.Symbol, names: Sequence[str]) -> mx.sym.Symbol:
    """The symbol with these output names: quantisation drops the nodes that only name others."""
    have = symbol.list_outputs()
    return mx.sym.Group(
        [
            symbol[index] if old == new else _renamed(symbol[index], new)
            for index, (old, new) in enumerate(zip(have, names))
        ]
    )


def _renamed(output: mx.sym.Symbol, name: str) -> mx.sym.Symbol:
    return mx.sym.identity(output, name=name.removesuffix(OUTPUT))
