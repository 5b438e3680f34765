#include <algorithm>

#include "common/isa.h"
#include "common/parallel.h"
#include "relu6/relu6.h"

namespace sniper {
namespace {

constexpr std::int64_t kBlock = 1 << 14;      // elements of a task
constexpr std::int64_t kBlocksPerThread = 4;  // some 20 us of work are worth waking a thread up

// `simd` says that equal pointers are the only overlap.
SNIPER_ALWAYS_INLINE void forward_block(const float* data, std::int64_t count, float* output) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) output[i] = relu6(data[i]);
}

SNIPER_ALWAYS_INLINE void backward_block(const float* output_grad, const float* data,
                                         std::int64_t count, float* data_grad) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) data_grad[i] = relu6_gradient(data[i], output_grad[i]);
}

// Calls body(first element, number of elements).
template <class Body>
void for_each_block(std::int64_t size, const Body& body) {
  const auto run = [&](std::int64_t block) {
    const std::int64_t first = block * kBlock;
    body(first, std::min(kBlock, size - first));
  };
  parallel_for((size + kBlock - 1) / kBlock, run, kBlocksPerThread);
}

}  // namespace

void relu6_forward_cpu(const Relu6Params& params, const float* data, float* output) {
  for_each_block(params.size, [&](std::int64_t first, std::int64_t count) {
    per_isa<forward_block>(data + first, count, output + first);
  });
}

void relu6_backward_cpu(const Relu6Params& params, const float* output_grad, const float* data,
                        float* data_grad) {
  for_each_block(params.size, [&](std::int64_t first, std::int64_t count) {
    per_isa<backward_block>(output_grad + first, data + first, count, data_grad + first);
  });
}

}  // namespace sniper
