// Calls an operator of libsniper_ops.so as MXNet does, on either device, and returns its error as
// text. So the GPU half of the glue runs without MXNet's GPU build.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "mxnet/lib_api.h"

namespace {

using mxnet::ext::fcomp_t;

struct Library {
  decltype(&_opRegSize) size;
  decltype(&_opRegGet) get;
  decltype(&_opCallFCompute) compute;
};

template <class F>
void find(void* handle, const char* name, F* function) {
  *function = reinterpret_cast<F>(dlsym(handle, name));
}

// The function of `op` for one device; null when it has none.
fcomp_t find_function(const Library& library, const std::string& op, bool backward,
                      const std::string& device) {
  for (int i = 0; i < library.size(); ++i) {
    const char* name;
    const char **forward_devices, **backward_devices, **state_devices;
    fcomp_t *forward, *backwards;
    mxnet::ext::createOpState_t* state;
    int subgraph, num_forward, num_backward, num_state;
    mxnet::ext::parseAttrs_t parse;
    mxnet::ext::inferType_t type;
    mxnet::ext::inferSType_t stype;
    mxnet::ext::inferShape_t shape;
    mxnet::ext::mutateInputs_t mutate;
    library.get(i, &name, &subgraph, &forward_devices, &forward, &num_forward, &backward_devices,
                &backwards, &num_backward, &state_devices, &state, &num_state, &parse, &type,
                &stype, &shape, &mutate);
    if (op != name) continue;
    for (int k = 0; k < (backward ? num_backward : num_forward); ++k) {
      if (device == (backward ? backward_devices : forward_devices)[k]) {
        return (backward ? backwards : forward)[k];
      }
    }
  }
  return nullptr;
}

// Tensors of one side of the call, all float32 and dense.
struct Tensors {
  std::vector<int> types, storage, device_ids;
  std::vector<size_t> versions;
  std::vector<const char*> devices;
  std::vector<void*> nothing;
  std::vector<int64_t> no_shapes;

  Tensors(int count, const char* device)
      : types(count, mxnet::ext::kFloat32),
        storage(count, mxnet::ext::kDefaultStorage),
        device_ids(count, 0),
        versions(count, 0),
        devices(count, device),
        nothing(count, nullptr),
        no_shapes(count, 0) {}
};

}  // namespace

// 0: fine; otherwise `message` holds what the operator threw.
extern "C" __attribute__((visibility("default"))) int glue_shim(
    const char* path, const char* op, int backward, const char* device, int num_attrs,
    const char* const* keys, const char* const* values, int num_in, const int64_t** in_shapes,
    int* in_dims, void** in_data, int num_out, const int64_t** out_shapes, int* out_dims,
    void** out_data, mxnet::ext::xpu_malloc_t gpu_malloc, char* message, size_t message_size) {
  void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  std::string problem = handle ? "" : dlerror();
  if (handle) {
    Library library;
    find(handle, "_opRegSize", &library.size);
    find(handle, "_opRegGet", &library.get);
    find(handle, "_opCallFCompute", &library.compute);
    const fcomp_t function = find_function(library, op, backward != 0, device);
    Tensors in(num_in, device), out(num_out, device);
    try {
      if (function == nullptr) throw std::runtime_error("not registered for this device");
      library.compute(function, keys, values, num_attrs, in_shapes, in_dims, in_data,
                      in.types.data(), in.versions.data(), in.devices.data(), in.device_ids.data(),
                      num_in, out_shapes, out_dims, out_data, out.types.data(), out.versions.data(),
                      out.devices.data(), out.device_ids.data(), num_out, nullptr, nullptr,
                      gpu_malloc, nullptr, nullptr, nullptr, nullptr, in.storage.data(),
                      out.storage.data(), in.nothing.data(), out.nothing.data(), in.nothing.data(),
                      out.nothing.data(), in.no_shapes.data(), out.no_shapes.data(),
                      in.no_shapes.data(), out.no_shapes.data(), nullptr, nullptr);
    } catch (const std::exception& error) {
      problem = error.what();
    }
  }
  std::snprintf(message, message_size, "%s", problem.c_str());
  return problem.empty() ? 0 : 1;
}
