#include <omp.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>

#include "common/parallel.h"

namespace sniper {
namespace {

std::atomic<bool> forked{false};

void mark_forked() { forked.store(true); }

// Registered when the library is loaded, hence before any fork that could inherit its threads.
const int registered = pthread_atfork(nullptr, nullptr, mark_forked);

}  // namespace

int thread_count(long long tasks) { return thread_count(tasks, omp_get_max_threads()); }

int thread_count(long long tasks, int threads) {
  if (registered != 0 || forked.load(std::memory_order_relaxed) || omp_in_parallel()) return 1;
  const long long limit = threads;
  return static_cast<int>(std::max(1LL, std::min(tasks, limit)));
}

}  // namespace sniper
