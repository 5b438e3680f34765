// CPU loops of PSROI pooling without offsets. A task of the backward pass owns an output channel of
// an image, so that every sum runs over the RoIs in their order.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/parallel.h"
#include "deformable_psroi_pooling/psroi_plain.h"

namespace sniper {
namespace {

constexpr int64_t kRoisPerTask = 16;

// Taps of all rows and columns of bins of one RoI.
struct Lines {
  std::vector<PsRoiLine> rows, columns;

  void locate(const PsRoiFrame& frame, const PsRoiShape& shape) {
    rows.resize(static_cast<std::size_t>(shape.pooled));
    columns.resize(static_cast<std::size_t>(shape.pooled));
    for (int bin = 0; bin < shape.pooled; ++bin) {
      rows[static_cast<std::size_t>(bin)] = psroi_row(bin, frame, shape);
      columns[static_cast<std::size_t>(bin)] = psroi_column(bin, frame, shape);
    }
  }
};

thread_local Lines lines;

// Calls body(number of the bin, its channel group, its row, its column) for all bins.
template <class Body>
void for_each_bin(const PsRoiShape& shape, const Lines& lines, const Body& body) {
  for (int ph = 0; ph < shape.pooled; ++ph) {
    const int64_t first_group = static_cast<int64_t>(psroi_group(ph, shape)) * shape.group;
    for (int pw = 0; pw < shape.pooled; ++pw) {
      body(static_cast<int64_t>(ph) * shape.pooled + pw, first_group + psroi_group(pw, shape),
           lines.rows[static_cast<std::size_t>(ph)], lines.columns[static_cast<std::size_t>(pw)]);
    }
  }
}

void pool_roi(const PsRoiShape& shape, const float* data, const float* roi, float* output) {
  const PsRoiFrame frame = psroi_frame(roi, shape);
  if (frame.image < 0) {
    std::fill_n(output, shape.output_dim * shape.bins(), 0.0f);
    return;
  }
  lines.locate(frame, shape);
  const int64_t pixels = shape.height * shape.width;
  const int64_t channel_stride = static_cast<int64_t>(shape.group) * shape.group * pixels;
  const float* image = data + frame.image * shape.channels() * pixels;
  for_each_bin(
      shape, lines, [&](int64_t bin, int64_t group, const PsRoiLine& row, const PsRoiLine& column) {
        float sums[kPsRoiPlainChannels] = {};
        const float* plane = image + group * pixels;
        for (int i = 0; i < row.count; ++i) {
          for (int j = 0; j < column.count; ++j) {
            const float weight = row.taps[i].weight * column.taps[j].weight;
            const float* pixel = plane + row.taps[i].index * shape.width + column.taps[j].index;
            for (int64_t c = 0; c < shape.output_dim; ++c)
              sums[c] += weight * pixel[c * channel_stride];
          }
        }
        const float inverse_count = psroi_inverse_count(row, column);
        for (int64_t c = 0; c < shape.output_dim; ++c) {
          output[c * shape.bins() + bin] = sums[c] * inverse_count;
        }
      });
}

// Adds the gradient of one channel of a RoI to that channel's planes.
void spread_roi(const PsRoiShape& shape, const PsRoiFrame& frame, const float* output_grad,
                float* planes) {
  lines.locate(frame, shape);
  const int64_t pixels = shape.height * shape.width;
  for_each_bin(
      shape, lines, [&](int64_t bin, int64_t group, const PsRoiLine& row, const PsRoiLine& column) {
        const float gradient = output_grad[bin] * psroi_inverse_count(row, column);
        float* plane = planes + group * pixels;
        for (int i = 0; i < row.count; ++i) {
          for (int j = 0; j < column.count; ++j) {
            const float weight = row.taps[i].weight * column.taps[j].weight;
            plane[row.taps[i].index * shape.width + column.taps[j].index] += weight * gradient;
          }
        }
      });
}

}  // namespace

void psroi_plain_forward_cpu(const PsRoiShape& shape, const float* data, const float* rois,
                             float* output) {
  parallel_for((shape.rois + kRoisPerTask - 1) / kRoisPerTask, [&](int64_t task) {
    const int64_t end = std::min(shape.rois, (task + 1) * kRoisPerTask);
    for (int64_t r = task * kRoisPerTask; r < end; ++r) {
      pool_roi(shape, data, rois + 5 * r, output + r * shape.output_dim * shape.bins());
    }
  });
}

void psroi_plain_backward_cpu(const PsRoiShape& shape, const float* output_grad, const float* rois,
                              float* data_grad) {
  const int64_t channel_floats =
      static_cast<int64_t>(shape.group) * shape.group * shape.height * shape.width;
  parallel_for(shape.images * shape.output_dim, [&](int64_t task) {
    const int64_t image = task / shape.output_dim, channel = task % shape.output_dim;
    float* planes = data_grad + task * channel_floats;
    std::fill_n(planes, channel_floats, 0.0f);
    for (int64_t r = 0; r < shape.rois; ++r) {
      const PsRoiFrame frame = psroi_frame(rois + 5 * r, shape);
      if (frame.image != image) continue;
      spread_roi(shape, frame, output_grad + (r * shape.output_dim + channel) * shape.bins(),
                 planes);
    }
  });
}

}  // namespace sniper
