"""A graph with its weights on one device, for inputs of changing shapes."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping

import mxnet as mx
import numpy as np

from sniper.models.fit import Model, params_of

# Binding a shape anew costs some milliseconds and a slower first pass.
SHAPES_KEPT = 16

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class BoundGraph:
    """Runs a graph on one device; the executors of the shapes used last are kept.

    All executors share their weights, and their memory with that of the largest shape: results have
    to be copied out before the next call. Not thread-safe.

    Args:
        symbol: the graph.
        model: where its weights come from.
        device: where it runs.
    """

    def __init__(self, symbol: mx.sym.Symbol, model: Model, device: mx.Context) -> None:
        self._symbol, self._model, self._device = symbol, model, device
        self._largest: mx.executor.Executor | None = None
        self._most_values = 0
        self._executors: OrderedDict[Shapes, mx.executor.Executor] = OrderedDict()

    def start(self, inputs: Mapping[str, np.ndarray]) -> list[mx.nd.NDArray]:
        """Begins to compute the outputs; they hold until the next call.

        Raises:
            DataError: the weights do not fit the graph.
        """
        shapes = tuple((name, array.shape) for name, array in inputs.items())
        return self._executor(shapes).forward(is_train=False, **inputs)

    def _executor(self, shapes: Shapes) -> mx.executor.Executor:
        executor = self._executors.pop(shapes, None) or self._bind(shapes)
        self._executors[shapes] = executor
        if len(self._executors) > SHAPES_KEPT:
            self._executors.popitem(last=False)
        return executor

    def _bind(self, shapes: Shapes) -> mx.executor.Executor:
        values = sum(math.prod(shape) for _, shape in shapes)
        if self._largest is None:
            executor = self._symbol.simple_bind(self._device, grad_req="null", **dict(shapes))
            executor.copy_params_from(*params_of(self._symbol, dict(shapes), self._model))
        else:
            executor = self._largest.reshape(allow_up_sizing=True, **dict(shapes))
        if values > self._most_values:
            # What shares the smaller memory would keep it alive.
            self._executors.clear()
            self._largest, self._most_values = executor, values
        return executor
