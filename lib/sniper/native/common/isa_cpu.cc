#include <cstdlib>
#include <cstring>
#include <string>

#include "common/isa.h"

namespace sniper {
namespace {

constexpr char kVariable[] = "SNIPER_MAX_ISA";
constexpr Isa kAll[] = {Isa::kAvx512, Isa::kAvx2, Isa::kBaseline};

const char* name_of(Isa isa) {
  if (isa == Isa::kAvx512) return "avx512";
  return isa == Isa::kAvx2 ? "avx2" : "baseline";
}

Isa best_of_processor() {
#ifdef SNIPER_HAS_ISA_COPIES
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) return Isa::kAvx512;
  if (__builtin_cpu_supports("avx2")) return Isa::kAvx2;
#endif
  return Isa::kBaseline;
}

struct Choice {
  Isa isa = best_of_processor();
  std::string problem;

  Choice() {
    const char* limit = std::getenv(kVariable);
    if (limit == nullptr || *limit == '\0') return;
    for (const Isa candidate : kAll) {
      if (std::strcmp(limit, name_of(candidate)) != 0) continue;
      if (candidate < isa) isa = candidate;
      return;
    }
    problem = std::string("The environment variable ") + kVariable + " is '" + limit +
              "', expected avx512, avx2 or baseline, or nothing for the best.";
  }
};

const Choice& choice() {
  static const Choice made;
  return made;
}

}  // namespace

const Isa kIsa = choice().isa;

const char* isa_name() { return name_of(kIsa); }

const char* isa_problem() { return choice().problem.empty() ? nullptr : choice().problem.c_str(); }

}  // namespace sniper
