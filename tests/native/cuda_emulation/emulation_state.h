// What the two halves of the emulation share: errors and the state of the running kernel.
#ifndef SNIPER_TESTS_EMULATION_STATE_H_
#define SNIPER_TESTS_EMULATION_STATE_H_

#include <csetjmp>

#include "cuda_emulation.h"

#define EMULATION_API extern "C" __attribute__((visibility("default")))

namespace cuda_emulation {

constexpr unsigned char kPoison = 0xCD;
constexpr std::size_t kPage = 4096;

extern cudaError_t last_error;
// Notes the first error; `sentence` says what happened.
void describe(cudaError_t error, const char* sentence);

extern bool in_kernel;  // threads of a kernel run
extern jmp_buf crash;   // where a launch goes on after an access to no memory at all

inline std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace cuda_emulation

#endif  // SNIPER_TESTS_EMULATION_STATE_H_
