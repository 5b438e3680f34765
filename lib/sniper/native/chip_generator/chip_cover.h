// The greedy chip cover on the host, for callers that cover many images.
#ifndef SNIPER_NATIVE_CHIP_COVER_H_
#define SNIPER_NATIVE_CHIP_COVER_H_

#include <cstdint>
#include <vector>

#include "chip_generator/chip_generator.h"

namespace sniper {

// Covers one level of one image after the other and keeps its memory in between: one per thread.
class ChipCover {
 public:
  // Candidate numbers in the order of selection, valid until the next call; see chip_cover_cpu.
  const std::vector<int32_t>& select(const ChipRequest& request, const float* boxes_im,
                                     int64_t count);

  // Of the last call.
  const ChipLattice& lattice() const { return lattice_; }

 private:
  void locate(const ChipRequest& request, const float* boxes_im, int64_t count);
  void rank_candidates(uint64_t seed);
  int32_t best_candidate() const;
  void take_covered(const Box& chip);
  void change_counts(const CoveredBox* boxes, int64_t count, int32_t change);
  void change_one_by_one(const CoveredBox* boxes, int64_t count, int32_t change);
  void change_by_differences(const CoveredBox* boxes, int64_t count, int32_t change);
  void add_differences();

  ChipLattice lattice_{};
  std::vector<CoveredBox> open_;       // boxes that no chosen chip contains
  std::vector<int32_t> counts_;        // [candidate]: open boxes that it contains
  std::vector<int32_t> order_, rank_;  // position -> candidate, candidate -> position
  std::vector<int32_t> grid_difference_, right_difference_, bottom_difference_;
  std::vector<int32_t> selected_;
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_CHIP_COVER_H_
