#include <algorithm>
#include <vector>

#include "common/parallel.h"
#include "common/select_proposals.h"
#include "multi_proposal_target/multi_proposal_target.h"

namespace sniper {
namespace {

// The rois of one image as columns, and the best GT of each so far.
struct Matches {
  std::vector<float> x1, y1, x2, y2, area, overlap;
  std::vector<int> gt;  // row of gt_boxes, -1: background

  void start(const Box* rois, int count) {
    for (std::vector<float>* column : {&x1, &y1, &x2, &y2, &area}) column->resize(count);
    overlap.assign(count, kForegroundOverlap);
    gt.assign(count, -1);
    for (int i = 0; i < count; ++i) {
      x1[i] = rois[i].x1;
      y1[i] = rois[i].y1;
      x2[i] = rois[i].x2;
      y2[i] = rois[i].y2;
      area[i] = area_plain(rois[i]);
    }
  }
};

struct Scratch {
  ProposalScratch proposals;
  std::vector<Box> boxes;
  std::vector<std::uint32_t> indices;
  std::vector<int> gt_rows;
  Matches matches;
};

// Gives GT `row` to every roi that overlaps it more than the GT before it.
SNIPER_TARGET_CLONES
void match_gt(const Box& gt, int row, int count, const float* x1, const float* y1, const float* x2,
              const float* y2, const float* area, float* best, int* best_row) {
  const float gt_area = area_plain(gt);
  for (int i = 0; i < count; ++i) {
    const float overlap = label_overlap(gt, gt_area, {x1[i], y1[i], x2[i], y2[i]}, area[i]);
    const bool better = overlap > best[i];
    best[i] = better ? overlap : best[i];
    best_row[i] = better ? row : best_row[i];
  }
}

Box gt_box(const float* gt_boxes, int row) {
  const float* values = gt_boxes + 5 * row;
  return {values[0], values[1], values[2], values[3]};
}

// Overwrites the last slots with the GT boxes in the valid range, GT j in slot post - G + j.
void append_gt(const float* gt_boxes, const std::vector<int>& gt_rows, const AreaRange& range,
               std::vector<Box>* boxes) {
  const int num_gt = static_cast<int>(gt_rows.size());
  const int first_slot = static_cast<int>(boxes->size()) - num_gt;
  for (int j = std::max(0, -first_slot); j < num_gt; ++j) {
    const Box gt = gt_box(gt_boxes, gt_rows[j]);
    if (gt_joins(gt, range)) (*boxes)[first_slot + j] = gt;
  }
}

void target_for_image(const MultiProposalTargetParams& params, int image, const ProposalMaps& maps,
                      const float* gt_boxes, const float* valid_range, float* rois, float* label,
                      float* target, float* weight) {
  thread_local Scratch scratch;
  const int post = params.limits.post_nms_top_n;
  const AreaRange range = area_range(valid_range);
  std::vector<Box>& boxes = scratch.boxes;
  boxes.resize(post);
  scratch.indices.resize(post);
  const int num_kept =
      select_proposals(maps, params.limits, MultiProposalTargetPolicy{params.min_size, range},
                       &scratch.proposals, boxes.data(), scratch.indices.data());
  for (int i = num_kept; i < post; ++i) boxes[i] = fill_box(image, params.grid.count(), i);

  scratch.gt_rows.clear();
  for (int row = 0; row < params.max_gt; ++row) {
    if (gt_is_used(gt_boxes + 5 * row)) scratch.gt_rows.push_back(row);
  }
  append_gt(gt_boxes, scratch.gt_rows, range, &boxes);

  Matches& matches = scratch.matches;
  matches.start(boxes.data(), post);
  for (const int row : scratch.gt_rows) {
    match_gt(gt_box(gt_boxes, row), row, post, matches.x1.data(), matches.y1.data(),
             matches.x2.data(), matches.y2.data(), matches.area.data(), matches.overlap.data(),
             matches.gt.data());
  }

  for (int i = 0; i < post; ++i) {
    const Box& box = boxes[i];
    float* row = rois + 5 * i;
    row[0] = static_cast<float>(image);
    row[1] = box.x1;
    row[2] = box.y1;
    row[3] = box.x2;
    row[4] = box.y2;
    const int gt = matches.gt[i];
    const bool foreground = gt >= 0;
    label[i] = foreground ? gt_boxes[5 * gt + 4] : 0.0f;
    std::fill_n(target + 4 * i, 4, 1.0f);
    std::fill_n(weight + 4 * i, 4, foreground ? 1.0f : 0.0f);
    if (foreground) {
      encode_target(gt_box(gt_boxes, gt), box, params.legacy_gt_centre, target + 4 * i);
    }
  }
}

}  // namespace

void multi_proposal_target_cpu(const MultiProposalTargetParams& params, const float* cls_prob,
                               const float* bbox_pred, const float* im_info, const float* gt_boxes,
                               const float* valid_ranges, float* rois, float* label, float* target,
                               float* weight) {
  const std::int64_t count = params.grid.count();
  const std::int64_t post = params.limits.post_nms_top_n;
#pragma omp parallel for num_threads(thread_count(params.num_images)) schedule(dynamic, 1)
  for (int image = 0; image < params.num_images; ++image) {
    const ProposalMaps maps{cls_prob + (2 * image + 1) * count, bbox_pred + 4 * image * count,
                            params.grid, im_info[3 * image], im_info[3 * image + 1]};
    const std::int64_t first = image * post;
    target_for_image(params, image, maps,
                     gt_boxes + static_cast<std::int64_t>(image) * params.max_gt * 5,
                     valid_ranges + 2 * image, rois + 5 * first, label + first, target + 4 * first,
                     weight + 4 * first);
  }
}

}  // namespace sniper
