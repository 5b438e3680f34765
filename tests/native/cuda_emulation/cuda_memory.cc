// Guarded memory and errors of the emulation.
#include <signal.h>
#include <sys/mman.h>

#include <cstdio>

#include "emulation_state.h"

namespace cuda_emulation {

cudaError_t last_error = cudaSuccess;
bool in_kernel = false;
jmp_buf crash;

namespace {

constexpr std::size_t kGuard = 16384 * kPage;  // inaccessible, on both sides of a buffer

char message[1024] = "";  // plain memory: a signal handler writes it

enum class Side { kDevice, kHost };

// [map, map + total): guard, payload that ends at the end of its last page, guard.
struct Region {
  unsigned char *map, *pages, *payload;
  std::size_t total, page_bytes, bytes;
  Side side;
};

std::vector<Region> regions;
int device_depth = 0;  // > 0: kernels run, device memory is accessible and host memory is not

void protect(Side side, int protection) {
  for (const Region& region : regions) {
    if (region.side == side) mprotect(region.pages, region.page_bytes, protection);
  }
}

struct sigaction previous_action;

// Notes an access to guarded memory, opens the page and lets the program go on. An access to no
// memory at all ends the launch; outside kernels it is not ours.
void on_fault(int signal, siginfo_t* info, void* context) {
  unsigned char* address = static_cast<unsigned char*>(info->si_addr);
  for (const Region& region : regions) {
    if (address < region.map || address >= region.map + region.total) continue;
    char sentence[256];
    const bool inside = address >= region.pages && address < region.pages + region.page_bytes;
    if (inside) {
      std::snprintf(sentence, sizeof(sentence), "%s",
                    region.side == Side::kDevice ? "the host code touches device memory"
                                                 : "a kernel touches host memory");
    } else {
      std::snprintf(sentence, sizeof(sentence), "access at byte %lld of a buffer of %zu bytes",
                    static_cast<long long>(address - region.payload), region.bytes);
    }
    describe(cudaErrorIllegalAddress, sentence);
    const std::uintptr_t page = reinterpret_cast<std::uintptr_t>(address) / kPage * kPage;
    mprotect(reinterpret_cast<void*>(page), kPage, PROT_READ | PROT_WRITE);
    return;
  }
  if (in_kernel) {
    describe(cudaErrorIllegalAddress, "a kernel accesses an address far from every buffer");
    _longjmp(crash, 1);
  }
  // Another library of this kind, or the program's own handler.
  if (previous_action.sa_flags & SA_SIGINFO) {
    previous_action.sa_sigaction(signal, info, context);
  } else {
    sigaction(SIGSEGV, &previous_action, nullptr);  // the access faults again
  }
}

void install_handler() {
  static bool installed = false;
  if (installed) return;
  installed = true;
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &action, &previous_action);
}

}  // namespace

void describe(cudaError_t error, const char* sentence) {
  if (message[0] == '\0') std::snprintf(message, sizeof(message), "%s", sentence);
  if (last_error == cudaSuccess) last_error = error;
}

OnDevice::OnDevice() {
  if (device_depth++ > 0) return;
  protect(Side::kDevice, PROT_READ | PROT_WRITE);
  protect(Side::kHost, PROT_NONE);
}

OnDevice::~OnDevice() {
  if (--device_depth > 0) return;
  protect(Side::kDevice, PROT_NONE);
  protect(Side::kHost, PROT_READ | PROT_WRITE);
}

cudaError_t fail(cudaError_t error, const char* sentence) {
  describe(error, sentence);
  return error;
}

}  // namespace cuda_emulation

cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : cuda_emulation::fail(cudaErrorInvalidDevice, "only device 0");
}

cudaError_t cudaPeekAtLastError() { return cuda_emulation::last_error; }

cudaError_t cudaGetLastError() {
  const cudaError_t error = cuda_emulation::last_error;
  cuda_emulation::last_error = cudaSuccess;
  return error;
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "emulated CUDA error";
}

cudaError_t cudaMemsetAsync(void* target, int value, std::size_t bytes, cudaStream_t) {
  cuda_emulation::OnDevice guard;
  std::memset(target, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* target, const void* source, std::size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t) {
  if (kind != cudaMemcpyDeviceToDevice) {
    return cuda_emulation::fail(cudaErrorInvalidValue, "only device-to-device copies are allowed");
  }
  cuda_emulation::OnDevice guard;
  std::memmove(target, source, bytes);
  return cudaSuccess;
}

// ---- The interface of the tests ----------------------------------------------------------------

// What went wrong since the last call; empty when nothing did.
EMULATION_API void emulation_message(char* text, std::size_t size) {
  std::snprintf(text, size, "%s", cuda_emulation::message);
  cuda_emulation::message[0] = '\0';
  cuda_emulation::last_error = cudaSuccess;
}

// Memory between inaccessible pages, filled with `poison`, aligned to `alignment` (a power of two
// up to 4096). `host` memory is out of reach of the kernels, other memory out of reach of the host.
EMULATION_API void* emulation_malloc(std::size_t bytes, std::size_t alignment, int poison,
                                     int host) {
  using namespace cuda_emulation;
  install_handler();
  Region region;
  region.bytes = bytes;
  region.side = host ? Side::kHost : Side::kDevice;
  region.page_bytes = round_up(std::max<std::size_t>(bytes, 1), kPage);
  region.total = region.page_bytes + 2 * kGuard;
  void* map = mmap(nullptr, region.total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) return nullptr;
  region.map = static_cast<unsigned char*>(map);
  region.pages = region.map + kGuard;
  region.payload = region.pages + region.page_bytes - round_up(bytes, alignment);
  mprotect(region.pages, region.page_bytes, PROT_READ | PROT_WRITE);
  std::memset(region.pages, kPoison, region.page_bytes);
  std::memset(region.payload, poison, bytes);
  if (region.side == Side::kDevice) mprotect(region.pages, region.page_bytes, PROT_NONE);
  regions.push_back(region);
  return region.payload;
}

// Releases the memory; 0 when the bytes around it are intact.
EMULATION_API int emulation_free(void* payload) {
  using namespace cuda_emulation;
  const auto region = std::find_if(regions.begin(), regions.end(),
                                   [&](const Region& known) { return known.payload == payload; });
  if (region == regions.end()) return -1;
  mprotect(region->pages, region->page_bytes, PROT_READ);
  const auto intact = [](unsigned char value) { return value == kPoison; };
  const bool fine =
      std::all_of(region->pages, region->payload, intact) &&
      std::all_of(region->payload + region->bytes, region->pages + region->page_bytes, intact);
  munmap(region->map, region->total);
  regions.erase(region);
  return fine ? 0 : 1;
}

EMULATION_API void emulation_copy(void* target, const void* source, std::size_t bytes) {
  using namespace cuda_emulation;
  protect(Side::kDevice, PROT_READ | PROT_WRITE);
  std::memcpy(target, source, bytes);
  protect(Side::kDevice, PROT_NONE);
}
