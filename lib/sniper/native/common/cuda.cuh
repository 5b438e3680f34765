// What every CUDA source includes: the runtime, kernel launches, scratch memory. Device-wide sorts
// and sums are in common/device_wide.cuh, because CUB's headers take long to compile.
//
// common/cuda_api.h says what a launcher promises. With -DSNIPER_CUDA_EMULATION the same sources
// compile as C++ against the test suite's host emulation, which knows only what they use.
#ifndef SNIPER_NATIVE_COMMON_CUDA_CUH_
#define SNIPER_NATIVE_COMMON_CUDA_CUH_

#include <cstddef>
#include <cstdint>

#include "common/cuda_api.h"

#ifdef SNIPER_CUDA_EMULATION
#include "cuda_emulation.h"
#else
#include <cuda_runtime.h>

// kernel<<<grid, block, shared_bytes, stream>>>(...). Reports nothing: the launcher returns
// cudaGetLastError() at its end. A kernel template with commas goes in parentheses.
#define SNIPER_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<grid, block, shared_bytes, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)

// Declares `type* name`, the dynamic shared memory of the block, aligned to 16 bytes.
#define SNIPER_DYNAMIC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char sniper_dynamic_shared[]; \
  type* name = reinterpret_cast<type*>(sniper_dynamic_shared)
#endif

namespace sniper {

constexpr int kWarpSize = 32;
constexpr unsigned kFullWarp = 0xFFFFFFFFu;

__host__ __device__ constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// Blocks of a kernel that walks over `items` with global_thread() and global_threads(). At least
// one, because an empty grid is an error; enough to fill any GPU.
inline unsigned blocks_for(std::int64_t items, int threads) {
#ifdef SNIPER_CUDA_EMULATION
  constexpr std::int64_t kMost = 24;  // so that tests see blocks that take several items
#else
  constexpr std::int64_t kMost = 16384;
#endif
  const std::int64_t blocks = ceil_div(items, threads);
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks > kMost ? kMost : blocks);
}

#if defined(__CUDACC__) || defined(SNIPER_CUDA_EMULATION)
// for (std::int64_t i = global_thread(); i < items; i += global_threads()) ...
__device__ __forceinline__ std::int64_t global_thread() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ std::int64_t global_threads() {
  return static_cast<std::int64_t>(gridDim.x) * blockDim.x;
}
#endif

// Slices of one scratch buffer, each aligned to 256 bytes. The same code measures (base null, all
// slices null) and carves:
//     Workspace workspace(base);
//     float* boxes = workspace.take<float>(4 * n);
//     *bytes = workspace.bytes();
class Workspace {
 public:
  explicit Workspace(void* base) : base_(static_cast<unsigned char*>(base)) {}

  template <class T>
  T* take(std::int64_t count) {
    unsigned char* slice = base_ ? base_ + used_ : nullptr;
    used_ +=
        (static_cast<std::size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return reinterpret_cast<T*>(slice);
  }

  std::size_t bytes() const { return used_; }

 private:
  static constexpr std::size_t kAlignment = 256;
  unsigned char* base_;
  std::size_t used_ = 0;
};

// Small host arrays travel as kernel arguments: they are copied when the kernel is enqueued, while
// a copy from pageable memory would wait for the stream.
constexpr int kChunkBytes = 2048;

template <class T>
struct ValueChunk {
  static constexpr int kSize = kChunkBytes / static_cast<int>(sizeof(T));
  T values[kSize];
};

template <class T>
__global__ void store_chunk(ValueChunk<T> chunk, int count, T* target) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    target[i] = chunk.values[i];
  }
}

// Enqueues target[0 .. count) = values[0 .. count); `values` may go away on return.
template <class T>
void store_values(const T* values, std::int64_t count, T* target, void* stream) {
  for (std::int64_t start = 0; start < count; start += ValueChunk<T>::kSize) {
    ValueChunk<T> chunk = {};
    const std::int64_t left = count - start;
    const int size = static_cast<int>(left < ValueChunk<T>::kSize ? left : ValueChunk<T>::kSize);
    for (int i = 0; i < size; ++i) chunk.values[i] = values[start + i];
    SNIPER_LAUNCH(store_chunk<T>, 1, 128, 0, stream, chunk, size, target + start);
  }
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_CUDA_CUH_
