// Entry point of libsniper_ops.so, and MXNet's own half of the extension interface.
#include "common/isa.h"
#include "lib_api.cc"  // NOLINT: MXNet ships it as a source; it must be part of every library

namespace {

// The extension interface changed between minor versions; this code is written against 1.9.
constexpr int kOldest = 10900;
constexpr int kNewest = 10999;

}  // namespace

mxnet::ext::MXReturnValue initialize(int version) {
  if (version < kOldest || version > kNewest) {
    MX_ERROR_MSG << "The SNIPER operators need MXNet 1.9, this is version code " << version << ".";
    return mxnet::ext::MX_FAIL;
  }
  if (sniper::isa_problem() != nullptr) {
    MX_ERROR_MSG << sniper::isa_problem();
    return mxnet::ext::MX_FAIL;
  }
  return mxnet::ext::MX_SUCCESS;
}
