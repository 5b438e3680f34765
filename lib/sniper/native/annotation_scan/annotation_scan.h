// The annotations of a COCO file from its text: those that are plain, up to the first that is not.
#pragma once

#include <cstdint>
#include <vector>

namespace sniper {

// Bits of `AnnotationScan::rows`; sniper/data/coco_columns.py has the same.
constexpr uint8_t kCrowdAnnotation = 1;
constexpr uint8_t kIgnoredAnnotation = 2;
constexpr uint8_t kNoArea = 4;

struct AnnotationScan {
  int64_t end = 0;             // the place behind the last one that was taken and its comma
  std::vector<uint8_t> rows;   // kAnnotationRowBytes each
  std::vector<int32_t> rings;  // bytes of float32 numbers of each polygon
  std::vector<float> numbers;  // of all polygons
};

// double x, y, width, height, area; int64 id, image, category; uint8 flags; int32 polygons.
constexpr int kAnnotationRowBytes = 5 * 8 + 3 * 8 + 1 + 4;

// Takes elements of a JSON list that have a comma and the start of another one behind them.
//
// Plain is an object in strict JSON with id, image_id and category_id as whole numbers of at most
// 18 digits, bbox as four finite numbers, and, if they are there, area as one, iscrowd and ignore
// as 0, 1, false, true or null; each key once. With `with_masks`, what is neither a crowd region
// nor ignored also has polygons of three corners or more, or none. What is not plain is left to a
// reader that knows all forms and says what is broken.
//
// text: ASCII; other characters may stand in for those that are none.
AnnotationScan scan_annotations_cpu(const char* text, int64_t size, int64_t start, bool with_masks);

}  // namespace sniper
