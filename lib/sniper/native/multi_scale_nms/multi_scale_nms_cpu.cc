// Grouping of detections by image and class, one thread per group, and the limit per image.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/greedy_nms.h"
#include "common/parallel.h"
#include "multi_scale_nms/multi_scale_nms.h"

namespace sniper {
namespace {

constexpr float kPadding = -1.0f;
constexpr int64_t kPrefetch = 16;  // rows ahead
constexpr std::size_t kRowBytes = kDetection * sizeof(float);

Box box_of(const float* det) { return {det[0], det[1], det[2], det[3]}; }

// The detections of one image and class: rows begin .. begin + count of the grouped order.
struct Group {
  int64_t begin, count;
  int32_t image, cls;
};

// Rows that are finite and inside the valid range of their level, in the order of the input.
std::vector<int64_t> valid_rows(const NmsRequest& request) {
  std::vector<int64_t> rows;
  rows.reserve(static_cast<std::size_t>(request.count));
  for (int64_t n = 0; n < request.count; ++n) {
    const int32_t level = request.levels[n];
    if (level < 0 || level >= request.num_levels) {
      throw std::invalid_argument("Multi-scale NMS: row " + std::to_string(n) + " has level " +
                                  std::to_string(level) + ", expected 0 to " +
                                  std::to_string(request.num_levels - 1) +
                                  " (one valid range per level).");
    }
    const float* det = request.dets + n * kDetection;
    if (!is_finite(box_of(det)) || !is_finite(det[4])) continue;
    const float* range = request.valid_ranges + 2 * static_cast<int64_t>(level);
    if (in_valid_range(box_of(det), range[0], range[1])) rows.push_back(n);
  }
  return rows;
}

// Unsigned numbers in the order of the images, then the classes.
std::uint64_t group_key(const NmsRequest& request, int64_t row) {
  constexpr std::uint32_t kSign = 0x80000000u;
  const std::uint32_t image = static_cast<std::uint32_t>(request.images[row]) ^ kSign;
  const std::uint32_t cls = static_cast<std::uint32_t>(request.classes[row]) ^ kSign;
  return static_cast<std::uint64_t>(image) << 32 | cls;
}

// Stable sort of `rows` by image, then class: a counting sort for each byte in which the keys
// differ.
void sort_by_group(const NmsRequest& request, std::vector<int64_t>* rows) {
  std::uint64_t differing = 0;
  for (const int64_t row : *rows) {
    differing |= group_key(request, row) ^ group_key(request, rows->front());
  }
  std::vector<int64_t> sorted(differing != 0 ? rows->size() : 0);
  for (int shift = 0; shift < 64; shift += 8) {
    if ((differing >> shift & 0xFFu) == 0) continue;
    const auto digit = [&request, shift](int64_t row) {
      return static_cast<std::size_t>(group_key(request, row) >> shift & 0xFFu);
    };
    std::size_t begins[256] = {};
    for (const int64_t row : *rows) ++begins[digit(row)];
    std::size_t sum = 0;
    for (std::size_t& begin : begins) sum += std::exchange(begin, sum);
    for (const int64_t row : *rows) sorted[begins[digit(row)]++] = row;
    rows->swap(sorted);
  }
}

// Sorts `rows` by image, then class, rows of one group in the order of the input; cuts the groups.
std::vector<Group> make_groups(const NmsRequest& request, std::vector<int64_t>* rows) {
  sort_by_group(request, rows);
  std::vector<Group> groups;
  for (std::size_t k = 0; k < rows->size(); ++k) {
    const std::size_t ahead = std::min(k + static_cast<std::size_t>(kPrefetch), rows->size() - 1);
    __builtin_prefetch(request.images + (*rows)[ahead]);
    __builtin_prefetch(request.classes + (*rows)[ahead]);
    const int64_t row = (*rows)[k];
    const int32_t image = request.images[row], cls = request.classes[row];
    if (groups.empty() || groups.back().image != image || groups.back().cls != cls) {
      groups.push_back({static_cast<int64_t>(k), 0, image, cls});
    }
    ++groups.back().count;
  }
  return groups;
}

// Copies `count` rows of the input, which lie far apart where there are many.
void gather(const NmsRequest& request, const int64_t* rows, int64_t count, float* dets) {
  for (int64_t k = 0; k < count; ++k) {
    const int64_t ahead = rows[std::min(k + kPrefetch, count - 1)];
    __builtin_prefetch(request.dets + ahead * kDetection);
    std::memcpy(dets + k * kDetection, request.dets + rows[k] * kDetection, kRowBytes);
  }
}

// Suppresses one group in place, and reorders `rows`, the input rows of its detections, along with
// them; returns the number that is left at the beginning of both.
int64_t suppress(const NmsRequest& request, float* dets, int64_t count, int64_t* rows) {
  const NmsSettings& settings = request.settings;
  const std::vector<int64_t> original_rows(rows, rows + count);
  if (settings.nms_threshold <= 0.0f) {
    const int64_t kept =
        soft_nms_cpu(dets, count, settings.sigma, settings.min_score, rows, request.max_per_image);
    for (int64_t k = 0; k < kept; ++k) rows[k] = original_rows[static_cast<std::size_t>(rows[k])];
    return kept;
  }
  const std::vector<float> original(dets, dets + count * kDetection);
  int64_t kept = 0;
  for (const int64_t row : hard_nms_cpu(original.data(), count, settings.nms_threshold, -1)) {
    rows[kept] = original_rows[static_cast<std::size_t>(row)];
    std::copy_n(original.data() + row * kDetection, kDetection, dets + kept++ * kDetection);
  }
  return kept;
}

// Score that a detection of the groups [first, last) must reach under the limit of one image.
float image_threshold(const std::vector<Group>& groups, std::size_t first, std::size_t last,
                      const float* dets, int64_t limit) {
  if (limit <= 0) return -std::numeric_limits<float>::infinity();
  std::vector<float> scores;
  for (std::size_t g = first; g < last; ++g) {
    for (int64_t k = 0; k < groups[g].count; ++k) {
      scores.push_back(dets[(groups[g].begin + k) * kDetection + 4]);
    }
  }
  if (static_cast<int64_t>(scores.size()) <= limit) return -std::numeric_limits<float>::infinity();
  const auto nth = scores.begin() + (limit - 1);
  std::nth_element(scores.begin(), nth, scores.end(), std::greater<float>());
  return *nth;
}

int32_t require_index(const char* name, float value) {
  const int32_t index = nms_index(value);
  if (index < 0) {
    throw std::runtime_error(std::string("MultiScaleNMS: input '") + name + "' holds " +
                             std::to_string(value) + ", expected integers from 0 to 16777216.");
  }
  return index;
}

}  // namespace

std::vector<int64_t> hard_nms_cpu(const float* dets, int64_t count, float threshold,
                                  int64_t max_output) {
  if (count > std::numeric_limits<std::uint32_t>::max()) {
    throw std::invalid_argument("NMS: got " + std::to_string(count) +
                                " rows, expected at most 4294967295.");
  }
  thread_local NmsScratch scratch;
  thread_local std::vector<float> scores;
  scores.resize(static_cast<std::size_t>(count));
  for (int64_t n = 0; n < count; ++n) {
    scores[static_cast<std::size_t>(n)] = dets[n * kDetection + 4];
  }
  const auto load = [dets](const std::uint32_t* indices, int size, NmsTile* tile) {
    for (int i = 0; i < size; ++i) {
      const Box box = box_of(dets + indices[i] * kDetection);
      tile->box[i] = box;
      tile->area[i] = area_inclusive(box);
      tile->usable[i] = is_finite(box);
    }
  };
  std::vector<int64_t> rows;
  const auto keep = [&rows](std::uint32_t row, const Box&) { rows.push_back(row); };
  const GreedyNms limits = {count, max_output < 0 ? count : max_output, threshold,
                            -std::numeric_limits<float>::infinity(), /*areas_with_one=*/true};
  greedy_nms(limits, scores.data(), count, load, keep, &scratch);
  return rows;
}

int64_t multi_scale_nms_cpu(const NmsRequest& request, float* out_dets, int32_t* out_classes,
                            int32_t* out_images, int64_t* out_rows) {
  std::vector<int64_t> rows = valid_rows(request);
  std::vector<Group> groups = make_groups(request, &rows);
  float* dets = out_dets;  // grouped first; then what is left moves to the front
  const int64_t num_groups = static_cast<int64_t>(groups.size());
  parallel_for(num_groups, [&](int64_t g) {
    Group& group = groups[static_cast<std::size_t>(g)];
    float* own = dets + group.begin * kDetection;
    gather(request, rows.data() + group.begin, group.count, own);
    group.count = suppress(request, own, group.count, rows.data() + group.begin);
  });
  int64_t written = 0;
  for (std::size_t first = 0; first < groups.size();) {
    std::size_t last = first;
    while (last < groups.size() && groups[last].image == groups[first].image) ++last;
    const float least = image_threshold(groups, first, last, dets, request.max_per_image);
    for (; first < last; ++first) {
      for (int64_t k = 0; k < groups[first].count; ++k) {
        const float* det = dets + (groups[first].begin + k) * kDetection;
        if (det[4] < least) continue;
        float* out = out_dets + written * kDetection;
        if (out != det) std::memcpy(out, det, kRowBytes);
        if (out_rows != nullptr) {
          out_rows[written] = rows[static_cast<std::size_t>(groups[first].begin + k)];
        }
        out_classes[written] = groups[first].cls;
        out_images[written++] = groups[first].image;
      }
    }
  }
  return written;
}

void multi_scale_nms_padded_cpu(const MultiScaleNmsParams& params, const float* dets,
                                const float* levels, const float* classes, const float* images,
                                const float* valid_ranges, float* out_dets, float* out_classes,
                                float* out_images, float* out_count) {
  std::vector<float> real_dets;
  std::vector<int32_t> real_levels, real_classes, real_images;
  for (int64_t n = 0; n < params.count; ++n) {
    if (images[n] < 0.0f) continue;
    real_dets.insert(real_dets.end(), dets + n * kDetection, dets + (n + 1) * kDetection);
    real_levels.push_back(require_index("levels", levels[n]));
    real_classes.push_back(require_index("classes", classes[n]));
    real_images.push_back(require_index("images", images[n]));
  }
  const NmsRequest request = {real_dets.data(),
                              real_levels.data(),
                              real_classes.data(),
                              real_images.data(),
                              static_cast<int64_t>(real_images.size()),
                              valid_ranges,
                              params.num_levels,
                              params.settings,
                              params.max_per_image};
  std::vector<int32_t> kept_classes(real_classes.size()), kept_images(real_images.size());
  std::fill_n(out_classes, params.count, kPadding);
  std::fill_n(out_images, params.count, kPadding);
  const int64_t kept =
      multi_scale_nms_cpu(request, out_dets, kept_classes.data(), kept_images.data());
  std::fill_n(out_dets + kept * kDetection, (params.count - kept) * kDetection, kPadding);
  std::copy_n(kept_classes.data(), kept, out_classes);
  std::copy_n(kept_images.data(), kept, out_images);
  *out_count = static_cast<float>(kept);
}

}  // namespace sniper
