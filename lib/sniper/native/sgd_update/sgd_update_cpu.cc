#include <algorithm>
#include <atomic>
#include <cstring>

#include "common/isa.h"
#include "common/parallel.h"
#include "sgd_update/sgd_update.h"

namespace sniper {
namespace {

constexpr std::int64_t kBlock = 1 << 14;  // floats of a task
constexpr std::uint32_t kExponent = 0x7f800000u;

struct Task {
  const SgdArrays* arrays;
  std::int64_t first, count;
};

std::vector<Task> tasks_of(const std::vector<SgdArrays>& arrays) {
  std::vector<Task> tasks;
  for (const SgdArrays& one : arrays) {
    for (std::int64_t first = 0; first < one.size; first += kBlock) {
      tasks.push_back({&one, first, std::min(kBlock, one.size - first)});
    }
  }
  return tasks;
}

// Body(task) for all tasks; every one writes memory of its own, so that the order does not matter.
template <class Body>
void for_each(const std::vector<Task>& tasks, int threads, const Body& body) {
  const long long count = static_cast<long long>(tasks.size());
#pragma omp parallel for num_threads(thread_count(count, threads)) schedule(dynamic, 1)
  for (long long i = 0; i < count; ++i) body(tasks[static_cast<std::size_t>(i)]);
}

SNIPER_ALWAYS_INLINE void add_block(float* total, const float* term, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) total[i] += term[i];
}

SNIPER_ALWAYS_INLINE void divide_block(float* total, float divisor, std::int64_t count) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) total[i] /= divisor;
}

// 0: all values are finite.
SNIPER_ALWAYS_INLINE void count_broken(const float* values, std::int64_t count, int* broken) {
  int found = 0;
#pragma omp simd reduction(| : found)
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    found |= (bits & kExponent) == kExponent ? 1 : 0;
  }
  *broken = found;
}

SNIPER_ALWAYS_INLINE void update_block(float* weight, float* momentum, const float* gradient,
                                       std::int64_t count, SgdSettings settings, float rate,
                                       float decay) {
  const bool clips = settings.clip >= 0.0f;
  const float clip = settings.clip, shrink = rate * decay;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    float value = gradient[i];
    // As mshadow's clip: NaN stays.
    if (clips) value = value > clip ? clip : (value < -clip ? -clip : value);
    momentum[i] = settings.momentum * momentum[i] - shrink * weight[i] - rate * value;
    weight[i] += momentum[i];
  }
}

}  // namespace

bool reduce_gradients_cpu(const std::vector<SgdArrays>& arrays, float divisor, int threads) {
  std::atomic<bool> finite{true};
  for_each(tasks_of(arrays), threads, [&](const Task& task) {
    float* total = task.arrays->gradient + task.first;
    for (const float* other : task.arrays->others) {
      per_isa<add_block>(total, other + task.first, task.count);
    }
    if (divisor != 1.0f) per_isa<divide_block>(total, divisor, task.count);
    int broken = 0;
    per_isa<count_broken>(total, task.count, &broken);
    if (broken != 0) finite.store(false, std::memory_order_relaxed);
  });
  return finite.load();
}

void sgd_update_cpu(const std::vector<SgdArrays>& arrays, const SgdSettings& settings,
                    int threads) {
  for_each(tasks_of(arrays), threads, [&](const Task& task) {
    const SgdArrays& one = *task.arrays;
    float* weight = one.weight + task.first;
    per_isa<update_block>(weight, one.momentum + task.first, one.gradient + task.first, task.count,
                          settings, one.rate, one.decay);
    for (float* copy : one.copies) {
      std::memcpy(copy + task.first, weight, static_cast<std::size_t>(task.count) * sizeof(float));
    }
  });
}

}  // namespace sniper
