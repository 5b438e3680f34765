// What becomes of the positions of rows that soft-NMS removes.
#ifndef SNIPER_NATIVE_MULTI_SCALE_NMS_FALLEN_H_
#define SNIPER_NATIVE_MULTI_SCALE_NMS_FALLEN_H_

#include <algorithm>
#include <cstdint>

#include "common/macros.h"

namespace sniper {

// A row that fell below the least score; `slot` is where its caller keeps it.
struct Fallen {
  int32_t position, slot;
};

inline void sort_fallen(Fallen* fallen, int32_t count) {
  std::sort(fallen, fallen + count,
            [](const Fallen& a, const Fallen& b) { return a.position < b.position; });
}

// Puts the last of `left` rows in the place of every fallen one, by move(from, to), which are
// positions; a last row that has fallen too just goes.
template <class Move>
SNIPER_ALWAYS_INLINE void fill_gaps(Fallen* fallen, int32_t num_fallen, int32_t* left,
                                    const Move& move) {
  if (num_fallen > 1) sort_fallen(fallen, num_fallen);
  for (int32_t next = 0; next < num_fallen; ++next) {
    while (next < num_fallen && fallen[num_fallen - 1].position == *left - 1) {
      --*left;
      --num_fallen;
    }
    if (next == num_fallen) return;
    move(--*left, fallen[next].position);
  }
}

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_SCALE_NMS_FALLEN_H_
