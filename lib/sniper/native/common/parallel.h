// How many OpenMP threads a kernel may start, and a loop that hands exceptions on.
#ifndef SNIPER_NATIVE_COMMON_PARALLEL_H_
#define SNIPER_NATIVE_COMMON_PARALLEL_H_

#include <atomic>
#include <exception>

namespace sniper {

// Threads for a loop of `tasks` independent steps: OMP_NUM_THREADS, but never more than there are
// tasks, and 1 in a forked child, where the GNU OpenMP runtime would wait for the parent's threads
// for ever. Use as `#pragma omp parallel for num_threads(sniper::thread_count(n))`.
int thread_count(long long tasks);

// The same, but up to `threads` whatever OMP_NUM_THREADS says.
int thread_count(long long tasks, int threads);

// Keeps the first exception of several threads: one that leaves an OpenMP region ends the process.
//     FirstException first;
//     #pragma omp parallel for
//     for (...) first.guard([&] { ... });
//     first.rethrow();
class FirstException {
 public:
  // Runs `body` unless an earlier one has failed.
  template <class Body>
  void guard(const Body& body) noexcept {
    if (failed_.load(std::memory_order_relaxed)) return;
    try {
      body();
    } catch (...) {  // any type: it is thrown again outside the region
      if (!failed_.exchange(true)) exception_ = std::current_exception();
    }
  }

  // For the end of the region, on the thread that opened it.
  void rethrow() const {
    if (exception_) std::rethrow_exception(exception_);
  }

 private:
  std::atomic<bool> failed_{false};
  std::exception_ptr exception_;
};

// Runs body(0) .. body(tasks - 1) on several threads, each free thread taking the next task. The
// first exception ends the loop (tasks that have not begun are left out) and is thrown again here.
// `tasks_per_thread` small tasks are worth a thread: waking one up takes some microseconds, and
// milliseconds where the processor is busy.
template <class Body>
void parallel_for(long long tasks, const Body& body, long long tasks_per_thread = 1) {
  FirstException first;
#pragma omp parallel for num_threads(thread_count(tasks / tasks_per_thread)) schedule(dynamic, 1)
  for (long long task = 0; task < tasks; ++task) first.guard([&] { body(task); });
  first.rethrow();
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_PARALLEL_H_
