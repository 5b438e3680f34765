"""Where launchers run: memory of the host emulation, of a real GPU, or of the CPU kernels."""

from __future__ import annotations

import ctypes
import os
from typing import NamedTuple

import numpy as np

from tests.native.cuda_sources import NATIVE, LaunchError

ORDERS = {"forward": 0, "reverse": 1, "shuffled": 2}


class Variant(NamedTuple):
    """One way to run: what the scratch memory holds, and the order of the threads."""

    poison: int
    order: str
    seed: int = 0


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


class HostDevice:
    """Plain memory for the CPU kernels (cpu_reference.cc)."""

    name = "cpu"
    variants = (Variant(0xCD, "host"),)
    stream = None
    build_errors = ""

    def __init__(self, path):
        self.library, self.blocks = ctypes.CDLL(str(path)), {}

    def prepare(self, variant):
        pass

    def allocate(self, size, alignment, poison):
        block = np.full(size + alignment, poison, np.uint8)
        address = (block.ctypes.data + alignment - 1) // alignment * alignment
        self.blocks[address] = block
        return address

    def allocate_host(self, data):
        address = self.allocate(len(data), 16, 0)
        ctypes.memmove(address, data, len(data))
        return address

    def free(self, address):
        del self.blocks[address]
        return True

    def copy_in(self, address, array):
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def copy_out(self, address, array):
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def wait(self):
        pass

    def finish(self):
        return ""


class GpuDevice:
    """Device memory through the CUDA driver, with a guard zone on both sides of every buffer."""

    name = "gpu"
    variants = (Variant(0xCD, "device"), Variant(0xFF, "device"))
    build_errors = ""
    # 0 lets compute-sanitizer see what a kernel reads beside a buffer.
    guard = int(os.environ.get("SNIPER_TEST_GUARD_BYTES", "4096"))
    guard_value = 0x5A

    def __init__(self, path, driver):
        self.library, self.driver = ctypes.CDLL(str(path)), driver
        self.context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), ctypes.c_int(0))
        self.enter()
        self.stream = self.new_stream()
        self.blocks, self.hosts = {}, {}

    def enter(self):
        """Makes the GPU the current one of the calling thread."""
        self.call("cuCtxSetCurrent", self.context)

    def new_stream(self):
        stream = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(1))  # non-blocking
        return stream.value

    def model(self):
        """Its name, such as "NVIDIA A100-SXM4-40GB"."""
        text = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", text, ctypes.c_int(len(text)), ctypes.c_int(0))
        return text.value.decode()

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
