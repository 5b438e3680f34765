// The part of CUDA that the kernels use, on the host: one coroutine per thread of a block, switched
// at barriers, in an order that the test chooses. Included by common/cuda.cuh.
//
// What it reports (through cudaGetLastError, with a sentence in emulation_message()): barriers that
// not every live thread reaches, warp operations whose threads disagree, kernels that touch host
// memory or leave their buffers, launchers that touch device memory, wrong launch sizes, too little
// temporary storage for CUB. Shared memory holds 0xCD when a block starts.
#ifndef SNIPER_TESTS_CUDA_EMULATION_H_
#define SNIPER_TESTS_CUDA_EMULATION_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
// Thread-local variables of one library lie in one block of memory, which can be poisoned.
#define __shared__ static thread_local

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchFailure = 719,
};

enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4,
};

struct CUstream_st;
using cudaStream_t = CUstream_st*;

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaMemsetAsync(void* target, int value, std::size_t bytes, cudaStream_t stream = 0);
cudaError_t cudaMemcpyAsync(void* target, const void* source, std::size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t stream = 0);

namespace cuda_emulation {

// Runs `body` once for every thread of the grid.
void launch(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& body);
void* dynamic_shared();
void sync_block(const char* file, int line);

enum class WarpOperation { kSync, kBallot, kShuffle };
// Waits for all lanes of `mask`; a ballot returns the lanes with a value, a shuffle the value of
// `source_lane`.
std::uint64_t sync_warp(WarpOperation operation, unsigned mask, std::uint64_t value,
                        int source_lane, const char* file, int line);
int lane();

// Work that CUDA does on the device: device memory is accessible while it lives.
class OnDevice {
 public:
  OnDevice();
  ~OnDevice();
};

cudaError_t fail(cudaError_t error, const char* sentence);

// By-value parameters are copied once, when the kernel is enqueued, as CUDA does.
template <class... Parameters, class... Arguments>
void launch_kernel(dim3 grid, dim3 block, std::size_t shared_bytes, const void* /*stream*/,
                   void (*kernel)(Parameters...), Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable<Parameters>::value && ...),
                "kernel parameters must be trivially copyable");
  const std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
  launch(grid, block, shared_bytes, [&] { std::apply(kernel, values); });
}

template <class T>
T shuffle(unsigned mask, T value, int source_lane, const char* file, int line) {
  static_assert(sizeof(T) <= 8 && std::is_arithmetic<T>::value, "shuffles move numbers");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = sync_warp(WarpOperation::kShuffle, mask, bits, source_lane, file, line);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

template <class T, class Change>
T atomic(T* address, Change change) {
  static_assert(std::is_same<T, int>::value || std::is_same<T, unsigned>::value ||
                    std::is_same<T, unsigned long long>::value,
                "atomics work on integers only: floating-point sums would depend on the order");
  const T old = *address;
  *address = change(old);
  return old;
}

}  // namespace cuda_emulation

#define SNIPER_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::cuda_emulation::launch_kernel(grid, block, shared_bytes, stream, kernel, __VA_ARGS__)
#define SNIPER_DYNAMIC_SHARED(type, name) \
  type* name = static_cast<type*>(::cuda_emulation::dynamic_shared())

#define __syncthreads() ::cuda_emulation::sync_block(__FILE__, __LINE__)
#define SNIPER_SYNC_WARP(operation, mask, value, source)                                       \
  ::cuda_emulation::sync_warp(::cuda_emulation::WarpOperation::operation, mask, value, source, \
                              __FILE__, __LINE__)
#define __syncwarp(...) SNIPER_SYNC_WARP(kSync, ::cuda_emulation::warp_mask(__VA_ARGS__), 0, 0)
#define __ballot_sync(mask, predicate) \
  static_cast<unsigned>(SNIPER_SYNC_WARP(kBallot, mask, (predicate) ? 1 : 0, 0))
#define __any_sync(mask, predicate) (__ballot_sync(mask, predicate) != 0)
#define __all_sync(mask, predicate) (__ballot_sync(mask, !(predicate)) == 0)
#define __shfl_sync(mask, value, source) \
  ::cuda_emulation::shuffle(mask, value, (source) & 31, __FILE__, __LINE__)
// Lanes above the last get their own value back.
#define __shfl_down_sync(mask, value, delta)                                                    \
  ::cuda_emulation::shuffle(mask, value, ::cuda_emulation::lane_below(static_cast<int>(delta)), \
                            __FILE__, __LINE__)
#define __shfl_up_sync(mask, value, delta)                                                      \
  ::cuda_emulation::shuffle(mask, value, ::cuda_emulation::lane_above(static_cast<int>(delta)), \
                            __FILE__, __LINE__)
#define __shfl_xor_sync(mask, value, bits) \
  ::cuda_emulation::shuffle(mask, value, ::cuda_emulation::lane() ^ (bits), __FILE__, __LINE__)

namespace cuda_emulation {
inline unsigned warp_mask(unsigned mask = 0xFFFFFFFFu) { return mask; }
inline int lane_below(int delta) { return lane() + delta < 32 ? lane() + delta : lane(); }
inline int lane_above(int delta) { return lane() >= delta ? lane() - delta : lane(); }
}  // namespace cuda_emulation

inline void __threadfence() {}
inline void __threadfence_block() {}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(static_cast<unsigned>(bits)) : 32; }
inline int __clzll(long long bits) {
  return bits ? __builtin_clzll(static_cast<unsigned long long>(bits)) : 64;
}

template <class T>
T __ldg(const T* address) {
  return *address;
}

inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline int __float_as_int(float value) { return static_cast<int>(__float_as_uint(value)); }
inline float __int_as_float(int bits) { return __uint_as_float(static_cast<unsigned>(bits)); }

template <class T>
T atomicAdd(T* address, std::common_type_t<T> value) {
  return cuda_emulation::atomic(address, [&](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicMax(T* address, std::common_type_t<T> value) {
  return cuda_emulation::atomic(address, [&](T old) { return old > value ? old : value; });
}
template <class T>
T atomicMin(T* address, std::common_type_t<T> value) {
  return cuda_emulation::atomic(address, [&](T old) { return old < value ? old : value; });
}
template <class T>
T atomicOr(T* address, std::common_type_t<T> value) {
  return cuda_emulation::atomic(address, [&](T old) { return static_cast<T>(old | value); });
}
template <class T>
T atomicXor(T* address, std::common_type_t<T> value) {
  return cuda_emulation::atomic(address, [&](T old) { return static_cast<T>(old ^ value); });
}
template <class T>
T atomicAnd(T* address, std::common_type_t<T> value) {
  return cuda_emulation::atomic(address, [&](T old) { return static_cast<T>(old & value); });
}
template <class T>
T atomicExch(T* address, std::common_type_t<T> value) {
  return cuda_emulation::atomic(address, [&](T) { return value; });
}
template <class T>
T atomicCAS(T* address, std::common_type_t<T> compare, std::common_type_t<T> value) {
  return cuda_emulation::atomic(address, [&](T old) { return old == compare ? value : old; });
}

#endif  // SNIPER_TESTS_CUDA_EMULATION_H_
