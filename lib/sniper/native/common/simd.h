// Vectors of `kLanes` floats or integers, for loops that the compiler turns into SIMD code badly or
// not at all. kLanes is the width of a register (see per_isa of common/isa.h): GCC takes wider
// vectors apart, through memory, and spills. Comparisons stand in front of a `?` only: as a vector
// of its own a mask is made lane by lane for AVX-512.
#ifndef SNIPER_NATIVE_COMMON_SIMD_H_
#define SNIPER_NATIVE_COMMON_SIMD_H_

#include <cstdint>
#include <cstring>
#include <utility>

#include "common/macros.h"

namespace sniper {

// The types are unaligned, and may alias the floats and integers that they are read from.
template <int kLanes>
struct Simd {
  typedef float Floats __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
  typedef int32_t Ints __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));
  typedef uint32_t Bits __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

  static SNIPER_ALWAYS_INLINE Floats load(const float* from) {
    return *reinterpret_cast<const Floats*>(from);
  }
  static SNIPER_ALWAYS_INLINE Ints load(const int32_t* from) {
    return *reinterpret_cast<const Ints*>(from);
  }
  static SNIPER_ALWAYS_INLINE void store(float* to, Floats values) {
    *reinterpret_cast<Floats*>(to) = values;
  }
  // The same number in all lanes; -0 becomes 0.
  static SNIPER_ALWAYS_INLINE Floats all(float value) { return Floats{} + value; }
  static SNIPER_ALWAYS_INLINE Ints all(int32_t value) { return Ints{} + value; }
};

template <int kLanes>
struct FloatLanes {
  typedef typename Simd<kLanes>::Floats Type;
};

template <int kLanes>
struct IntLanes {
  typedef typename Simd<kLanes>::Ints Type;
};

// The lanes joined with `Join`, which is associative and commutative. `Vector` is FloatLanes or
// IntLanes. From half to half: shuffles across a wide vector are slow on some processors.
template <class Join, template <int> class Vector, int kLanes>
SNIPER_ALWAYS_INLINE auto reduce_lanes(typename Vector<kLanes>::Type vector) {
  if constexpr (kLanes > 4) {
    typename Vector<kLanes / 2>::Type low, high;
    std::memcpy(&low, &vector, sizeof(low));
    std::memcpy(&high, reinterpret_cast<const char*>(&vector) + sizeof(low), sizeof(high));
    return reduce_lanes<Join, Vector, kLanes / 2>(Join::join(low, high));
  } else {
    typedef typename Simd<4>::Ints Order;
    const auto pairs = Join::join(vector, __builtin_shuffle(vector, Order{2, 3, 0, 1}));
    return Join::join(pairs, __builtin_shuffle(pairs, Order{1, 0, 3, 2}))[0];
  }
}

// 1 << lane.
template <int kLanes, int... kLane>
SNIPER_ALWAYS_INLINE auto lane_bits(std::integer_sequence<int, kLane...>) {
  return typename Simd<kLanes>::Ints{(1 << kLane)...};
}

template <int kLanes>
SNIPER_ALWAYS_INLINE auto lane_bits() {
  return lane_bits<kLanes>(std::make_integer_sequence<int, kLanes>());
}

struct LargerOf {
  template <class Vector>
  static SNIPER_ALWAYS_INLINE Vector join(Vector a, Vector b) {
    return a > b ? a : b;
  }
};

struct SmallerOf {
  template <class Vector>
  static SNIPER_ALWAYS_INLINE Vector join(Vector a, Vector b) {
    return a < b ? a : b;
  }
};

struct BitsOf {
  template <class Vector>
  static SNIPER_ALWAYS_INLINE Vector join(Vector a, Vector b) {
    return a | b;
  }
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_SIMD_H_
