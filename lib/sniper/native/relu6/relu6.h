// ReLU6, min(max(x, 0), 6): the function and the gradient of MXNet's `clip` with the limits 0 and
// 6, to the bit. It is here because `clip` runs on one float at a time and is most of a training
// step of MobileNetV2 on a CPU.
#ifndef SNIPER_NATIVE_RELU6_RELU6_H_
#define SNIPER_NATIVE_RELU6_RELU6_H_

#include <cstdint>

#include "common/macros.h"

namespace sniper {

constexpr float kRelu6Limit = 6.0f;

struct Relu6Params {
  std::int64_t size;  // elements of every tensor
};

// NaN and -0 stay what they are.
SNIPER_HOST_DEVICE float relu6(float value) {
  const float positive = value < 0.0f ? 0.0f : value;
  return positive > kRelu6Limit ? kRelu6Limit : positive;
}

// The limits themselves, and NaN, let the gradient through.
SNIPER_HOST_DEVICE float relu6_gradient(float value, float output_grad) {
  const bool beyond = (value < 0.0f) | (value > kRelu6Limit);  // no branch, so that loops use SIMD
  return beyond ? 0.0f : output_grad;
}

// `output` may be `data`.
void relu6_forward_cpu(const Relu6Params& params, const float* data, float* output);

// `data_grad` may be `output_grad` or `data`.
void relu6_backward_cpu(const Relu6Params& params, const float* output_grad, const float* data,
                        float* data_grad);

}  // namespace sniper

#endif  // SNIPER_NATIVE_RELU6_RELU6_H_
