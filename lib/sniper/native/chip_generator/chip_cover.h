// The greedy chip cover on the host, for callers that cover many images.
#ifndef SNIPER_NATIVE_CHIP_COVER_H_
#define SNIPER_NATIVE_CHIP_COVER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "chip_generator/chip_generator.h"
#include "chip_generator/rect_grid.h"

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
  void select_by_passes();
  void select_by_index();
  std::size_t fill_buckets();
  void select_from(std::size_t held);
  void take_covered(const Box& chip);
  void change_counts(const CoveredBox* boxes, int64_t count, int32_t change);
  void change_one_by_one(const CoveredBox* boxes, int64_t count, int32_t change);
  void change_by_differences(const CoveredBox* boxes, int64_t count, int32_t change);
  void add_differences();

  // Candidates as positions in the permuted order, which is the order that ties are taken in.
  struct Bucket {
    std::vector<int32_t> positions;
    std::size_t in_order;  // so many of them, from the first, are in order
  };

  ChipLattice lattice_{};
  std::vector<CoveredBox> boxes_;  // to be covered: those that some candidate contains
  RectGrid open_;                  // of these, those that no chosen chip contains
  std::size_t num_open_ = 0;
  std::vector<CoveredBox> covered_;  // by the last chip
  std::vector<int32_t> counts_;      // [candidate]: open boxes that it contains
  std::vector<int32_t> order_;       // position -> candidate
  std::vector<int32_t> rank_;        // candidate -> position
  std::vector<Bucket> buckets_;      // [count]: candidates that contain at most so many open boxes
  std::vector<int32_t> grid_difference_, right_difference_, bottom_difference_;
  std::vector<int32_t> selected_;
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_CHIP_COVER_H_
