// Greedy chip cover by the letter of its definition, as a peer of our kernel: all candidate chips
// in a list of rectangles, the IOB (the part of a box inside a chip) of every pair of candidate and
// box, a std::set of the boxes with IOB 1 for every candidate, and a chosen candidate's boxes
// erased from all sets. The rules (candidates, their order, scaling, ties) are those of the kernel,
// so the chips must be identical; none of its code is used. Built with `g++ -O2`, called through
// ctypes.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

namespace {

using Rectangle = std::vector<float>;  // left, top, right, bottom; inclusive

std::vector<Rectangle> list_candidates(int width, int height, int size, int step) {
  const auto rectangle = [](int left, int top, int right, int bottom) {
    return Rectangle{static_cast<float>(left), static_cast<float>(top), static_cast<float>(right),
                     static_cast<float>(bottom)};
  };
  const int x = std::max(width - size, 0), y = std::max(height - size, 0);
  const int edge_x = std::max(width - size - 1, 0), edge_y = std::max(height - size - 1, 0);
  std::vector<Rectangle> list;
  list.push_back(rectangle(x, 0, width - 1, std::min(size, height - 1)));
  list.push_back(rectangle(0, y, std::min(size, width - 1), height - 1));
  list.push_back(rectangle(x, y, width - 1, height - 1));
  for (int i = 0; i < width - size; i += step) {
    for (int j = 0; j < height - size; j += step) {
      list.push_back(rectangle(i, j, i + size - 1, j + size - 1));
    }
  }
  for (int j = 0; j < height - size; j += step) {
    list.push_back(rectangle(edge_x, j, width - 1, j + size - 1));
  }
  for (int i = 0; i < width - size; i += step) {
    list.push_back(rectangle(i, edge_y, i + size - 1, height - 1));
  }
  return list;
}

std::uint64_t next_random(std::uint64_t& state) {  // SplitMix64
  state += 0x9E3779B97F4A7C15u;
  std::uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// Fisher-Yates from the back; the index is scaled from the upper half of the random number.
void shuffle(std::vector<Rectangle>& list, std::uint64_t seed) {
  for (std::size_t i = list.size(); i-- > 1;) {
    const std::uint64_t upper = next_random(seed) >> 32;
    std::swap(list[i], list[(upper * (i + 1)) >> 32]);
  }
}

float clip(float value, float largest) { return std::max(std::min(value, largest), 0.0f); }

std::vector<Rectangle> scaled_boxes(const float* boxes_im, int count, float factor, int width,
                                    int height) {
  std::vector<Rectangle> boxes;
  for (int n = 0; n < count; ++n) {
    const float* row = boxes_im + 4 * n;
    const float right = static_cast<float>(width - 1), bottom = static_cast<float>(height - 1);
    Rectangle box = {clip(row[0] * factor, right), clip(row[1] * factor, bottom),
                     clip(row[2] * factor, right), clip(row[3] * factor, bottom)};
    const bool finite = std::isfinite(row[0] * factor) && std::isfinite(row[1] * factor) &&
                        std::isfinite(row[2] * factor) && std::isfinite(row[3] * factor);
    if (finite && box[2] - box[0] > -1 && box[3] - box[1] > -1) boxes.push_back(std::move(box));
  }
  return boxes;
}

// Doubles, so that the IOB is 1 only for boxes that lie wholly inside.
double iob(const Rectangle& chip, const Rectangle& box) {
  const double width = double{std::min(chip[2], box[2])} - std::max(chip[0], box[0]) + 1;
  const double height = double{std::min(chip[3], box[3])} - std::max(chip[1], box[1]) + 1;
  const double area = (double{box[2]} - box[0] + 1) * (double{box[3]} - box[1] + 1);
  return std::max(width, 0.0) * std::max(height, 0.0) / area;
}

}  // namespace

// Writes the chips (x1, y1, x2, y2 in image px) in the order of selection and returns their number,
// at most `count`. boxes_im: (count, 4), image px.
extern "C" int greedy_cover(const float* boxes_im, int count, double factor, int width_im,
                            int height_im, int chip_size, int step, std::uint64_t seed,
                            double* chips_im) {
  const int width = static_cast<int>(width_im * factor);
  const int height = static_cast<int>(height_im * factor);
  if (width < 1 || height < 1) return 0;
  const std::vector<Rectangle> boxes =
      scaled_boxes(boxes_im, count, static_cast<float>(factor), width, height);
  std::vector<Rectangle> candidates = list_candidates(width, height, chip_size, step);
  shuffle(candidates, seed);

  std::vector<std::set<int>> inside(candidates.size());
  for (std::size_t c = 0; c < candidates.size(); ++c) {
    for (std::size_t n = 0; n < boxes.size(); ++n) {
      if (iob(candidates[c], boxes[n]) == 1) inside[c].insert(static_cast<int>(n));
    }
  }

  int chips = 0;
  for (;;) {
    std::size_t best = 0;
    for (std::size_t c = 1; c < candidates.size(); ++c) {
      if (inside[c].size() > inside[best].size()) best = c;
    }
    if (inside[best].empty()) return chips;
    double* chip = chips_im + 4 * chips++;
    chip[0] = candidates[best][0] / factor;
    chip[1] = candidates[best][1] / factor;
    chip[2] = candidates[best][2] / factor;
    chip[3] = candidates[best][3] / factor;
    const std::set<int> covered = inside[best];
    for (std::set<int>& boxes_inside : inside) {
      for (const int box : covered) boxes_inside.erase(box);
    }
  }
}
