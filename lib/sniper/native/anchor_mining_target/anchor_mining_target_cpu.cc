#include <algorithm>
#include <cmath>
#include <vector>

#include "anchor_mining_target/anchor_mining_target.h"
#include "common/parallel.h"

namespace sniper {
namespace {

constexpr std::int32_t kNoGt = -1;
constexpr std::int32_t kIgnored = -2;

struct MiningImage {
  const float* probabilities;  // of objects
  float height, width;         // px
  const float* gt_boxes;
  const float* ignore_boxes;  // or null
};

struct Scratch {
  std::vector<float> overlap;       // largest one of each anchor with a GT that may matter
  std::vector<std::int32_t> match;  // row of that GT
  std::vector<std::uint64_t> positives, negatives;  // key << 32 | index
};

struct Cells {
  int first, last;  // the last one is not one of them
};

// Cells of a row or column whose anchors, from `low` to `high` in cell 0, may touch what lies from
// `begin` to `end`: one more on both sides, because corners are rounded.
Cells cells_near(float low, float high, float begin, float end, float stride, int count) {
  const double first = std::floor((static_cast<double>(begin) - high - 1.0) / stride) - 1.0;
  const double last = std::ceil((static_cast<double>(end) - low + 1.0) / stride) + 2.0;
  const double most = count;
  return {static_cast<int>(std::clamp(first, 0.0, most)),
          static_cast<int>(std::clamp(last, 0.0, most))};
}

// Calls visit(index, overlap) for all anchors that can overlap the box by `least`, and some others.
// A small box costs little, however large the map is.
template <class Visit>
void visit_near(const AnchorGrid& grid, const Box& box, float least, const Visit& visit) {
  const float area = area_inclusive(box);
  for (int a = 0; a < grid.num_anchors; ++a) {
    const Box& base = grid.base[a];
    if (!areas_can_match(area, area_inclusive(base), least)) continue;
    const Cells rows = cells_near(base.y1, base.y2, box.y1, box.y2, grid.stride, grid.height);
    const Cells columns = cells_near(base.x1, base.x2, box.x1, box.x2, grid.stride, grid.width);
    for (int y = rows.first; y < rows.last; ++y) {
      const std::size_t row = (static_cast<std::size_t>(a) * grid.height + y) * grid.width;
      for (int x = columns.first; x < columns.last; ++x) {
        visit(row + x, mining_overlap(box, area, anchor_at(grid, a, y, x)));
      }
    }
  }
}

void match_anchors(const AnchorMiningTargetParams& params, const MiningImage& image,
                   Scratch* scratch) {
  const std::size_t count = static_cast<std::size_t>(params.grid.count());
  scratch->overlap.assign(count, 0.0f);
  scratch->match.assign(count, kNoGt);
  for (std::int32_t row = 0; row < params.max_gt; ++row) {
    if (!gt_can_match(image.gt_boxes + 5 * static_cast<std::int64_t>(row))) continue;
    visit_near(params.grid, gt_box(image.gt_boxes, row), params.negative_overlap,
               [&](std::size_t i, float overlap) {
                 if (!(overlap > scratch->overlap[i])) return;
                 scratch->overlap[i] = overlap;
                 scratch->match[i] = row;
               });
  }
  if (image.ignore_boxes == nullptr) return;
  for (std::int32_t row = 0; row < params.max_ignored; ++row) {
    if (!gt_can_match(image.ignore_boxes + 5 * static_cast<std::int64_t>(row))) continue;
    visit_near(params.grid, gt_box(image.ignore_boxes, row), params.ignore_overlap,
               [&](std::size_t i, float overlap) {
                 if (overlap > params.ignore_overlap) scratch->match[i] = kIgnored;
               });
  }
}

// Calls visit(index, inside) for all anchors in the order of their indices, until one returns true.
template <class Visit>
bool find_anchor(const AnchorMiningTargetParams& params, const MiningImage& image,
                 const Visit& visit) {
  std::size_t index = 0;
  for (int a = 0; a < params.grid.num_anchors; ++a) {
    for (int y = 0; y < params.grid.height; ++y) {
      for (int x = 0; x < params.grid.width; ++x, ++index) {
        const Box anchor = anchor_at(params.grid, a, y, x);
        if (visit(index, anchor_is_inside(anchor, image.height, image.width, params.border))) {
          return true;
        }
      }
    }
  }
  return false;
}

// All positive and negative anchors with their keys.
void list_anchors(const AnchorMiningTargetParams& params, const MiningImage& image,
                  Scratch* scratch) {
  scratch->positives.clear();
  scratch->negatives.clear();
  const bool some_inside =
      find_anchor(params, image, [](std::size_t, bool inside) { return inside; });
  find_anchor(params, image, [&](std::size_t i, bool inside) {
    if ((some_inside && !inside) || scratch->match[i] == kIgnored) return false;
    const MinedKind kind = mined_kind(scratch->overlap[i], params);
    if (kind == kNotMined) return false;
    const std::uint64_t key = mining_key(kind, image.probabilities[i]);
    (kind == kMinedPositive ? scratch->positives : scratch->negatives).push_back(key << 32 | i);
    return false;
  });
}

// Leaves the `limit` smallest keys, in any order: no two are equal, so that they are always the
// same.
void keep_hardest(std::vector<std::uint64_t>* keys, std::int64_t limit) {
  if (static_cast<std::int64_t>(keys->size()) <= limit) return;
  std::nth_element(keys->begin(), keys->begin() + limit, keys->end());
  keys->resize(static_cast<std::size_t>(limit));
}

void mine_image(const AnchorMiningTargetParams& params, const MiningImage& image, float* label,
                float* target, float* weight, float* count) {
  thread_local Scratch scratch;
  match_anchors(params, image, &scratch);
  list_anchors(params, image, &scratch);
  const MinedCount taken =
      mined_count(static_cast<std::int64_t>(scratch.positives.size()),
                  static_cast<std::int64_t>(scratch.negatives.size()), params);
  keep_hardest(&scratch.positives, taken.positives);
  keep_hardest(&scratch.negatives, taken.negatives);
  const std::int64_t anchors = params.grid.count();
  std::fill_n(label, anchors, -1.0f);
  std::fill_n(target, 4 * anchors, 0.0f);
  std::fill_n(weight, 4 * anchors, 0.0f);
  for (const std::uint64_t key : scratch.negatives) label[static_cast<std::uint32_t>(key)] = 0.0f;
  for (const std::uint64_t key : scratch.positives) {
    const std::uint32_t index = static_cast<std::uint32_t>(key);
    label[index] = 1.0f;
    write_positive(params.grid, index, gt_box(image.gt_boxes, scratch.match[index]),
                   taken.weight(), target, weight);
  }
  count[0] = static_cast<float>(taken.positives);
  count[1] = static_cast<float>(taken.positives + taken.negatives);
}

}  // namespace

void anchor_mining_target_cpu(const AnchorMiningTargetParams& params, const float* cls_prob,
                              const float* im_info, const float* gt_boxes,
                              const float* ignore_boxes, float* label, float* target,
                              float* weight, float* count) {
  const std::int64_t anchors = params.grid.count();
  parallel_for(params.num_images, [&](std::int64_t n) {
    const float* ignored =
        ignore_boxes == nullptr ? nullptr : ignore_boxes + 5 * n * params.max_ignored;
    const MiningImage image{cls_prob + (2 * n + 1) * anchors, im_info[3 * n], im_info[3 * n + 1],
                            gt_boxes + 5 * n * params.max_gt, ignored};
    mine_image(params, image, label + n * anchors, target + 4 * n * anchors,
               weight + 4 * n * anchors, count + 2 * n);
  });
}

}  // namespace sniper
