// The update of a training step on the CPU: gradients of all contexts to one, and SGD with
// momentum. It is here because MXNet reads and writes the same memory in many small operators:
// sums, a search for infinities, updates of four arrays at a time, copies of the weights.
#ifndef SNIPER_NATIVE_SGD_UPDATE_SGD_UPDATE_H_
#define SNIPER_NATIVE_SGD_UPDATE_SGD_UPDATE_H_

#include <cstdint>
#include <vector>

namespace sniper {

// One parameter and its arrays, `size` floats each.
struct SgdArrays {
  std::int64_t size;
  float* gradient;                   // of the first context; the reduced one afterwards
  std::vector<const float*> others;  // gradients of the other contexts
  float* weight;
  float* momentum;
  std::vector<float*> copies;  // the other contexts' weights
  float rate, decay;
};

struct SgdSettings {
  float momentum;
  float clip;  // limit of each value of the gradient; negative: none
};

// gradient = (gradient + others[0] + ...) / divisor, in this order. Returns whether all values are
// finite. A single gradient with divisor 1 is read only.
bool reduce_gradients_cpu(const std::vector<SgdArrays>& arrays, float divisor, int threads);

// momentum = m * momentum - (rate * decay) * weight - rate * clipped gradient, weight += momentum,
// and the weight to all copies: the roundings of MXNet's multi_sgd_mom_update.
void sgd_update_cpu(const std::vector<SgdArrays>& arrays, const SgdSettings& settings, int threads);

}  // namespace sniper

#endif  // SNIPER_NATIVE_SGD_UPDATE_SGD_UPDATE_H_
