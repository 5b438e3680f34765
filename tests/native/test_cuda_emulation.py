"""The host emulation of CUDA finds the mistakes that it is there for."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from tests.native import cuda_harness, cuda_sources

SOURCE = r"""
#include "common/cuda.cuh"
#include "common/nms.cuh"

namespace {
struct Params { int mode, size; const int* host; };

// Sum of a block, with a barrier too few in mode 1.
__global__ void sum_block(int mode, const int* in, int* out) {
  __shared__ int part[64];
  part[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  for (unsigned half = 32; half > 0; half /= 2) {
    if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    if (mode != 1) __syncthreads();
  }
  if (threadIdx.x == 0) out[0] = part[0];
}
__global__ void some_wait(int* out) {
  if (threadIdx.x < 5) __syncthreads(); else __syncwarp();
  out[0] = 1;
}
__global__ void two_barriers(int* out) {
  if (threadIdx.x < 32) __syncthreads();
  else
    __syncthreads();
  out[0] = 1;
}
// The first warp reads what the last one writes.
__global__ void warps_race(int* out) {
  __shared__ int written[2];
  __syncwarp();
  if (threadIdx.x == 32) written[0] = 3;
  __syncwarp();
  if (threadIdx.x == 0) out[0] = written[0];
}
__global__ void foreign_mask(int* out) { out[0] = (int)__ballot_sync(0x0000FFFFu, 1); }
__global__ void write_at(int* out, int index) { out[index] = 1; }
__global__ void read_at(const int* in, int index, int* out) { out[0] = in[index]; }
__global__ void read_shared(int* out) {
  __shared__ int half_written[2];
  if (threadIdx.x == 0) half_written[0] = 5;
  out[0] = half_written[blockDim.x];
}
__global__ void dynamic_shared(int* out, int index) {
  SNIPER_DYNAMIC_SHARED(int, numbers);
  numbers[index] = 7;
  out[0] = numbers[0];
}
__global__ void warp_things(unsigned* out) {
  const unsigned lane = threadIdx.x;
  out[lane] = __ballot_sync(sniper::kFullWarp, lane % 3 == 0);
  out[32 + lane] = __shfl_sync(sniper::kFullWarp, 100 + lane, 5);
  out[64 + lane] = __shfl_down_sync(sniper::kFullWarp, lane, 8);
  out[96 + lane] = __popc(lane) + 100 * __ffs((int)lane) + 10000 * __clz((int)lane);
  atomicAdd(&out[128], lane);
  atomicMax(&out[129], lane);
}
__global__ void ranks(const int* in, int* out) {
  __shared__ int counts[2];
  int total;
  const int rank = sniper::block_rank(in[threadIdx.x] != 0, counts, &total);
  out[threadIdx.x] = 1000 * total + rank;
}
}  // namespace

SNIPER_CUDA_API int sniper_try_workspace(const Params*, std::size_t* bytes) {
  sniper::Workspace workspace(nullptr);
  workspace.take<int>(65);
  workspace.take<char>(1);
  *bytes = workspace.bytes();
  return cudaSuccess;
}

SNIPER_CUDA_API int sniper_try_forward(const Params* params, const int* in, int* out, void* memory,
                                       void* stream) {
  sniper::Workspace workspace(memory);
  int* scratch = workspace.take<int>(65);
  cudaMemsetAsync(out, 0, 4 * params->size, static_cast<cudaStream_t>(stream));
  switch (params->mode) {
    case 0: case 1: SNIPER_LAUNCH(sum_block, 1, 64, 0, stream, params->mode, in, out); break;
    case 2: SNIPER_LAUNCH(some_wait, 1, 64, 0, stream, out); break;
    case 3: SNIPER_LAUNCH(two_barriers, 1, 64, 0, stream, out); break;
    case 4: SNIPER_LAUNCH(foreign_mask, 1, 32, 0, stream, out); break;
    case 5: SNIPER_LAUNCH(write_at, 1, 1, 0, stream, out, 1024); break;
    case 6: SNIPER_LAUNCH(write_at, 1, 1, 0, stream, out, -1); break;
    case 7: SNIPER_LAUNCH(read_at, 1, 1, 0, stream, in, 64, out); break;
    case 8: SNIPER_LAUNCH(read_at, 1, 1, 0, stream, params->host, 0, out); break;
    case 9: return out[0];
    case 10: SNIPER_LAUNCH(read_at, 1, 1, 0, stream, scratch, 0, out); break;
    case 11: SNIPER_LAUNCH(write_at, 1, 1, 0, stream, const_cast<int*>(in), 0); break;
    case 12: SNIPER_LAUNCH(read_shared, 1, 1, 0, stream, out); break;
    case 13: SNIPER_LAUNCH(write_at, 1, 1025, 0, stream, out, 0); break;
    case 14: SNIPER_LAUNCH(write_at, 0, 1, 0, stream, out, 0); break;
    case 15: SNIPER_LAUNCH(dynamic_shared, 1, 1, 4, stream, out, 0); break;
    case 16: SNIPER_LAUNCH(dynamic_shared, 1, 1, 4, stream, out, 1); break;
    case 17: SNIPER_LAUNCH(write_at, 1, 1, 49153, stream, out, 0); break;
    case 18: SNIPER_LAUNCH(warp_things, 1, 32, 0, stream, reinterpret_cast<unsigned*>(out)); break;
    case 19: SNIPER_LAUNCH(ranks, 1, 64, 0, stream, in, out); break;
    case 20:
      sniper::store_values(params->host, 600, out, stream);
      break;
    case 21: SNIPER_LAUNCH(write_at, 1, 1, 0, stream, out, params->size); break;
    case 22: SNIPER_LAUNCH(write_at, 1, 64, 0, stream, (int*)nullptr, 4); break;
    case 23: SNIPER_LAUNCH(warps_race, 1, 64, 0, stream, out); break;
  }
  return cudaGetLastError();
}
"""


class Params(ctypes.Structure):
    _fields_ = [("mode", ctypes.c_int), ("size", ctypes.c_int), ("host", ctypes.c_void_p)]


@pytest.fixture(scope="module")
def call(cuda_build_folder):
    source = cuda_build_folder / "sniper_try_cuda.cu"
    source.write_text(SOURCE, encoding="utf-8")
    path, errors = cuda_sources.build_emulated(cuda_build_folder, [source])
    assert not errors
    backend = cuda_harness.Backend(cuda_harness.EmulatedDevice(path))
    host = np.arange(600, dtype=np.int32)

    def call(mode, values=None, size=1024):
        values = np.arange(64, dtype=np.int32) if values is None else values
        out = backend.out((size,), np.int32)
        return backend.run("try", Params(mode, size, None), values, out, hosts={"host": host})

    return call


def test_right_kernels_run(call):
    assert call(0)[0] == 2016
    assert call(15)[0] == 7
    np.testing.assert_array_equal(call(20)[:600], np.arange(600))


def test_warp_operations(call):
    out = call(18).view(np.uint32)
    lanes = np.arange(32)
    assert (out[:32] == sum(1 << lane for lane in range(0, 32, 3))).all()
    assert (out[32:64] == 105).all()
    np.testing.assert_array_equal(out[64:96], np.where(lanes < 24, lanes + 8, lanes))
    bits = [(bin(k).count("1"), (k & -k).bit_length(), 32 - k.bit_length()) for k in range(32)]
    np.testing.assert_array_equal(out[96:128], [a + 100 * b + 10000 * c for a, b, c in bits])


def test_rank_in_a_block(call):
    values = (np.arange(64) % 5 == 0).astype(np.int32)
    ranks = np.cumsum(values) - values
    np.testing.assert_array_equal(call(19, values)[:64], 1000 * values.sum() + ranks)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (1, "a barrier is missing"),
        (2, "barrier not reached by every thread of 64, 5 wait for __syncthreads"),
        (3, "different barriers"),
        (4, "not in the mask"),
        (5, "access at byte 4096 of a buffer of 4096 bytes"),
        (6, "access at byte -4 of"),
        (7, "access at byte 256 of a buffer of 256 bytes"),
        (8, "a kernel touches host memory"),
        (9, "the host code touches device memory"),
        (10, "scratch is read before it is written"),
        (11, "an input was written to"),
        (13, "too large grid or block"),
        (14, "empty"),
        (16, "behind the dynamic shared memory"),
        (17, "48 KB"),
        (22, "far from every buffer"),
        (23, "a barrier is missing"),
    ],
)
def test_mistakes_are_found(call, mode, message):
    with pytest.raises(cuda_harness.LaunchError, match=message):
        call(mode)
    assert call(0)[0] == 2016  # and the next call is not disturbed


def test_a_small_step_beside_a_buffer_is_found(call):
    with pytest.raises(cuda_harness.LaunchError, match="beside a buffer"):
        call(21, size=5)


def test_shared_memory_is_poisoned(call):
    assert call(12)[0] == np.uint32(0xCDCDCDCD).view(np.int32)


def test_a_missing_launcher_names_the_compiler_errors(cuda_build_folder, tmp_path):
    broken = tmp_path / "broken_cuda.cu"
    broken.write_text("this is no C++", encoding="utf-8")
    device = cuda_harness.EmulatedDevice(*cuda_sources.build_emulated(cuda_build_folder, [broken]))
    with pytest.raises(cuda_harness.LaunchError, match="this is no C"):
        cuda_harness.Backend(device).function("sniper_broken_forward")
