"""The update on the CPU, by our kernels on MXNet's memory instead of many small operators."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence

import mxnet as mx
import numpy as np
from mxnet.base import _LIB, check_call

from sniper.native import _native
from sniper.process import omp_threads, usable_cores


def is_host(arrays: Iterable[mx.nd.NDArray]) -> bool:
    """Whether all arrays are float32 and in the memory of the CPU."""
    return all(array.context.device_type == "cpu" and array.dtype == np.float32 for array in arrays)


class HostArrays:
    """NumPy vectors on the memory of float32 arrays of the CPU.

    MXNet must have nothing to do with the arrays while the vectors are used: see `wait`.
    """

    def __init__(self) -> None:
        self._views: dict[tuple[int, int], np.ndarray] = {}

    def of(self, arrays: Iterable[mx.nd.NDArray]) -> list[np.ndarray]:
        """A vector for each array."""
        return [self._view(array) for array in arrays]

    def _view(self, array: mx.nd.NDArray) -> np.ndarray:
        # Asked for every time: oneDNN may have left an array in a layout of its own, which this
        # call undoes, and may have moved it.
        address = ctypes.c_void_p()
        check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(address)))
        place = (int(address.value or 0), int(array.size))
        if place not in self._views:
            memory = (ctypes.c_float * place[1]).from_address(place[0])
            self._views[place] = np.ctypeslib.as_array(memory)
        return self._views[place]


def wait() -> None:
    """Returns when MXNet has done all it was asked for."""
    mx.nd.waitall()


class HostReduction:
    """Sums the gradients of CPU devices, and looks for infinities and NaN on the way.

    Args:
        devices: number of devices that take part in an update.
    """

    def __init__(self, devices: int) -> None:
        self._arrays = HostArrays()
        self._threads = update_threads(devices)

    def reduce(self, gradients: Sequence[Mapping[str, mx.nd.NDArray]], divisor: float) -> bool:
        """Replaces the first device's gradients by (their sum over the devices) / divisor.

        Returns:
            Whether all values are finite.
        """
        wait()
        first, *others = [self._arrays.of(one.values()) for one in gradients]
        return _native.reduce_gradients(first, others, divisor, self._threads)


def update_threads(devices: int) -> int:
    """Threads for an update, while the devices wait for it."""
    return max(1, min(devices * omp_threads(), usable_cores()))
