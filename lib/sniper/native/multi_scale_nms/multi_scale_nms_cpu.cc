// NMS of the groups of all images, one thread per group, and the limit per image.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/greedy_nms.h"
#include "common/parallel.h"
#include "multi_scale_nms/multi_scale_nms.h"
#include "multi_scale_nms/nms_candidates.h"

namespace sniper {
namespace {

constexpr float kPadding = -1.0f;
constexpr int64_t kPrefetch = 16;  // rows ahead
constexpr std::size_t kRowBytes = kDetection * sizeof(float);
// Hard NMS under a limit looks at so many times as many candidates first, and then at as many more.
constexpr int64_t kFirstShare = 4, kGrowth = 4;
constexpr int64_t kFewRows = 4096;  // hard NMS takes 0.1 ms

Box box_of(const float* det) { return {det[0], det[1], det[2], det[3]}; }

// Hard NMS of the rows `det_of(0)` to `det_of(count - 1)`; calls `keep` with each that is left.
template <class DetOf, class Keep>
void hard_nms(const DetOf& det_of, int64_t count, float threshold, int64_t max_output,
              const Keep& keep) {
  if (count > std::numeric_limits<std::uint32_t>::max()) {
    throw std::invalid_argument("NMS: got " + std::to_string(count) +
                                " rows, expected at most 4294967295.");
  }
  thread_local NmsScratch scratch;
  thread_local std::vector<float> scores;
  scores.resize(static_cast<std::size_t>(count));
  for (int64_t n = 0; n < count; ++n) scores[static_cast<std::size_t>(n)] = det_of(n)[4];
  const auto load = [&det_of](const std::uint32_t* indices, int size, NmsTile* tile) {
    for (int i = 0; i < size; ++i) {
      const Box box = box_of(det_of(indices[i]));
      tile->box[i] = box;
      tile->area[i] = area_inclusive(box);
      tile->usable[i] = is_finite(box);
    }
  };
  const GreedyNms limits = {count, max_output < 0 ? count : max_output, threshold,
                            -std::numeric_limits<float>::infinity(), /*areas_with_one=*/true};
  greedy_nms(
      limits, scores.data(), count, load, [&keep](std::uint32_t row, const Box&) { keep(row); },
      &scratch);
}

// The merge of one request.
class Merge {
 public:
  Merge(const NmsRequest& request, const NmsResult& result)
      : request_(request),
        result_(result),
        hard_(request.settings.nms_threshold > 0.0f),
        candidates_(request) {
    thread_local KeptArray kept;
    places_.take(candidates_.size(), &kept);
  }

  int64_t run();

 private:
  using Image = NmsCandidates::Image;

  std::vector<Image*> suppress_images(const std::vector<Image*>& images, int64_t most);
  void suppress(NmsGroup* group);
  const float* det(const NmsGroup& group, int64_t k) const;
  float least_score(const Image& image) const;
  void write(const Image& image);

  const NmsRequest& request_;
  const NmsResult& result_;
  const bool hard_;
  NmsCandidates candidates_;
  // Of the kept ones of a group, in the order of selection: their places in the group.
  CallArray<int64_t> places_;
  int64_t written_ = 0;
};

int64_t Merge::run() {
  std::vector<Image*> images;
  for (Image& image : candidates_.images()) images.push_back(&image);
  // Hard NMS leaves scores alone, and only better candidates suppress one: when so many of the best
  // are left as the limit allows, the others need not be looked at.
  const int64_t limit = hard_ ? request_.max_per_image : 0;
  int64_t most = limit > candidates_.size() ? 0 : kFirstShare * std::max<int64_t>(limit, 0);
  while (!images.empty()) {
    images = suppress_images(images, most);
    most *= kGrowth;
  }
  for (const Image& image : candidates_.images()) write(image);
  return written_;
}

// Suppresses in the best `most` candidates of each image; returns those where that was too few.
std::vector<NmsCandidates::Image*> Merge::suppress_images(const std::vector<Image*>& images,
                                                          int64_t most) {
  const int64_t num_images = static_cast<int64_t>(images.size());
  std::vector<char> cut(images.size());
  const auto group_image = [&](int64_t i) {
    const std::size_t index = static_cast<std::size_t>(i);
    cut[index] = static_cast<char>(candidates_.group(images[index], most));
  };
  parallel_for(num_images, group_image,
               NmsCandidates::are_many(candidates_.size()) ? 1 : num_images);
  std::vector<NmsGroup*> groups;
  int64_t rows = 0;
  for (Image* image : images) {
    for (NmsGroup& group : image->groups) {
      groups.push_back(&group);
      rows += group.count;
    }
  }
  const int64_t num_groups = static_cast<int64_t>(groups.size());
  const bool one_thread = hard_ && rows < kFewRows;
  const auto suppress_group = [&](int64_t g) { suppress(groups[static_cast<std::size_t>(g)]); };
  parallel_for(num_groups, suppress_group, one_thread ? std::max<int64_t>(num_groups, 1) : 1);
  std::vector<Image*> again;
  for (std::size_t i = 0; i < images.size(); ++i) {
    int64_t kept = 0;
    for (const NmsGroup& group : images[i]->groups) kept += group.kept;
    if (cut[i] && kept < request_.max_per_image) again.push_back(images[i]);
  }
  return again;
}

void Merge::suppress(NmsGroup* group) {
  const NmsSettings& settings = request_.settings;
  const NmsCandidate* rows = candidates_.of(*group);
  int64_t* places = places_.get() + group->begin;
  if (hard_) {
    int64_t* end = places;
    hard_nms([rows](int64_t n) { return rows[n].det; }, group->count, settings.nms_threshold, -1,
             [&end](int64_t row) { *end++ = row; });
    group->kept = end - places;
    return;
  }
  float* dets = result_.dets + group->begin * kDetection;
  for (int64_t k = 0; k < group->count; ++k) {
    __builtin_prefetch(rows[std::min(k + kPrefetch, group->count - 1)].det);
    std::memcpy(dets + k * kDetection, rows[k].det, kRowBytes);
  }
  group->kept = soft_nms_cpu(dets, group->count, settings.sigma, settings.min_score, places,
                             request_.max_per_image);
}

// The k-th detection that is left of a group.
const float* Merge::det(const NmsGroup& group, int64_t k) const {
  if (!hard_) return result_.dets + (group.begin + k) * kDetection;
  return candidates_.of(group)[places_.get()[group.begin + k]].det;
}

// Score that a detection must reach under the limit of an image.
float Merge::least_score(const Image& image) const {
  constexpr float kAny = -std::numeric_limits<float>::infinity();
  const int64_t limit = request_.max_per_image;
  if (limit <= 0) return kAny;
  std::vector<float> scores;
  for (const NmsGroup& group : image.groups) {
    for (int64_t k = 0; k < group.kept; ++k) scores.push_back(det(group, k)[4]);
  }
  if (static_cast<int64_t>(scores.size()) <= limit) return kAny;
  const auto nth = scores.begin() + (limit - 1);
  std::nth_element(scores.begin(), nth, scores.end(), std::greater<float>());
  return *nth;
}

// Appends an image to the result. What soft-NMS has left there lies behind it, or at its place.
void Merge::write(const Image& image) {
  const float least = least_score(image);
  for (const NmsGroup& group : image.groups) {
    const NmsCandidate* rows = candidates_.of(group);
    for (int64_t k = 0; k < group.kept; ++k) {
      const float* from = det(group, k);
      if (from[4] < least) continue;
      float* to = result_.dets + written_ * kDetection;
      if (to != from) std::memcpy(to, from, kRowBytes);
      const NmsCandidate& row = rows[places_.get()[group.begin + k]];
      if (result_.rows != nullptr) result_.rows[written_] = candidates_.row(row);
      if (result_.parts != nullptr) result_.parts[written_] = row.part;
      result_.classes[written_] = group.cls;
      result_.images[written_++] = image.number;
    }
  }
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
  std::vector<int64_t> rows;
  hard_nms([dets](int64_t n) { return dets + n * kDetection; }, count, threshold, max_output,
           [&rows](int64_t row) { rows.push_back(row); });
  return rows;
}

std::vector<NmsPart> nms_parts(const float* dets, const int32_t* levels, const int32_t* classes,
                               const int32_t* images, int64_t count) {
  std::vector<NmsPart> parts;
  for (int64_t n = 0; n < count; ++n) {
    if (n == 0 || levels[n] != parts.back().level || images[n] != parts.back().image) {
      parts.push_back({dets + n * kDetection, classes + n, 0, levels[n], images[n]});
    }
    ++parts.back().count;
  }
  return parts;
}

int64_t multi_scale_nms_cpu(const NmsRequest& request, const NmsResult& result) {
  return Merge(request, result).run();
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
  const std::vector<NmsPart> parts =
      nms_parts(real_dets.data(), real_levels.data(), real_classes.data(), real_images.data(),
                static_cast<int64_t>(real_images.size()));
  const NmsRequest request = {parts.data(),    static_cast<int64_t>(parts.size()),
                              valid_ranges,    params.num_levels,
                              params.settings, params.max_per_image};
  std::vector<int32_t> kept_classes(real_classes.size()), kept_images(real_images.size());
  std::fill_n(out_classes, params.count, kPadding);
  std::fill_n(out_images, params.count, kPadding);
  const int64_t kept = multi_scale_nms_cpu(
      request, {out_dets, kept_classes.data(), kept_images.data(), nullptr, nullptr});
  std::fill_n(out_dets + kept * kDetection, (params.count - kept) * kDetection, kPadding);
  std::copy_n(kept_classes.data(), kept, out_classes);
  std::copy_n(kept_images.data(), kept, out_images);
  *out_count = static_cast<float>(kept);
}

}  // namespace sniper
