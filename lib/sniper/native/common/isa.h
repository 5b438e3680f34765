// Copies of hot loops for several instruction sets, and the choice among them.
//
//     SNIPER_ALWAYS_INLINE void scale(const float* data, int count, float* out) { ... }
//     ...
//     per_isa<scale>(data, count, out);
//
// calls the copy of `scale` for the best instruction set that the processor has and SNIPER_MAX_ISA
// allows. The binaries stay portable, and contraction is off, so all copies give the same bits.
//
//     per_isa<scale<4>, scale<8>, scale<16>>(data, count, out);
//
// does so with a body for each width of the registers (SSE, AVX2, AVX-512), see common/simd.h.
#ifndef SNIPER_NATIVE_COMMON_ISA_H_
#define SNIPER_NATIVE_COMMON_ISA_H_

#include "common/macros.h"

#if defined(__GNUC__) && defined(__x86_64__) && !defined(__CUDACC__)
#define SNIPER_HAS_ISA_COPIES
#endif

namespace sniper {

enum class Isa { kBaseline, kAvx2, kAvx512 };

// In force; settled when the library is loaded.
extern const Isa kIsa;

// The same as a word: "avx512", "avx2" or "baseline".
const char* isa_name();

// What is wrong with the environment variable SNIPER_MAX_ISA, as a sentence; null when nothing is.
// Who loads the library asks, and refuses: an exception here would end the process.
const char* isa_problem();

// See `per_isa`.
template <auto kBaseline, auto kAvx2, auto kAvx512>
struct PerIsa;

template <class Result, class... Args, Result (*kBaseline)(Args...), Result (*kAvx2)(Args...),
          Result (*kAvx512)(Args...)>
struct PerIsa<kBaseline, kAvx2, kAvx512> {
  Result operator()(Args... args) const {
#ifdef SNIPER_HAS_ISA_COPIES
    if (kIsa == Isa::kAvx512) return avx512(args...);
    if (kIsa == Isa::kAvx2) return avx2(args...);
#endif
    return baseline(args...);
  }

 private:
  // Not inlined: what the compiler moves out of its loop would burden the other copies' callers.
  __attribute__((noinline)) static Result baseline(Args... args) { return kBaseline(args...); }
#ifdef SNIPER_HAS_ISA_COPIES
  __attribute__((target("avx512f"))) static Result avx512(Args... args) { return kAvx512(args...); }
  __attribute__((target("avx2"))) static Result avx2(Args... args) { return kAvx2(args...); }
#endif
};

// A body is a SNIPER_ALWAYS_INLINE function, so that it becomes part of the copy. What it calls
// must be inlined too: OpenMP regions and lambdas are not, and would run as in the baseline.
template <auto kBaseline, auto kAvx2 = kBaseline, auto kAvx512 = kAvx2>
inline constexpr PerIsa<kBaseline, kAvx2, kAvx512> per_isa{};

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_ISA_H_
