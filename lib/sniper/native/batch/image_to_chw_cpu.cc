#include <algorithm>
#include <stdexcept>
#include <string>

#include "batch/image_to_chw.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace sniper {
namespace {

constexpr std::int64_t kBand = 64;  // rows of a task: a large batch and a single chip both divide

struct Planes {
  float *red, *green, *blue;
};

// The difference is rounded to float once: 2018 subtracted in double.
SNIPER_ALWAYS_INLINE void convert_row(const std::uint8_t* __restrict bgr, std::int64_t count,
                                      const double* means, float* __restrict red,
                                      float* __restrict green, float* __restrict blue) {
  const double mean_blue = means[0], mean_green = means[1], mean_red = means[2];
  for (std::int64_t x = 0; x < count; ++x) {
    blue[x] = static_cast<float>(bgr[3 * x] - mean_blue);
    green[x] = static_cast<float>(bgr[3 * x + 1] - mean_green);
    red[x] = static_cast<float>(bgr[3 * x + 2] - mean_red);
  }
}

void clear(const Planes& planes, std::int64_t begin, std::int64_t end) {
  for (float* plane : {planes.red, planes.green, planes.blue}) {
    std::fill(plane + begin, plane + end, 0.0f);
  }
}

void convert_band(const ChwBatch& batch, const std::uint8_t* slot, std::int64_t content_height,
                  std::int64_t content_width, const Planes& planes, std::int64_t first_row) {
  const std::int64_t width = batch.width;
  const std::int64_t columns = std::min(content_width, width);
  const std::int64_t end_row = std::min(batch.height, first_row + kBand);
  const std::int64_t content_end = std::clamp(content_height, first_row, end_row);
  for (std::int64_t y = first_row; y < content_end; ++y) {
    const std::int64_t start = y * width;
    per_isa<convert_row>(slot + y * batch.row_bytes, columns, batch.means, planes.red + start,
                         planes.green + start, planes.blue + start);
    clear(planes, start + columns, start + width);
  }
  clear(planes, content_end * width, end_row * width);
}

void check_content(const ChwBatch& batch, const std::int32_t* content_hw) {
  for (std::int64_t i = 0; i < batch.samples; ++i) {
    const std::int64_t height = content_hw[2 * i], width = content_hw[2 * i + 1];
    if (height < 0 || width < 0 || height > batch.slot_height || width > batch.slot_width) {
      throw std::invalid_argument("the content of sample " + std::to_string(i) + " is " +
                                  std::to_string(width) + "x" + std::to_string(height) +
                                  " px, but its slot is " + std::to_string(batch.slot_width) + "x" +
                                  std::to_string(batch.slot_height) + ".");
    }
  }
}

}  // namespace

void image_to_chw_cpu(const ChwBatch& batch, const std::uint8_t* pixels,
                      const std::int32_t* content_hw, float* out) {
  check_content(batch, content_hw);
  const std::int64_t plane = batch.height * batch.width;
  const std::int64_t bands = (batch.height + kBand - 1) / kBand;
  const std::int64_t tasks = batch.samples * bands;
  const auto convert = [&](long long task) {
    const std::int64_t sample = task / bands;
    float* first = out + 3 * plane * sample;
    convert_band(batch, pixels + batch.slot_bytes * sample, content_hw[2 * sample],
                 content_hw[2 * sample + 1], Planes{first, first + plane, first + 2 * plane},
                 task % bands * kBand);
  };
  parallel_for(tasks, convert, batch.one_thread ? std::max<std::int64_t>(tasks, 1) : 1);
}

}  // namespace sniper
