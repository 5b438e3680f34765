// An order of boxes in which neighbours in the image are neighbours in memory.
#ifndef SNIPER_NATIVE_MULTI_SCALE_NMS_SPATIAL_ORDER_H_
#define SNIPER_NATIVE_MULTI_SCALE_NMS_SPATIAL_ORDER_H_

#include <cstdint>
#include <vector>

#include "multi_scale_nms/radix_sort.h"

namespace sniper {

// Sort-tile-recursive order (Leutenegger, Lopez and Edgington 1997): vertical strips of boxes with
// neighbouring centres, each from top to bottom, so that runs of `run` boxes are about square.
class SpatialOrder {
 public:
  // Writes the order of `dets` (count, 5: x1, y1, x2, y2, score), whose corners are finite.
  void sort(const float* dets, int32_t count, int run, int32_t* order);

 private:
  std::vector<KeyedRow> items_, sorted_;
  std::vector<uint8_t> strip_;  // [row]
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_SCALE_NMS_SPATIAL_ORDER_H_
