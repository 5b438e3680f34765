// Checks that every lib_api operator needs: shapes, types, errors, the zero gradient.
#ifndef SNIPER_NATIVE_COMMON_GLUE_H_
#define SNIPER_NATIVE_COMMON_GLUE_H_

#include <cstring>
#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "mxnet/lib_api.h"

namespace sniper {

using RawAttrs = std::unordered_map<std::string, std::string>;
using Shape = std::vector<unsigned int>;

// Runs `body`. An exception passes through on purpose: MXNet turns it into an MXNetError with just
// its text, while MX_ERROR_MSG would list every earlier failure of the process again (and its
// store is not thread-safe).
template <class Body>
mxnet::ext::MXReturnValue guarded(Body body) {
  try {
    body();
  } catch (const std::bad_alloc&) {  // its own text says nothing
    throw std::runtime_error(
        "SNIPER operator: there is not enough memory for inputs of this size.");
  }
  return mxnet::ext::MX_SUCCESS;
}

inline std::string shape_text(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i ? ", " : "") + std::to_string(shape[i]);
  }
  return text + (shape.size() == 1 ? ",)" : ")");
}

// Throws unless the shape is fully known and has `rank` dimensions. MXNet passes an unknown shape
// as empty and an unknown dimension as 0 or 2^32 - 1, and would "infer" on with them.
inline void require_rank(const char* op, const char* input, const Shape& shape, std::size_t rank) {
  const std::string where = std::string(op) + ": input '" + input + "' ";
  if (shape.empty()) {
    throw std::runtime_error(where + "has an unknown shape, give it one when binding.");
  }
  for (const unsigned int size : shape) {
    if (size == 0 || size == 0xFFFFFFFFu) {
      throw std::runtime_error(where + "has an unknown or empty dimension in its shape " +
                               shape_text(shape) + ".");
    }
  }
  if (shape.size() != rank) {
    throw std::runtime_error(where + "has shape " + shape_text(shape) + ", expected " +
                             std::to_string(rank) + " dimensions.");
  }
}

// Throws unless `holds`; `expected` describes the right shape.
inline void require_shape(bool holds, const char* op, const char* input, const Shape& shape,
                          const std::string& expected) {
  if (holds) return;
  throw std::runtime_error(std::string(op) + ": input '" + input + "' has shape " +
                           shape_text(shape) + ", expected " + expected + ".");
}

// Sets every unknown type to float32 and refuses the others (float16 would be read as float32).
inline void require_float32(const char* op, std::initializer_list<const char*> inputs,
                            std::vector<int>* in_types, std::vector<int>* out_types) {
  std::size_t i = 0;
  for (const char* name : inputs) {
    if (i >= in_types->size()) break;
    int& type = (*in_types)[i++];
    if (type == -1) type = mxnet::ext::kFloat32;
    if (type != mxnet::ext::kFloat32) {
      throw std::runtime_error(std::string(op) + ": input '" + name + "' has type code " +
                               std::to_string(type) + (type == 2 ? " (float16)" : "") +
                               ", expected float32: cast it in front of the operator.");
    }
  }
  for (int& type : *out_types) type = mxnet::ext::kFloat32;
}

// Backward of an operator without gradients: MXNet refuses to bind when none is registered.
inline mxnet::ext::MXReturnValue zero_backward(const RawAttrs&, std::vector<mxnet::ext::MXTensor>*,
                                               std::vector<mxnet::ext::MXTensor>* outputs,
                                               const mxnet::ext::OpResource&) {
  for (mxnet::ext::MXTensor& gradient : *outputs) {
    std::memset(gradient.data<float>(), 0,
                static_cast<std::size_t>(gradient.size()) * sizeof(float));
  }
  return mxnet::ext::MX_SUCCESS;
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_GLUE_H_
