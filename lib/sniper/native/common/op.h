// What the operators' MXNet glue shares, so that an operator's own is its attributes, its shapes
// and its call. A minimal operator: scale/scale.h declares the arithmetic,
//
//   struct ScaleParams {
//     std::int64_t size;
//     float factor;
//   };
//   void scale_cpu(const ScaleParams& params, const float* data, float* output);
//
// scale/scale_cpu.cc holds its loop, and scale/scale_mxnet.cc is
//
//   #include "common/op.h"
//   #include "scale/scale.h"
//
//   namespace {
//
//   struct Scale : sniper::Operator {
//     static constexpr char kName[] = "Scale";  // mx.nd.Scale, mx.sym.Scale
//     static constexpr std::array kInputs = {"data"};
//     static constexpr std::size_t kOutputs = 1;
//     static constexpr auto kForward = sniper::cpu_kernel(sniper::scale_cpu);
//
//     float factor;
//
//     explicit Scale(sniper::Attrs& attrs) : factor(attrs.get_float("factor", 1.0f, {0, 100})) {}
//
//     sniper::Shapes output_shapes(sniper::InputShapes& in) const {
//       in.match("data", {"rows", 4});
//       return {{in["rows"], 4}};
//     }
//
//     template <class Call>
//     void forward(const Call& call) const {
//       call(sniper::ScaleParams{call.output_size(0), factor});
//     }
//   };
//
//   [[maybe_unused]] const bool registered = sniper::register_operator<Scale>();
//
//   }  // namespace
//
// An operator whose sources are in a folder of their own is built without further ado. With CUDA
// launchers, kForward is SNIPER_KERNELS(...). Without a kBackward and a `backward` like the forward
// ones, the gradient is zero. Tensors are float32 and dense.
#ifndef SNIPER_NATIVE_COMMON_OP_H_
#define SNIPER_NATIVE_COMMON_OP_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/attrs.h"
#include "common/cuda_library.h"
#include "common/input_shapes.h"
#include "mxnet/lib_api.h"

namespace sniper {

// ---- Kernels -----------------------------------------------------------------------------------

// The functions that do an operator's work, with the same arguments: parameters, then pointers.
// The CUDA ones are found by name when they are first called, see common/cuda_library.h.
template <class Cpu, class MeasureFunction, class LauncherFunction>
struct Kernels {
  using Measure = MeasureFunction;
  using Launcher = LauncherFunction;
  static constexpr bool kHasCuda = !std::is_void_v<Launcher>;

  Cpu cpu;
  const char* measure;   // writes how much scratch memory a call needs
  const char* launcher;  // takes that memory and the stream behind the pointers
};

template <class Cpu>
constexpr Kernels<Cpu, void, void> cpu_kernel(Cpu cpu) {
  return {cpu, nullptr, nullptr};
}

template <class Measure, class Launcher, class Cpu>
constexpr Kernels<Cpu, Measure, Launcher> make_kernels(Cpu cpu, const char* measure,
                                                       const char* launcher) {
  return {cpu, measure, launcher};
}

#define SNIPER_KERNELS(cpu, measure, launcher) \
  sniper::make_kernels<decltype(&measure), decltype(&launcher)>(cpu, #measure, #launcher)

// ---- Calls -------------------------------------------------------------------------------------

// One call: the tensors as MXNet hands them over, and the kernel of their device. Forward: the
// inputs and the outputs. Backward: the gradients of the outputs, the inputs and the outputs; then
// the gradients of the inputs.
template <class Op, class Kernels, bool kOnGpu>
class Call {
 public:
  using Tensors = std::vector<mxnet::ext::MXTensor>;

  Call(const Kernels& kernels, Tensors* inputs, Tensors* outputs,
       const mxnet::ext::OpResource& resource)
      : kernels_(kernels), inputs_(*inputs), outputs_(*outputs), resource_(resource) {
    // MXNet has made the device current, but libsniper_cuda.so has a copy of the CUDA runtime.
    if constexpr (kOnGpu) {
      check_cuda(Op::kName,
                 SNIPER_CUDA_FUNCTION(Op::kName, sniper_cuda_select)(outputs_.at(0).ctx.dev_id));
    }
  }

  std::int64_t size(std::size_t input, std::size_t axis) const {
    return inputs_.at(input).shape.at(axis);
  }
  // Null when the last input is not given.
  float* input(std::size_t i) const {
    return i < inputs_.size() ? inputs_[i].template data<float>() : nullptr;
  }
  // Null when the last output is not asked for.
  float* output(std::size_t i) const {
    return i < outputs_.size() ? outputs_[i].template data<float>() : nullptr;
  }
  std::int64_t output_size(std::size_t i) const { return outputs_.at(i).size(); }

  // The kernel with all inputs and outputs of a forward call.
  template <class Params>
  void operator()(const Params& params) const {
    with_all(params, std::make_index_sequence<Op::kInputs.size()>(),
             std::make_index_sequence<Op::kOutputs>());
  }

  // The kernel with these pointers.
  template <class Params, class... Pointers>
  void launch(const Params& params, Pointers... pointers) const {
    if constexpr (kOnGpu) {
      std::size_t bytes = 0;
      check_cuda(Op::kName, function<typename Kernels::Measure>(kernels_.measure)(&params, &bytes));
      const int scratch_bytes = cuda_scratch_bytes(Op::kName, bytes);
      void* scratch = scratch_bytes > 0 ? resource_.alloc_gpu(scratch_bytes) : nullptr;
      check_cuda(Op::kName, function<typename Kernels::Launcher>(kernels_.launcher)(
                                &params, pointers..., scratch, resource_.get_cuda_stream()));
    } else {
      kernels_.cpu(params, pointers...);
    }
  }

  void zero_output(std::size_t i) const {
    const std::size_t bytes = static_cast<std::size_t>(output_size(i)) * sizeof(float);
    if constexpr (kOnGpu) {
      check_cuda(Op::kName, SNIPER_CUDA_FUNCTION(Op::kName, sniper_cuda_zero)(
                                output(i), bytes, resource_.get_cuda_stream()));
    } else {
      std::memset(output(i), 0, bytes);
    }
  }

 private:
  template <class Function>
  static Function function(const char* name) {
    return reinterpret_cast<Function>(cuda_symbol(Op::kName, name));
  }

  template <class Params, std::size_t... kIn, std::size_t... kOut>
  void with_all(const Params& params, std::index_sequence<kIn...>,
                std::index_sequence<kOut...>) const {
    launch(params, input(kIn)..., output(kOut)...);
  }

  const Kernels& kernels_;
  Tensors& inputs_;
  Tensors& outputs_;
  const mxnet::ext::OpResource& resource_;
};

// ---- Registration ------------------------------------------------------------------------------

// What an operator need not say.
struct Operator {
  static constexpr std::nullptr_t kBackward = nullptr;  // the gradient is zero

  // False: this node does without it.
  bool has_last_input() const { return true; }
  bool has_last_output() const { return true; }
};

// The functions that MXNet calls.
template <class Op>
class Glue {
 public:
  using Tensors = std::vector<mxnet::ext::MXTensor>;

  static mxnet::ext::MXReturnValue parse_attrs(const RawAttrs& raw, int* num_in, int* num_out) {
    return guarded([&] {
      const Op op = parse(raw);
      *num_in = static_cast<int>(Op::kInputs.size()) - (op.has_last_input() ? 0 : 1);
      *num_out = static_cast<int>(Op::kOutputs) - (op.has_last_output() ? 0 : 1);
    });
  }

  // Unknown types become float32, others are refused: float16 would be read as float32.
  static mxnet::ext::MXReturnValue infer_type(const RawAttrs&, std::vector<int>* in,
                                              std::vector<int>* out) {
    return guarded([&] {
      for (std::size_t i = 0; i < in->size(); ++i) {
        int& type = in->at(i);
        if (type == -1) type = mxnet::ext::kFloat32;
        if (type == mxnet::ext::kFloat32) continue;
        throw std::runtime_error(std::string(Op::kName) + ": input '" + Op::kInputs.at(i) +
                                 "' has the type " + type_name(type) +
                                 ", expected float32: cast it in front of the operator.");
      }
      for (int& type : *out) type = mxnet::ext::kFloat32;
    });
  }

  static mxnet::ext::MXReturnValue infer_shape(const RawAttrs& raw, Shapes* in, Shapes* out) {
    return guarded([&] {
      InputShapes shapes(Op::kName, Op::kInputs.data(), *in);
      *out = parse(raw).output_shapes(shapes);
    });
  }

  template <bool kOnGpu>
  static mxnet::ext::MXReturnValue forward(const RawAttrs& raw, Tensors* inputs, Tensors* outputs,
                                           const mxnet::ext::OpResource& resource) {
    return guarded(
        [&] { parse(raw).forward(call<kOnGpu>(Op::kForward, inputs, outputs, resource)); });
  }

  // MXNet refuses to bind when none is registered.
  template <bool kOnGpu>
  static mxnet::ext::MXReturnValue backward(const RawAttrs& raw, Tensors* inputs, Tensors* outputs,
                                            const mxnet::ext::OpResource& resource) {
    return guarded([&] {
      if constexpr (std::is_null_pointer_v<decltype(Op::kBackward)>) {
        const auto none = call<kOnGpu>(Op::kForward, inputs, outputs, resource);
        for (std::size_t i = 0; i < outputs->size(); ++i) none.zero_output(i);
      } else {
        parse(raw).backward(call<kOnGpu>(Op::kBackward, inputs, outputs, resource));
      }
    });
  }

 private:
  template <bool kOnGpu, class Kernels>
  static Call<Op, Kernels, kOnGpu> call(const Kernels& kernels, Tensors* inputs, Tensors* outputs,
                                        const mxnet::ext::OpResource& resource) {
    return {kernels, inputs, outputs, resource};
  }

  static Op parse(const RawAttrs& raw) {
    Attrs attrs(Op::kName, raw);
    Op op(attrs);
    attrs.refuse_unread();
    return op;
  }

  // Runs `body`. An exception passes through on purpose: MXNet turns it into an MXNetError with
  // just its text, while MX_ERROR_MSG would list every earlier failure of the process again (and
  // its store is not thread-safe).
  template <class Body>
  static mxnet::ext::MXReturnValue guarded(Body body) {
    try {
      body();
    } catch (const std::bad_alloc&) {  // its own text says nothing
      throw std::runtime_error(std::string(Op::kName) +
                               ": there is not enough memory for inputs of this size.");
    }
    return mxnet::ext::MX_SUCCESS;
  }

  static std::string type_name(int type) {
    constexpr std::array kNames = {"float32", "float64", "float16", "uint8",
                                   "int32",   "int8",    "int64",   "bool"};
    const bool known = type >= 0 && type < static_cast<int>(kNames.size());
    return known ? kNames[static_cast<std::size_t>(type)] : "number " + std::to_string(type);
  }
};

// Makes the operator known to MXNet; returns true.
template <class Op>
bool register_operator() {
  auto& entry = mxnet::ext::Registry<mxnet::ext::CustomOp>::get()->add(Op::kName);
  entry.setParseAttrs(Glue<Op>::parse_attrs)
      .setInferType(Glue<Op>::infer_type)
      .setInferShape(Glue<Op>::infer_shape)
      .setForward(Glue<Op>::template forward<false>, "cpu")
      .setBackward(Glue<Op>::template backward<false>, "cpu");
  if constexpr (std::remove_const_t<decltype(Op::kForward)>::kHasCuda) {
    entry.setForward(Glue<Op>::template forward<true>, "gpu")
        .setBackward(Glue<Op>::template backward<true>, "gpu");
  }
  return true;
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_OP_H_
