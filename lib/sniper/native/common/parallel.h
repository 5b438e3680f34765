// How many OpenMP threads a kernel may start.
#ifndef SNIPER_NATIVE_COMMON_PARALLEL_H_
#define SNIPER_NATIVE_COMMON_PARALLEL_H_

namespace sniper {

// Threads for a loop of `tasks` independent steps: OMP_NUM_THREADS, but never more than there are
// tasks, and 1 in a forked child, where the GNU OpenMP runtime would wait for the parent's threads
// for ever. Use as `#pragma omp parallel for num_threads(sniper::thread_count(n))`.
int thread_count(long long tasks);

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_PARALLEL_H_
