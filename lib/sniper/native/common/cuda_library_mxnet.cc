#include <dlfcn.h>
#include <limits.h>
#include <sys/stat.h>

#include <stdexcept>
#include <string>

#include "common/cuda_library.h"

namespace sniper {
namespace {

constexpr char kFile[] = "libsniper_cuda.so";

// The folder of the library that holds this function, with a slash at its end.
std::string own_folder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr) {
    return "";
  }
  const std::string path = info.dli_fname;
  return path.substr(0, path.rfind('/') + 1);
}

// An opened library, or why there is none. It stays open until the process ends.
struct Library {
  void* handle = nullptr;
  std::string problem;

  Library() {
    const std::string path = own_folder() + kFile;
    struct stat entry;
    if (stat(path.c_str(), &entry) != 0) {
      problem = "the CUDA kernels are missing (" + path +
                "): build them with `bash scripts/compile.sh --cuda`, or run on the CPU";
      return;
    }
    handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      problem = std::string("the CUDA kernels do not load (") + dlerror() +
                "): rebuild them with `bash scripts/compile.sh --cuda --force`";
    }
  }
};

[[noreturn]] void fail(const char* op, const std::string& problem) {
  throw std::runtime_error(std::string(op) + ": " + problem + ".");
}

}  // namespace

void* cuda_symbol(const char* op, const char* name) {
  static const Library library;
  if (library.handle == nullptr) fail(op, library.problem);
  void* const symbol = dlsym(library.handle, name);
  if (symbol == nullptr) {
    fail(op, std::string(kFile) + " has no function " + name +
                 ": rebuild it with `bash scripts/compile.sh --cuda --force`");
  }
  return symbol;
}

void check_cuda(const char* op, int status) {
  if (status == 0) return;
  fail(op, "CUDA error " + std::to_string(status) + " (" +
               SNIPER_CUDA_FUNCTION(op, sniper_cuda_error_text)(status) + ")");
}

int cuda_scratch_bytes(const char* op, std::size_t bytes) {
  if (bytes > INT_MAX) {
    fail(op, "this call needs " + std::to_string(bytes) +
                 " bytes of GPU scratch memory, and MXNet hands out at most " +
                 std::to_string(INT_MAX) + ": use fewer images per batch or smaller maps");
  }
  return static_cast<int>(bytes);
}

}  // namespace sniper
