#include <algorithm>
#include <vector>

#include "common/isa.h"
#include "common/parallel.h"
#include "common/select_proposals.h"
#include "multi_proposal_target/multi_proposal_target.h"

namespace sniper {
namespace {

// The rois of one image as columns, and the best GT of each so far.
struct Matches {
  std::vector<float> x1, y1, x2, y2, area, overlap;
  std::vector<int> gt;  // row of gt_boxes, -1: none

  void start(const Box* rois, int count, const TargetRules& rules) {
    for (std::vector<float>* column : {&x1, &y1, &x2, &y2, &area}) column->resize(count);
    overlap.assign(count, 0.0f);
    gt.assign(count, -1);
    for (int i = 0; i < count; ++i) {
      x1[i] = rois[i].x1;
      y1[i] = rois[i].y1;
      x2[i] = rois[i].x2;
      y2[i] = rois[i].y2;
      area[i] = overlap_area(rois[i], rules);
    }
  }
};

struct Scratch {
  NmsScratch proposals;
  std::vector<Box> boxes;
  std::vector<std::uint32_t> indices;
  std::vector<int> gt_rows;
  std::vector<Box> crowd;
  Matches matches;
};

// Gives GT `row` to every roi that overlaps it more than the GT before it. A loop without a switch
// of the rules in sight, so that it becomes SIMD.
SNIPER_ALWAYS_INLINE void match_gt(const Box& gt, float gt_area, float least_union, int row,
                                   int count, const float* x1, const float* y1, const float* x2,
                                   const float* y2, const float* area, float* best, int* best_row) {
  for (int i = 0; i < count; ++i) {
    const float overlap =
        label_overlap(gt, gt_area, {x1[i], y1[i], x2[i], y2[i]}, area[i], least_union);
    const float best_before = best[i];
    const int row_before = best_row[i];
    const bool better = overlap > best_before;
    best[i] = better ? overlap : best_before;
    best_row[i] = better ? row : row_before;
  }
}

// What one image brings along.
struct TargetImage {
  std::int64_t index;
  ProposalMaps maps;
  const float* gt_boxes;
  AreaRange range;
  const float* crowd_boxes;  // or null
};

// Proposals, fill boxes, and over them the GT boxes in the valid range.
void choose_boxes(const MultiProposalTargetParams& params, const TargetImage& image,
                  Scratch* scratch) {
  const int post = params.limits.post_nms_top_n;
  std::vector<Box>& boxes = scratch->boxes;
  boxes.resize(post);
  scratch->indices.resize(post);
  const MultiProposalTargetPolicy policy{params.min_size, image.range, params.rules};
  const int num_kept = select_proposals(image.maps, params.limits, policy, &scratch->proposals,
                                        boxes.data(), scratch->indices.data());
  for (int i = num_kept; i < post; ++i) {
    boxes[i] = fill_box(image.index, params.grid.count(), i, params.rules);
  }
  const int num_gt = static_cast<int>(scratch->gt_rows.size());
  for (int j = 0; j < num_gt; ++j) {
    const int slot = gt_slot(j, num_gt, post, params.rules);
    const Box gt = gt_box(image.gt_boxes, scratch->gt_rows[j]);
    if (slot >= 0 && gt_joins(gt, image.range, params.rules)) boxes[slot] = gt;
  }
}

void match_boxes(const MultiProposalTargetParams& params, const TargetImage& image,
                 Scratch* scratch) {
  Matches& matches = scratch->matches;
  const int post = params.limits.post_nms_top_n;
  matches.start(scratch->boxes.data(), post, params.rules);
  const float least = least_union(params.rules);
  for (const int row : scratch->gt_rows) {
    const Box gt = gt_box(image.gt_boxes, row);
    per_isa<match_gt>(gt, overlap_area(gt, params.rules), least, row, post, matches.x1.data(),
                      matches.y1.data(), matches.x2.data(), matches.y2.data(), matches.area.data(),
                      matches.overlap.data(), matches.gt.data());
  }
}

// The used rows of crowd_boxes.
void find_crowd(const MultiProposalTargetParams& params, const TargetImage& image,
                std::vector<Box>* crowd) {
  crowd->clear();
  if (image.crowd_boxes == nullptr) return;
  for (int row = 0; row < params.max_crowd; ++row) {
    if (gt_is_used(image.crowd_boxes + 5 * static_cast<std::int64_t>(row))) {
      crowd->push_back(gt_box(image.crowd_boxes, row));
    }
  }
}

float label_of_unmatched(const MultiProposalTargetParams& params, const std::vector<Box>& crowd,
                         const Box& roi) {
  for (const Box& region : crowd) {
    if (is_in_crowd(region, roi, params.crowd_ioa, params.rules)) return kIgnoreLabel;
  }
  return 0.0f;
}

// Null pointers stay null.
template <class Value>
Value* advanced(Value* pointer, std::int64_t count) {
  return pointer == nullptr ? nullptr : pointer + count;
}

void target_for_image(const MultiProposalTargetParams& params, const TargetImage& image,
                      float* rois, float* label, float* target, float* weight,
                      float* label_weights, std::int32_t* matches) {
  thread_local Scratch scratch;
  scratch.gt_rows.clear();
  for (int row = 0; row < params.max_gt; ++row) {
    if (gt_is_used(image.gt_boxes + 5 * static_cast<std::int64_t>(row), params.classes)) {
      scratch.gt_rows.push_back(row);
    }
  }
  find_crowd(params, image, &scratch.crowd);
  choose_boxes(params, image, &scratch);
  match_boxes(params, image, &scratch);
  for (std::int64_t i = 0; i < params.limits.post_nms_top_n; ++i) {
    const Box& box = scratch.boxes[i];
    float* row = rois + 5 * i;
    row[0] = static_cast<float>(image.index);
    row[1] = box.x1;
    row[2] = box.y1;
    row[3] = box.x2;
    row[4] = box.y2;
    const float overlap = scratch.matches.overlap[i];
    const bool foreground = overlap > kForegroundOverlap;
    const int gt = foreground ? scratch.matches.gt[i] : -1;
    label[i] = foreground
                   ? label_of(image.gt_boxes + 5 * static_cast<std::int64_t>(gt), params.classes)
                   : label_of_unmatched(params, scratch.crowd, box);
    if (label_weights != nullptr) label_weights[i] = label_weight(overlap, params.soft_sampling);
    std::fill_n(target + 4 * i, 4, 1.0f);
    std::fill_n(weight + 4 * i, 4, foreground ? 1.0f : 0.0f);
    if (foreground) encode_target(gt_box(image.gt_boxes, gt), box, params.rules, target + 4 * i);
    if (matches != nullptr) matches[i] = gt;
  }
}

}  // namespace

void multi_proposal_target_cpu(const MultiProposalTargetParams& params, const float* cls_prob,
                               const float* bbox_pred, const float* im_info, const float* gt_boxes,
                               const float* valid_ranges, const float* crowd_boxes, float* rois,
                               float* label, float* target, float* weight, float* label_weights,
                               std::int32_t* matches) {
  const std::int64_t count = params.grid.count();
  const std::int64_t post = params.limits.post_nms_top_n;
  parallel_for(params.num_images, [&](std::int64_t n) {
    const TargetImage image{n,
                            {cls_prob + (2 * n + 1) * count, bbox_pred + 4 * n * count, params.grid,
                             im_info[3 * n], im_info[3 * n + 1]},
                            gt_boxes + n * params.max_gt * 5,
                            area_range(valid_ranges + 2 * n),
                            advanced(crowd_boxes, n * params.max_crowd * 5)};
    const std::int64_t first = n * post;
    target_for_image(params, image, rois + 5 * first, label + first, target + 4 * first,
                     weight + 4 * first, advanced(label_weights, first), advanced(matches, first));
  });
}

}  // namespace sniper
