"""Runs the CUDA launchers from NumPy arrays: on the host emulation, or on a real GPU.

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
from cuda_sources import NATIVE, LaunchError

ORDERS = {"forward": 0, "reverse": 1, "shuffled": 2}


class Out(NamedTuple):
    """An output that the launcher writes."""

    shape: tuple[int, ...]
    dtype: type


class Variant(NamedTuple):
    """One way to run: what the scratch memory holds, and the order of the threads."""

    poison: int
    order: str
    seed: int = 0


# ---- The two devices -----------------------------------------------------------------------------


class EmulatedDevice:
    """Guarded memory of the emulation."""

    name = "emulated"
    variants = (
        Variant(0xCD, "forward"),
        Variant(0xFF, "reverse"),
        Variant(0x00, "shuffled", 1),
        Variant(0xCD, "shuffled", 2),
    )
    stream = None

    def __init__(self, path, build_errors=""):
        self.build_errors = build_errors
        self.library = ctypes.CDLL(str(path))
        self.library.emulation_malloc.restype = ctypes.c_void_p
        self.library.emulation_malloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t] + [
            ctypes.c_int
        ] * 2
        self.library.emulation_free.argtypes = [ctypes.c_void_p]
        self.library.emulation_copy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        self.library.emulation_message.argtypes = [ctypes.c_char_p, ctypes.c_size_t]

    def prepare(self, variant):
        self.message()
        self.library.emulation_set_order(ORDERS[variant.order], variant.seed)

    def allocate(self, size, alignment, poison):
        return self.library.emulation_malloc(size, alignment, poison, 0)

    def allocate_host(self, data):
        """Host memory that a kernel cannot touch."""
        address = self.library.emulation_malloc(len(data), 16, 0, 1)
        ctypes.memmove(address, data, len(data))
        return address

    def free(self, address):
        """False when somebody wrote beside the buffer."""
        return self.library.emulation_free(address) == 0

    def copy_in(self, address, array):
        self.library.emulation_copy(address, array.ctypes.data, array.nbytes)

    def copy_out(self, address, array):
        self.library.emulation_copy(array.ctypes.data, address, array.nbytes)

    def wait(self):
        pass

    def finish(self):
        """Waits; returns what went wrong."""
        return self.message()

    def message(self):
        text = ctypes.create_string_buffer(1024)
        self.library.emulation_message(text, len(text))
        return text.value.decode()


class GpuDevice:
    """Device memory through the CUDA driver, with a guard zone on both sides of every buffer."""

    name = "gpu"
    variants = (Variant(0xCD, "device"), Variant(0xFF, "device"))
    build_errors = ""
    guard = 4096
    guard_value = 0x5A

    def __init__(self, path, driver):
        self.library, self.driver = ctypes.CDLL(str(path)), driver
        context, stream = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), ctypes.c_int(0))
        self.call("cuCtxSetCurrent", context)
        self.call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(1))  # non-blocking
        self.stream = stream.value
        self.blocks, self.hosts = {}, {}

    def call(self, name, *arguments):
        status = getattr(self.driver, name)(*arguments)
        if status != 0:
            raise LaunchError(f"{name} returned CUDA error {status}")

    def prepare(self, variant):
        pass

    def allocate(self, size, alignment, poison):
        block = ctypes.c_uint64()
        total = size + 2 * self.guard
        self.call("cuMemAlloc_v2", ctypes.byref(block), ctypes.c_size_t(total))
        self.fill(block.value, self.guard_value, total)
        address = block.value + self.guard
        if size:
            self.fill(address, poison, size)
        self.blocks[address] = (block.value, size)
        return address

    def fill(self, address, value, size):
        self.call(
            "cuMemsetD8_v2", ctypes.c_uint64(address), ctypes.c_ubyte(value), ctypes.c_size_t(size)
        )

    def allocate_host(self, data):
        buffer = ctypes.create_string_buffer(bytes(data), len(data))
        address = ctypes.addressof(buffer)
        self.hosts[address] = buffer
        return address

    def free(self, address):
        if address in self.hosts:
            del self.hosts[address]
            return True
        start, size = self.blocks.pop(address)
        zones = np.empty((2, self.guard), np.uint8)
        self.copy_out(start, zones[0])
        self.copy_out(address + size, zones[1])
        self.call("cuMemFree_v2", ctypes.c_uint64(start))
        return bool((zones == self.guard_value).all())

    def copy_in(self, address, array):
        if array.nbytes:
            self.call(
                "cuMemcpyHtoD_v2", ctypes.c_uint64(address), ctypes.c_void_p(array.ctypes.data),
                ctypes.c_size_t(array.nbytes),
            )  # fmt: skip

    def copy_out(self, address, array):
        if array.nbytes:
            self.call(
                "cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(address),
                ctypes.c_size_t(array.nbytes),
            )  # fmt: skip

    def wait(self):
        """Until everything is in place; the stream does not wait for the fills and copies."""
        self.call("cuCtxSynchronize")

    def finish(self):
        self.call("cuStreamSynchronize", ctypes.c_void_p(self.stream))
        return ""


def find_gpu():
    """Library and driver of the GPU backend, and the reason when there is none."""
    path = NATIVE / "libsniper_cuda.so"
    if not path.is_file():
        return None, "libsniper_cuda.so is not built (bash scripts/compile.sh --cuda)"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None, "no NVIDIA driver on this machine (libcuda.so.1)"
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or not count:
        return None, "the NVIDIA driver finds no GPU"
    return (path, driver), ""


# ---- Running a launcher --------------------------------------------------------------------------


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
        device = self.device
        size = self.workspace_bytes(op, params, hosts, workspace)
        device.prepare(variant)
        pointers = {name: device.allocate_host(bytes_of(array)) for name, array in hosts.items()}
        struct = device.allocate_host(bytes(with_pointers(params, pointers)))
        scratch = device.allocate(size, 256, variant.poison)
        addresses = [self.upload(argument, variant) for argument in arguments]
        function = self.function(f"sniper_{op}_{launcher}")
        values = [struct, *addresses, scratch, device.stream]
        device.wait()
        status = function(*(ctypes.c_void_p(value) for value in values))
        self.check(op, status, device.finish())
        outputs = []
        for argument, address in zip(arguments, addresses):
            if isinstance(argument, Out):
                outputs.append(np.empty(argument.shape, argument.dtype))
                device.copy_out(address, outputs[-1])
            elif argument is not None:
                after = np.empty_like(np.ascontiguousarray(argument))
                device.copy_out(address, after)
                if after.tobytes() != np.ascontiguousarray(argument).tobytes():
                    raise LaunchError(f"{op}: an input was written to")
        owned = [*pointers.values(), struct, scratch, *(a for a in addresses if a is not None)]
        intact = [device.free(address) for address in owned]
        if not all(intact):
            raise LaunchError(f"{op}: something was written beside a buffer: {intact}")
        return outputs

    def upload(self, argument, variant):
        if argument is None:
            return None
        if isinstance(argument, Out):
            size = int(np.prod(argument.shape, dtype=np.int64)) * np.dtype(argument.dtype).itemsize
            return self.device.allocate(size, 16, variant.poison)
        array = np.ascontiguousarray(argument)
        address = self.device.allocate(array.nbytes, 16, variant.poison)
        self.device.copy_in(address, array)
        return address

    @staticmethod
    def check(op, status, message):
        if status != 0 or message:
            raise LaunchError(f"{op}: status {status}, {message or 'no message'}")


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
