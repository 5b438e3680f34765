// Memory of one array that is kept for the next call of the same thread.
#ifndef SNIPER_NATIVE_COMMON_SCRATCH_H_
#define SNIPER_NATIVE_COMMON_SCRATCH_H_

#include <cstddef>
#include <cstdint>
#include <memory>

namespace sniper {

// Fresh pages would cost as much as light work on them. 64-byte aligned: an AVX-512 load must not
// cross two cache lines. The content is that of an earlier call, or none.
class KeptArray {
 public:
  template <class T>
  T* take(std::int64_t count) {
    constexpr std::size_t kAlign = 64;
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T) + kAlign;
    if (bytes_ < bytes) {
      memory_.reset();  // first, so that both are never there at once
      bytes_ = 0;
      memory_.reset(new unsigned char[bytes]);
      bytes_ = bytes;
    }
    const std::size_t address = reinterpret_cast<std::size_t>(memory_.get());
    return reinterpret_cast<T*>((address + kAlign - 1) / kAlign * kAlign);
  }

 private:
  std::unique_ptr<unsigned char[]> memory_;
  std::size_t bytes_ = 0;
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_SCRATCH_H_
