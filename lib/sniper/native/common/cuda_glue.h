// The GPU half of the MXNet glue: scratch memory, stream, errors.
#ifndef SNIPER_NATIVE_COMMON_CUDA_GLUE_H_
#define SNIPER_NATIVE_COMMON_CUDA_GLUE_H_

#include <cstddef>
#include <vector>

#include "common/cuda_library.h"
#include "common/glue.h"

namespace sniper {

// Makes the device of `tensor` current. MXNet has done so, but libsniper_cuda.so holds a copy of
// the CUDA runtime of its own.
inline void select_gpu(const char* op, const mxnet::ext::MXTensor& tensor) {
  check_cuda(op, SNIPER_CUDA_FUNCTION(op, sniper_cuda_select)(tensor.ctx.dev_id));
}

// A launcher and its workspace as a function of parameters and pointers, so that an operator's glue
// passes it where the CPU function goes:
//     run(raw, inputs, outputs, multi_proposal_cpu);
//     run(raw, inputs, outputs,
//         SNIPER_GPU_CALL(kName, resource, outputs->at(0), sniper_multi_proposal_workspace,
//                         sniper_multi_proposal_forward));
template <class Measure, class Launcher>
struct GpuCall {
  const char* op;
  const mxnet::ext::OpResource* resource;
  Measure* measure;
  Launcher* launcher;

  template <class Params, class... Pointers>
  void operator()(const Params& params, Pointers... pointers) const {
    std::size_t bytes = 0;
    check_cuda(op, measure(&params, &bytes));
    const int scratch_bytes = cuda_scratch_bytes(op, bytes);
    void* scratch = scratch_bytes > 0 ? resource->alloc_gpu(scratch_bytes) : nullptr;
    check_cuda(op, launcher(&params, pointers..., scratch, resource->get_cuda_stream()));
  }
};

template <class Measure, class Launcher>
GpuCall<Measure, Launcher> gpu_call(const char* op, const mxnet::ext::OpResource& resource,
                                    const mxnet::ext::MXTensor& on_device, Measure* measure,
                                    Launcher* launcher) {
  select_gpu(op, on_device);
  return {op, &resource, measure, launcher};
}

#define SNIPER_GPU_CALL(op, resource, on_device, measure, launcher)            \
  sniper::gpu_call(op, resource, on_device, SNIPER_CUDA_FUNCTION(op, measure), \
                   SNIPER_CUDA_FUNCTION(op, launcher))

inline void zero_on_gpu(const char* op, mxnet::ext::MXTensor* tensor,
                        const mxnet::ext::OpResource& resource) {
  select_gpu(op, *tensor);
  const std::size_t bytes = static_cast<std::size_t>(tensor->size()) * sizeof(float);
  check_cuda(op, SNIPER_CUDA_FUNCTION(op, sniper_cuda_zero)(tensor->data<float>(), bytes,
                                                            resource.get_cuda_stream()));
}

// `zero_backward` of common/glue.h on the GPU; `kOp` is the operator's name.
template <const char* kOp>
mxnet::ext::MXReturnValue zero_backward_gpu(const RawAttrs&, std::vector<mxnet::ext::MXTensor>*,
                                            std::vector<mxnet::ext::MXTensor>* outputs,
                                            const mxnet::ext::OpResource& resource) {
  for (mxnet::ext::MXTensor& gradient : *outputs) zero_on_gpu(kOp, &gradient, resource);
  return mxnet::ext::MX_SUCCESS;
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_CUDA_GLUE_H_
