#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "common/parallel.h"
#include "common/score_key.h"
#include "multi_scale_nms/nms_candidates.h"

namespace sniper {
namespace {

// A score's sign, exponent and first three bits of its fraction: eight bins per octave.
constexpr int kBinShift = 20;
constexpr std::size_t kBins = std::size_t{1} << (32 - kBinShift);
constexpr std::uint32_t kNoEnd = 0xFFFFFFFFu;  // beyond the keys of finite scores
constexpr int64_t kFewClasses = 4096;

std::size_t at(int64_t index) { return static_cast<std::size_t>(index); }

// Writes the valid ones of the rows of a part; returns how many. No branch depends on the boxes.
int64_t valid_rows(const NmsPart& part, int32_t number, const float* range, NmsCandidate* out) {
  const float low = range[0], high = range[1];
  int64_t count = 0;
  for (int64_t n = 0; n < part.count; ++n) {
    const float* det = part.dets + n * kDetection;
    const Box box = {det[0], det[1], det[2], det[3]};
    out[count] = {det, part.classes[n], number};
    const bool finite = is_finite(box) & is_finite(det[4]);
    count += static_cast<int64_t>(finite & in_valid_range(box, low, high));
  }
  return count;
}

// Stable sort of `count` candidates by class. `each` calls its argument for all of them in turn.
template <class Each>
void sort_by_class(const Each& each, int64_t count, NmsCandidate* out) {
  int64_t low = std::numeric_limits<int32_t>::max(), high = std::numeric_limits<int32_t>::min();
  each([&low, &high](const NmsCandidate& candidate) {
    low = std::min<int64_t>(low, candidate.cls);
    high = std::max<int64_t>(high, candidate.cls);
  });
  if (high - low >= std::max(kFewClasses, count)) {
    NmsCandidate* end = out;
    each([&end](const NmsCandidate& candidate) { *end++ = candidate; });
    std::stable_sort(out, end, [](const auto& a, const auto& b) { return a.cls < b.cls; });
    return;
  }
  std::vector<int64_t> begins(at(std::max<int64_t>(high - low + 1, 0)));
  each([&begins, low](const NmsCandidate& candidate) { ++begins[at(candidate.cls - low)]; });
  int64_t sum = 0;
  for (int64_t& begin : begins) sum += std::exchange(begin, sum);
  each([&begins, low, out](const NmsCandidate& candidate) {
    out[begins[at(candidate.cls - low)]++] = candidate;
  });
}

}  // namespace

NmsCandidates::NmsCandidates(const NmsRequest& request) : request_(request) {
  int64_t rows = 0;
  for (int64_t n = 0; n < request.num_parts; ++n) {
    const NmsPart& part = request.parts[n];
    if (part.count > 0 && (part.level < 0 || part.level >= request.num_levels)) {
      throw std::invalid_argument("Multi-scale NMS: row " + std::to_string(rows) + " has level " +
                                  std::to_string(part.level) + ", expected 0 to " +
                                  std::to_string(request.num_levels - 1) +
                                  " (one valid range per level).");
    }
    first_rows_.push_back(rows);
    rows += part.count;
  }
  find_images();
  thread_local KeptArray kept_found, kept_grouped;
  found_.take(rows, &kept_found);
  const int64_t num_parts = request.num_parts;
  const int64_t parts_per_thread = are_many(rows) ? 1 : std::max<int64_t>(num_parts, 1);
  parallel_for(num_parts, [&](int64_t place) { collect(place); }, parts_per_thread);
  int64_t candidates = 0;
  for (Image& image : images_) {
    image.begin = candidates;
    image.count = std::accumulate(counts_.begin() + image.first_part,
                                  counts_.begin() + image.end_part, int64_t{0});
    candidates += image.count;
  }
  size_ = candidates;
  grouped_.take(candidates, &kept_grouped);
}

// Puts the parts into the order of their images.
void NmsCandidates::find_images() {
  const NmsPart* parts = request_.parts;
  parts_.resize(at(request_.num_parts));
  std::iota(parts_.begin(), parts_.end(), 0);
  const auto before = [parts](int32_t a, int32_t b) { return parts[a].image < parts[b].image; };
  if (!std::is_sorted(parts_.begin(), parts_.end(), before)) {
    std::stable_sort(parts_.begin(), parts_.end(), before);
  }
  int64_t row = 0;
  for (int64_t place = 0; place < request_.num_parts; ++place) {
    const NmsPart& part = parts[parts_[at(place)]];
    if (images_.empty() || images_.back().number != part.image) {
      images_.push_back({part.image, place, place, 0, 0, {}});
    }
    ++images_.back().end_part;
    begins_.push_back(row);
    row += part.count;
  }
  counts_.resize(begins_.size());
}

void NmsCandidates::collect(int64_t place) {
  const int32_t number = parts_[at(place)];
  const NmsPart& part = request_.parts[number];
  if (part.count == 0) return;
  const float* range = request_.valid_ranges + 2 * static_cast<int64_t>(part.level);
  counts_[at(place)] = valid_rows(part, number, range, found_.get() + begins_[at(place)]);
}

template <class Body>
void NmsCandidates::each(const Image& image, const Body& body) const {
  for (int64_t place = image.first_part; place < image.end_part; ++place) {
    const NmsCandidate* first = found_.get() + begins_[at(place)];
    for (int64_t k = 0; k < counts_[at(place)]; ++k) body(first[k]);
  }
}

// About the `most` best candidates: the least key that is too large for them.
std::uint32_t NmsCandidates::end_key(const Image& image, int64_t most) const {
  std::vector<int64_t> bins(kBins);
  each(image, [&bins](const NmsCandidate& candidate) {
    ++bins[score_key(candidate.det[4]) >> kBinShift];
  });
  int64_t candidates = 0;
  for (std::uint32_t bin = 0; bin + 1 < kBins; ++bin) {
    candidates += bins[bin];
    if (candidates >= most) return (bin + 1) << kBinShift;
  }
  return kNoEnd;
}

bool NmsCandidates::group(Image* image, int64_t most) {
  NmsCandidate* out = grouped_.get() + image->begin;
  int64_t count = 0;
  if (most > 0 && most < image->count) {
    const std::uint32_t end = end_key(*image, most);
    std::vector<NmsCandidate> best;
    each(*image, [&best, end](const NmsCandidate& candidate) {
      if (score_key(candidate.det[4]) < end) best.push_back(candidate);
    });
    count = static_cast<int64_t>(best.size());
    sort_by_class([&best](const auto& body) { std::for_each(best.begin(), best.end(), body); },
                  count, out);
  } else {
    count = image->count;
    sort_by_class([this, image](const auto& body) { each(*image, body); }, count, out);
  }
  image->groups.clear();
  for (int64_t k = 0; k < count; ++k) {
    if (k == 0 || out[k].cls != out[k - 1].cls) {
      image->groups.push_back({image->begin + k, 0, out[k].cls, 0});
    }
    ++image->groups.back().count;
  }
  return count < image->count;
}

int64_t NmsCandidates::row(const NmsCandidate& candidate) const {
  const int64_t floats = candidate.det - request_.parts[candidate.part].dets;
  return first_rows_[at(candidate.part)] + floats / kDetection;
}

}  // namespace sniper
