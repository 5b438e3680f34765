"""Runs the CUDA launchers from NumPy arrays: on the host emulation, or on a real GPU; and the CPU
kernels behind the same signatures.

Test modules get a backend through the `cuda` fixture:

    rois, scores = cuda.run(
        "multi_proposal", params, cls_prob, bbox_pred, im_info,
        cuda.out((600, 5)), cuda.out((600,)), hosts={"grid.base": anchors},
    )

Every run is repeated with other scratch contents (and, emulated, other thread orders); the results
must have the same bits. Inputs must be left alone, and nothing may be written beside a buffer.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np

from tests.native.cuda_devices import EmulatedDevice, GpuDevice, HostDevice, find_gpu  # noqa: F401
from tests.native.cuda_sources import LaunchError


class Out(NamedTuple):
    """An output that the launcher writes."""

    shape: tuple[int, ...]
    dtype: type


class Backend:
    """Runs launchers on one device."""

    def __init__(self, device):
        self.device, self.name = device, device.name

    @staticmethod
    def out(shape, dtype=np.float32):
        return Out(tuple(shape) if isinstance(shape, (tuple, list)) else (shape,), dtype)

    def function(self, name):
        try:
            function = getattr(self.device.library, name)
        except AttributeError:
            raise LaunchError(
                f"The {self.name} CUDA library has no {name}.\n{self.device.build_errors}"
            ) from None
        function.restype = ctypes.c_int
        return function

    def run(self, op, params, *arguments, hosts=None, launcher="forward", workspace="workspace"):
        """Calls sniper_<op>_<launcher> in every variant and returns the outputs.

        Args:
            op: name of the operator in the library.
            params: ctypes.Structure like the C++ struct.
            *arguments: between params and workspace: an array (an input), `out(shape, dtype)`, or
                None (a null pointer).
            hosts: arrays that fields of `params` point to, by dotted field name.
            launcher: "forward" or "backward".
            workspace: the function sniper_<op>_<workspace> says how much scratch the call needs.

        Returns:
            The outputs in order; a single one without a tuple.

        Raises:
            LaunchError: the launcher failed or broke a rule of this module.
        """
        first = None
        for variant in self.device.variants:
            outputs = self.run_once(
                op, params, arguments, hosts or {}, launcher, workspace, variant
            )
            first = outputs if first is None else first
            for index, (wanted, got) in enumerate(zip(first, outputs)):
                if wanted.tobytes() != got.tobytes():
                    raise LaunchError(
                        f"{op}: output {index} differs between {self.device.variants[0]} and "
                        f"{variant}: a barrier is missing, or scratch is read before it is written"
                    )
        return first[0] if len(first) == 1 else tuple(first)

    def prepared(self):
        """A stand-in whose `run` only prepares: it returns a Call."""
        return Preparing(self)

    def workspace_bytes(self, op, params, hosts=None, workspace="workspace"):
        """What sniper_<op>_<workspace> asks for."""
        pointers = [self.device.allocate_host(bytes_of(array)) for array in (hosts or {}).values()]
        size = ctypes.c_size_t()
        patched = with_pointers(params, dict(zip(hosts or {}, pointers)))
        status = self.function(f"sniper_{op}_{workspace}")(
            ctypes.byref(patched), ctypes.byref(size)
        )
        for pointer in pointers:
            self.device.free(pointer)
        self.check(op, status, self.device.finish())
        return size.value

    def run_once(self, op, params, arguments, hosts, launcher, workspace, variant):
        call = Call(
            self, op, params, *arguments, hosts=hosts, launcher=launcher, workspace=workspace,
            variant=variant,
        )  # fmt: skip
        self.device.wait()
        call.launch(self.device.stream)
        self.check(op, 0, self.device.finish())
        outputs = call.outputs()
        call.release()
        return outputs

    @staticmethod
    def check(op, status, message):
        if status != 0 or message:
            raise LaunchError(f"{op}: status {status}, {message or 'no message'}")


class Call:
    """One call of a launcher and its memory, which may be launched many times.

    The arguments are those of Backend.run. Between the creation and a launch stands a
    `device.wait()`, between a launch and the outputs the end of its stream.
    """

    def __init__(
        self, backend, op, params, *arguments, hosts=None, launcher="forward",
        workspace="workspace", variant=None,
    ):  # fmt: skip
        device, hosts = backend.device, hosts or {}
        variant = variant or device.variants[0]
        size = backend.workspace_bytes(op, params, hosts, workspace)
        device.prepare(variant)
        pointers = {name: device.allocate_host(bytes_of(array)) for name, array in hosts.items()}
        self.backend, self.op, self.arguments = backend, op, arguments
        self.struct = device.allocate_host(bytes(with_pointers(params, pointers)))
        self.scratch = device.allocate(size, 256, variant.poison)
        self.addresses = [self.upload(argument, variant) for argument in arguments]
        self.function = backend.function(f"sniper_{op}_{launcher}")
        self.hosts = pointers.values()

    def upload(self, argument, variant):
        device = self.backend.device
        if argument is None:
            return None
        if isinstance(argument, Out):
            size = int(np.prod(argument.shape, dtype=np.int64)) * np.dtype(argument.dtype).itemsize
            return device.allocate(size, 16, variant.poison)
        array = np.ascontiguousarray(argument)
        address = device.allocate(array.nbytes, 16, variant.poison)
        device.copy_in(address, array)
        return address

    def launch(self, stream):
        values = [self.struct, *self.addresses, self.scratch, stream]
        status = self.function(*(ctypes.c_void_p(value) for value in values))
        message = self.backend.device.finish() if status != 0 else ""
        self.backend.check(self.op, status, message)

    def outputs(self):
        """Copies of the outputs, in order."""
        found = []
        for argument, address in zip(self.arguments, self.addresses):
            if isinstance(argument, Out):
                found.append(np.empty(argument.shape, argument.dtype))
                self.backend.device.copy_out(address, found[-1])
        return found

    def release(self):
        """Frees the memory.

        Raises:
            LaunchError: an input was written to, or something beside a buffer.
        """
        device = self.backend.device
        for argument, address in zip(self.arguments, self.addresses):
            if argument is None or isinstance(argument, Out):
                continue
            wanted = np.ascontiguousarray(argument)
            after = np.empty_like(wanted)
            device.copy_out(address, after)
            if after.tobytes() != wanted.tobytes():
                raise LaunchError(f"{self.op}: an input was written to")
        owned = [*self.hosts, self.struct, self.scratch]
        owned += [address for address in self.addresses if address is not None]
        intact = [device.free(address) for address in owned]
        if not all(intact):
            raise LaunchError(f"{self.op}: something was written beside a buffer: {intact}")


class Preparing:
    """What Backend.prepared returns."""

    def __init__(self, backend):
        self.backend, self.out = backend, backend.out

    def run(self, *arguments, **settings):
        return Call(self.backend, *arguments, **settings)


def bytes_of(array):
    return np.ascontiguousarray(array).tobytes()


def with_pointers(params, pointers):
    """A copy of `params` whose dotted fields hold the given addresses."""
    copy = type(params).from_buffer_copy(params)
    for name, address in pointers.items():
        owner = copy
        *path, field = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, field, address)
    return copy
