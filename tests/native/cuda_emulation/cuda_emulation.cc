// Scheduler and barriers of the emulation. One host thread at a time.
#include <link.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <csetjmp>
#include <memory>
#include <numeric>
#include <random>
#include <string>

#include "emulation_state.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_emulation {
namespace {

constexpr std::size_t kStack = 64 * kPage;
constexpr std::size_t kMostShared = 48 * 1024;
constexpr std::size_t kCanary = 64;

// ---- Coroutines --------------------------------------------------------------------------------

enum class State { kNew, kReady, kAtBlock, kAtWarp, kDone };

struct Fiber {
  ucontext_t start;
  jmp_buf jump;
  bool started = false;
  void* stack = nullptr;
};

struct Thread {
  State state;
  dim3 index;
  Fiber* fiber;
  const char* file;  // of the barrier where it waits
  int line;
  WarpOperation operation;
  unsigned mask;
  std::uint64_t value, result;
  int source_lane;
};

std::vector<std::unique_ptr<Fiber>> all_fibers;
std::vector<Fiber*> free_fibers;
std::vector<Thread> threads;
Thread* current = nullptr;
const std::function<void()>* body = nullptr;
jmp_buf scheduler;

[[noreturn]] void fiber_main() {
  Fiber* const fiber = current->fiber;
  for (;;) {
    (*body)();
    current->state = State::kDone;
    free_fibers.push_back(fiber);
    if (_setjmp(fiber->jump) == 0) _longjmp(scheduler, 1);
  }
}

Fiber* take_fiber() {
  if (free_fibers.empty()) {
    all_fibers.push_back(std::make_unique<Fiber>());
    Fiber* fiber = all_fibers.back().get();
    // The lowest page stays out of reach: a kernel that needs more stack crashes at once.
    fiber->stack = mmap(nullptr, kStack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(static_cast<char*>(fiber->stack) + kPage, kStack - kPage, PROT_READ | PROT_WRITE);
    free_fibers.push_back(fiber);
  }
  Fiber* fiber = free_fibers.back();
  free_fibers.pop_back();
  return fiber;
}

// Runs `thread` until its next barrier or its end.
__attribute__((noinline)) void resume(Thread* thread) {
  current = thread;
  threadIdx = thread->index;
  if (thread->state == State::kNew) thread->fiber = take_fiber();
  thread->state = State::kReady;
  Fiber* fiber = thread->fiber;
  if (_setjmp(scheduler) != 0) return;
  if (fiber->started) _longjmp(fiber->jump, 1);
  fiber->started = true;
  getcontext(&fiber->start);
  fiber->start.uc_stack.ss_sp = fiber->stack;
  fiber->start.uc_stack.ss_size = kStack;
  fiber->start.uc_link = nullptr;
  makecontext(&fiber->start, reinterpret_cast<void (*)()>(fiber_main), 0);
  setcontext(&fiber->start);
}

__attribute__((noinline)) void suspend(State state, const char* file, int line) {
  current->state = state;
  current->file = file;
  current->line = line;
  if (_setjmp(current->fiber->jump) == 0) _longjmp(scheduler, 1);
}

// Forgets the coroutines of a block that cannot go on.
void abandon_fibers() {
  free_fibers.clear();
  for (const auto& fiber : all_fibers) {
    fiber->started = false;
    free_fibers.push_back(fiber.get());
  }
}

// ---- Barriers ----------------------------------------------------------------------------------

int order_mode = 0;
std::mt19937 generator;

void next_order(std::vector<std::size_t>* order) {
  if (order_mode == 2) std::shuffle(order->begin(), order->end(), generator);
}

std::vector<std::size_t> first_order(std::size_t count) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (order_mode == 1) std::reverse(order.begin(), order.end());
  next_order(&order);
  return order;
}

std::string place(const Thread& thread) {
  const char* slash = std::strrchr(thread.file, '/');
  return std::string(slash ? slash + 1 : thread.file) + ":" + std::to_string(thread.line);
}

void fail_block(const std::string& what) {
  std::string text = what + " (block " + std::to_string(blockIdx.x) + ", " +
                     std::to_string(blockIdx.y) + ", " + std::to_string(blockIdx.z) + ")";
  describe(cudaErrorLaunchFailure, text.c_str());
}

// What the threads of a stuck block wait for.
std::string stuck_text() {
  std::vector<std::pair<std::string, int>> places;
  for (const Thread& thread : threads) {
    if (thread.state == State::kDone) continue;
    const std::string text =
        (thread.state == State::kAtBlock ? "__syncthreads at " : "a warp operation at ") +
        place(thread);
    auto entry = std::find_if(places.begin(), places.end(),
                              [&](const auto& known) { return known.first == text; });
    if (entry == places.end()) entry = places.insert(places.end(), {text, 0});
    ++entry->second;
  }
  std::string text = "barrier not reached by every thread of " + std::to_string(threads.size());
  for (const auto& entry : places) {
    text += ", " + std::to_string(entry.second) + " wait for " + entry.first;
  }
  return text;
}

// Lets the lanes of one warp operation go when all of them have arrived; false on an error.
bool release_lanes(std::size_t first, std::size_t last, std::size_t leader, bool* released) {
  const Thread& head = threads[leader];
  const std::size_t lanes = last - first;
  const unsigned existing = lanes >= 32 ? 0xFFFFFFFFu : (1u << lanes) - 1u;
  const unsigned mask = head.mask & existing;
  if ((mask >> (leader - first) & 1u) == 0) {
    fail_block("a lane is not in the mask of its own warp operation at " + place(head));
    return false;
  }
  std::uint64_t ballot = 0;
  for (std::size_t i = first; i < last; ++i) {
    if ((mask >> (i - first) & 1u) == 0) continue;
    const Thread& thread = threads[i];
    if (thread.state != State::kAtWarp) return true;  // not here yet
    if (thread.operation != head.operation || (thread.mask & existing) != mask ||
        thread.line != head.line) {
      fail_block("lanes of one warp meet at different operations, " + place(head) + " and " +
                 place(thread));
      return false;
    }
    if (thread.value != 0) ballot |= std::uint64_t{1} << (i - first);
  }
  for (std::size_t i = first; i < last; ++i) {
    Thread& thread = threads[i];
    if ((mask >> (i - first) & 1u) == 0) continue;
    thread.result = ballot;
    if (thread.operation == WarpOperation::kShuffle) {
      const unsigned source = static_cast<unsigned>(thread.source_lane) & 31u;
      thread.result = mask >> source & 1u ? threads[first + source].value
                                          : 0xCDCDCDCDCDCDCDCDull;  // undefined in CUDA
    }
    thread.state = State::kReady;
  }
  *released = true;
  return true;
}

// Runs one warp until all its live lanes wait for the block; false on an error. Warps run one after
// the other, as far apart as the barriers let them.
bool run_warp(std::size_t first, const std::vector<std::size_t>& lanes, bool* progress) {
  const std::size_t last = std::min(first + 32, threads.size());
  for (bool moved = true; moved;) {
    moved = false;
    for (const std::size_t lane : lanes) {
      if (first + lane >= last) continue;
      Thread& thread = threads[first + lane];
      if (thread.state != State::kNew && thread.state != State::kReady) continue;
      resume(&thread);
      moved = *progress = true;
    }
    for (std::size_t i = first; i < last; ++i) {
      if (threads[i].state == State::kAtWarp && !release_lanes(first, last, i, &moved)) {
        return false;
      }
    }
  }
  return true;
}

// Lets the block go when every live thread waits at the same __syncthreads; false on an error.
bool release_block(bool* released) {
  const Thread* head = nullptr;
  for (const Thread& thread : threads) {
    if (thread.state == State::kDone) continue;
    if (thread.state != State::kAtBlock) return true;
    if (head == nullptr) head = &thread;
    if (thread.line != head->line || std::strcmp(thread.file, head->file) != 0) {
      fail_block("threads of one block meet at different barriers, " + place(*head) + " and " +
                 place(thread));
      return false;
    }
  }
  for (Thread& thread : threads) {
    if (thread.state == State::kAtBlock) thread.state = State::kReady, *released = true;
  }
  return true;
}

// Runs all threads of the block to their end; false on an error.
bool run_block(dim3 block) {
  threads.assign(static_cast<std::size_t>(block.x) * block.y * block.z, Thread());
  for (std::size_t i = 0; i < threads.size(); ++i) {
    const unsigned linear = static_cast<unsigned>(i);
    threads[i].index =
        dim3(linear % block.x, linear / block.x % block.y, linear / block.x / block.y);
  }
  std::vector<std::size_t> warps = first_order((threads.size() + 31) / 32);
  std::vector<std::size_t> lanes = first_order(32);
  for (bool live = true; live; next_order(&warps), next_order(&lanes)) {
    bool progress = false;
    for (const std::size_t warp : warps) {
      if (!run_warp(32 * warp, lanes, &progress)) return false;
    }
    if (!release_block(&progress)) return false;
    if (!progress) {
      fail_block(stuck_text());
      return false;
    }
    live = std::any_of(threads.begin(), threads.end(),
                       [](const Thread& thread) { return thread.state != State::kDone; });
  }
  return true;
}

// ---- Shared memory -----------------------------------------------------------------------------

thread_local volatile char shared_anchor;  // makes the block of thread-local variables exist

struct SharedBlock {
  void* address;
  std::size_t bytes;
};

int find_shared(dl_phdr_info* info, std::size_t, void* result) {
  const std::uintptr_t here = reinterpret_cast<std::uintptr_t>(&find_shared);
  bool own = false;
  const ElfW(Phdr)* tls = nullptr;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr) & header = info->dlpi_phdr[i];
    const std::uintptr_t start = info->dlpi_addr + header.p_vaddr;
    if (header.p_type == PT_LOAD && here >= start && here < start + header.p_memsz) own = true;
    if (header.p_type == PT_TLS) tls = &header;
  }
  if (!own) return 0;
  *static_cast<SharedBlock*>(result) = {info->dlpi_tls_data, tls ? tls->p_memsz : 0};
  return 1;
}

SharedBlock static_shared() {
  shared_anchor = 1;
  SharedBlock block = {nullptr, 0};
  dl_iterate_phdr(find_shared, &block);
  return block;
}

std::vector<unsigned char> dynamic_buffer;
unsigned char* dynamic_start = nullptr;

void set_dynamic_shared(std::size_t bytes) {
  dynamic_buffer.assign(bytes + kCanary + 16, kPoison);
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(dynamic_buffer.data());
  dynamic_start = reinterpret_cast<unsigned char*>(round_up(address, 16));
}

bool dynamic_intact(std::size_t bytes) {
  return std::all_of(dynamic_start + bytes, dynamic_start + bytes + kCanary,
                     [](unsigned char value) { return value == kPoison; });
}

bool valid_launch(dim3 grid, dim3 block, std::size_t shared_bytes) {
  const std::size_t size = static_cast<std::size_t>(block.x) * block.y * block.z;
  return grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x <= 0x7FFFFFFFu && grid.y <= 65535u &&
         grid.z <= 65535u && size > 0 && size <= 1024 && block.z <= 64 &&
         shared_bytes <= kMostShared;
}

}  // namespace

// ---- The interface of the kernels --------------------------------------------------------------

void launch(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& kernel) {
  if (last_error != cudaSuccess) return;
  if (!valid_launch(grid, block, shared_bytes)) {
    describe(cudaErrorInvalidConfiguration,
             "launch with an empty or too large grid or block, or "
             "more than 48 KB of dynamic shared memory");
    return;
  }
  OnDevice guard;
  body = &kernel;
  if (_setjmp(crash) != 0) {
    in_kernel = false;
    abandon_fibers();
    return;
  }
  gridDim = grid;
  blockDim = block;
  const SharedBlock shared = static_shared();
  for (const std::size_t i : first_order(static_cast<std::size_t>(grid.x) * grid.y * grid.z)) {
    blockIdx = dim3(static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                    static_cast<unsigned>(i / grid.x / grid.y));
    std::memset(shared.address, kPoison, shared.bytes);
    set_dynamic_shared(shared_bytes);
    in_kernel = true;
    const bool finished = run_block(block);
    in_kernel = false;
    if (!finished) {
      abandon_fibers();
      return;
    }
    if (!dynamic_intact(shared_bytes)) {
      fail_block("a thread writes behind the dynamic shared memory");
      return;
    }
  }
}

void* dynamic_shared() { return dynamic_start; }

int lane() { return static_cast<int>(static_cast<std::size_t>(current - threads.data()) % 32); }

void sync_block(const char* file, int line) { suspend(State::kAtBlock, file, line); }

std::uint64_t sync_warp(WarpOperation operation, unsigned mask, std::uint64_t value,
                        int source_lane, const char* file, int line) {
  current->operation = operation;
  current->mask = mask;
  current->value = value;
  current->source_lane = source_lane;
  suspend(State::kAtWarp, file, line);
  return current->result;
}

}  // namespace cuda_emulation

// ---- The interface of the tests ----------------------------------------------------------------

// 0: warps and lanes run in their order, 1: in reverse, 2: shuffled after every block barrier.
EMULATION_API void emulation_set_order(int mode, unsigned seed) {
  cuda_emulation::order_mode = mode;
  cuda_emulation::generator.seed(seed);
}
