// CPU loops of deformable position-sensitive RoI pooling.
//
// The map is copied once into blocks of neighbouring channels, [image][class][block][group][y][x]
// [lane], so that one tap serves a whole block with a few vector operations. A block of channels
// is also the unit of work of the backward pass: no two threads ever add to the same number, and
// every sum runs over the RoIs in their order, whatever the number of threads.

#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/lanes.h"
#include "common/parallel.h"
#include "deformable_psroi_pooling/deformable_psroi_pooling.h"
#include "deformable_psroi_pooling/psroi_block.h"
#include "deformable_psroi_pooling/psroi_plain.h"

namespace sniper {
namespace {

// RoIs whose taps are held in memory at a time, and a limit to that memory (12 MiB).
constexpr int64_t kMaxChunk = 512;
constexpr int64_t kMaxTaps = 1 << 20;
// RoIs that one task of the forward pass pools.
constexpr int64_t kRoisPerTask = 16;

// Memory of one array that is kept for the next call of the same thread, because fresh pages cost
// more than the pooling. 64-byte aligned: an AVX-512 load must not cross two cache lines.
class Scratch {
 public:
  template <class T>
  T* take(int64_t count) {
    constexpr std::size_t kAlign = 64;
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T) + kAlign;
    if (memory_.size() < bytes) {
      memory_.clear();
      memory_.shrink_to_fit();
      memory_.resize(bytes);
    }
    const std::size_t address = reinterpret_cast<std::size_t>(memory_.data());
    return reinterpret_cast<T*>((address + kAlign - 1) / kAlign * kAlign);
  }

 private:
  std::vector<unsigned char> memory_;
};

struct Workspace {
  Scratch frames, bins, taps, map, map_grad, tiles, shifts;
};

thread_local Workspace workspace;

// How the channels are cut into blocks, and the geometry of one chunk of RoIs.
struct Plan {
  PsRoiShape shape;
  int lanes;
  int64_t blocks;         // of one class
  int64_t plane;          // height * width * lanes
  int64_t taps_per_axis;  // 2 * samples
  int64_t chunk;          // RoIs whose geometry fits into memory
  int64_t first, rois;    // of the chunk at hand
  PsRoiFrame* frames;     // [roi]
  PsRoiBin* bins;         // [roi][class][bin]
  PsRoiTap* taps;         // [roi][class][bin][x, y][taps_per_axis]

  int64_t groups() const { return static_cast<int64_t>(shape.group) * shape.group; }
  int64_t all_blocks() const { return shape.classes * blocks; }
  int64_t map_floats() const { return shape.images * all_blocks() * groups() * plane; }
  int64_t tile_floats() const { return shape.bins() * lanes; }
  int64_t block_offset(int64_t image, int64_t cls, int64_t block) const {
    return ((image * shape.classes + cls) * blocks + block) * groups() * plane;
  }
  int block_lanes(int64_t block) const {
    return static_cast<int>(std::min<int64_t>(lanes, shape.class_channels() - block * lanes));
  }
};

Plan make_plan(const PsRoiShape& shape) {
  Plan plan{};
  plan.shape = shape;
  plan.lanes = shape.class_channels() > kPsRoiNarrowLanes ? kPsRoiWideLanes : kPsRoiNarrowLanes;
  plan.blocks = (shape.class_channels() + plan.lanes - 1) / plan.lanes;
  plan.plane = shape.height * shape.width * plan.lanes;
  plan.taps_per_axis = 2 * static_cast<int64_t>(shape.samples);
  const int64_t taps_per_roi = shape.classes * shape.bins() * 2 * plan.taps_per_axis;
  const int64_t fitting = std::max<int64_t>(1, kMaxTaps / taps_per_roi);
  plan.chunk = std::min(shape.rois, std::min(kMaxChunk, fitting));
  const int64_t bins = plan.chunk * shape.classes * shape.bins();
  plan.frames = workspace.frames.take<PsRoiFrame>(plan.chunk);
  plan.bins = workspace.bins.take<PsRoiBin>(bins);
  plan.taps = workspace.taps.take<PsRoiTap>(bins * 2 * plan.taps_per_axis);
  return plan;
}

// Geometry of RoI `r` of the chunk.
void locate_roi(const Plan& plan, const float* rois, const float* trans, int64_t r) {
  const PsRoiShape& shape = plan.shape;
  const int64_t row = plan.first + r;
  const PsRoiFrame frame = psroi_frame(rois + row * 5, shape);
  plan.frames[r] = frame;
  if (frame.image < 0) return;
  const int64_t part_plane = static_cast<int64_t>(shape.part) * shape.part;
  for (int64_t cls = 0; cls < shape.classes; ++cls) {
    const float* field = trans ? trans + (row * shape.classes + cls) * 2 * part_plane : nullptr;
    const int64_t first_bin = (r * shape.classes + cls) * shape.bins();
    for (int ph = 0; ph < shape.pooled; ++ph) {
      for (int pw = 0; pw < shape.pooled; ++pw) {
        const int64_t index = first_bin + static_cast<int64_t>(ph) * shape.pooled + pw;
        PsRoiTap* taps = plan.taps + index * 2 * plan.taps_per_axis;
        plan.bins[index] = psroi_bin(frame, shape, ph, pw, field, taps, taps + plan.taps_per_axis);
      }
    }
  }
}

void locate_chunk(Plan* plan, const float* rois, const float* trans, int64_t first) {
  plan->first = first;
  plan->rois = std::min(plan->chunk, plan->shape.rois - first);
#pragma omp parallel for num_threads(thread_count(plan->rois))
  for (int64_t r = 0; r < plan->rois; ++r) locate_roi(*plan, rois, trans, r);
}

// Where plane `task` of the packed map lies: lanes of one image, class, block and group.
struct Plane {
  int64_t offset;   // in the packed map
  int64_t channel;  // first one, counted over all images
  int lanes;        // channels that exist
};

int64_t plane_count(const Plan& plan) {
  return plan.shape.images * plan.all_blocks() * plan.groups();
}

Plane plane_at(const Plan& plan, int64_t task) {
  const int64_t groups = plan.groups();
  const int64_t block = task / groups % plan.blocks;
  const int64_t cls = task / groups / plan.blocks % plan.shape.classes;
  const int64_t image = task / groups / plan.all_blocks();
  const int64_t first = cls * plan.shape.class_channels() + block * plan.lanes;
  return {task * plan.plane, image * plan.shape.channels() + first * groups + task % groups,
          plan.block_lanes(block)};
}

void pack_map(const Plan& plan, const float* data, float* packed) {
  const int64_t pixels = plan.shape.height * plan.shape.width;
  const int64_t planes = plane_count(plan);
#pragma omp parallel for num_threads(thread_count(planes))
  for (int64_t task = 0; task < planes; ++task) {
    const Plane plane = plane_at(plan, task);
    pack_rows(data + plane.channel * pixels, plan.groups() * pixels, plane.lanes, pixels,
              plan.lanes, packed + plane.offset);
  }
}

void unpack_map(const Plan& plan, const float* packed, float* data) {
  const int64_t pixels = plan.shape.height * plan.shape.width;
  const int64_t planes = plane_count(plan);
#pragma omp parallel for num_threads(thread_count(planes))
  for (int64_t task = 0; task < planes; ++task) {
    const Plane plane = plane_at(plan, task);
    unpack_rows(packed + plane.offset, pixels, plan.lanes, plane.lanes, plan.groups() * pixels,
                data + plane.channel * pixels);
  }
}

PsRoiBins roi_of(const Plan& plan, int64_t r, int64_t cls) {
  const int64_t bins = plan.shape.bins();
  const int64_t first = (r * plan.shape.classes + cls) * bins;
  return {plan.bins + first,
          plan.taps + first * 2 * plan.taps_per_axis,
          bins,
          plan.taps_per_axis,
          plan.plane,
          plan.shape.width};
}

// Offset of the output of RoI `r` of the chunk at the first channel of a block.
int64_t output_offset(const Plan& plan, int64_t r, int64_t cls, int64_t block) {
  const int64_t channel = cls * plan.shape.class_channels() + block * plan.lanes;
  return ((plan.first + r) * plan.shape.output_dim + channel) * plan.shape.bins();
}

void pool_block(const Plan& plan, const float* packed, int64_t r, int64_t cls, int64_t block,
                float* tile, float* output) {
  const int64_t bins = plan.shape.bins();
  const int rows = plan.block_lanes(block);
  float* out = output + output_offset(plan, r, cls, block);
  if (plan.frames[r].image < 0) {
    std::fill(out, out + rows * bins, 0.0f);
    return;
  }
  const float* map = packed + plan.block_offset(plan.frames[r].image, cls, block);
  (plan.lanes == kPsRoiWideLanes ? psroi_pool_wide : psroi_pool_narrow)(roi_of(plan, r, cls), map,
                                                                        tile);
  unpack_rows(tile, bins, plan.lanes, rows, bins, out);
}

// Gradients of one block of channels of one image, over the RoIs of the chunk.
void spread_block(const Plan& plan, int64_t image, int64_t cls, int64_t block,
                  const float* output_grad, const float* packed, float* tile, float* packed_grad,
                  float* shift_grad) {
  const int64_t bins = plan.shape.bins();
  const int64_t offset = plan.block_offset(image, cls, block);
  for (int64_t r = 0; r < plan.rois; ++r) {
    if (plan.frames[r].image != image) continue;
    pack_rows(output_grad + output_offset(plan, r, cls, block), bins, plan.block_lanes(block), bins,
              plan.lanes, tile);
    float* shifts = nullptr;
    if (shift_grad) {
      shifts = shift_grad + ((r * plan.shape.classes + cls) * plan.blocks + block) * bins * 2;
    }
    (plan.lanes == kPsRoiWideLanes ? psroi_spread_wide : psroi_spread_narrow)(
        roi_of(plan, r, cls), tile, packed + offset, packed_grad + offset, shifts);
  }
}

// Adds the shifts of the bins of RoI `r` to the offset cells that moved them.
void collect_trans_grad(const Plan& plan, int64_t r, const float* shift_grad, float* trans_grad) {
  const PsRoiShape& shape = plan.shape;
  const PsRoiFrame& frame = plan.frames[r];
  const int64_t part_plane = static_cast<int64_t>(shape.part) * shape.part;
  float* out = trans_grad + (plan.first + r) * shape.classes * 2 * part_plane;
  std::fill(out, out + shape.classes * 2 * part_plane, 0.0f);
  if (frame.image < 0) return;
  for (int64_t cls = 0; cls < shape.classes; ++cls) {
    float* field = out + cls * 2 * part_plane;
    for (int64_t b = 0; b < shape.bins(); ++b) {
      const int64_t cell = static_cast<int64_t>(psroi_part(b / shape.pooled, shape)) * shape.part +
                           psroi_part(b % shape.pooled, shape);
      for (int64_t block = 0; block < plan.blocks; ++block) {
        const float* shift =
            shift_grad + (((r * shape.classes + cls) * plan.blocks + block) * shape.bins() + b) * 2;
        field[cell] += psroi_offset_grad(shift[0], frame.width, shape);
        field[part_plane + cell] += psroi_offset_grad(shift[1], frame.height, shape);
      }
    }
  }
}

}  // namespace

void psroi_forward_cpu(const PsRoiShape& shape, const float* data, const float* rois,
                       const float* trans, float* output) {
  if (psroi_is_plain(shape, trans != nullptr)) {
    return psroi_plain_forward_cpu(shape, data, rois, output);
  }
  Plan plan = make_plan(shape);
  const int threads = thread_count(shape.rois * plan.all_blocks());
  float* packed = workspace.map.take<float>(plan.map_floats());
  float* tiles = workspace.tiles.take<float>(threads * plan.tile_floats());
  pack_map(plan, data, packed);
  for (int64_t first = 0; first < shape.rois; first += plan.chunk) {
    locate_chunk(&plan, rois, trans, first);
    const int64_t parts = (plan.rois + kRoisPerTask - 1) / kRoisPerTask;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t task = 0; task < parts * plan.all_blocks(); ++task) {
      const int64_t begin = task % parts * kRoisPerTask;
      const int64_t end = std::min(begin + kRoisPerTask, plan.rois);
      const int64_t cls = task / parts / plan.blocks;
      const int64_t block = task / parts % plan.blocks;
      float* tile = tiles + omp_get_thread_num() * plan.tile_floats();
      for (int64_t r = begin; r < end; ++r) pool_block(plan, packed, r, cls, block, tile, output);
    }
  }
}

void psroi_backward_cpu(const PsRoiShape& shape, const float* output_grad, const float* data,
                        const float* rois, const float* trans, float* data_grad,
                        float* trans_grad) {
  if (psroi_is_plain(shape, trans != nullptr)) {
    return psroi_plain_backward_cpu(shape, output_grad, rois, data_grad);
  }
  Plan plan = make_plan(shape);
  const int64_t tasks = shape.images * plan.all_blocks();
  const int threads = thread_count(tasks);
  float* packed = workspace.map.take<float>(trans ? plan.map_floats() : 0);
  float* packed_grad = workspace.map_grad.take<float>(plan.map_floats());
  float* shift_grad =
      workspace.shifts.take<float>(plan.chunk * plan.all_blocks() * shape.bins() * 2);
  float* tiles = workspace.tiles.take<float>(threads * plan.tile_floats());
  if (trans) pack_map(plan, data, packed);
  std::fill(packed_grad, packed_grad + plan.map_floats(), 0.0f);
  for (int64_t first = 0; first < shape.rois; first += plan.chunk) {
    locate_chunk(&plan, rois, trans, first);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t task = 0; task < tasks; ++task) {
      const int64_t block = task % plan.blocks;
      const int64_t cls = task / plan.blocks % shape.classes;
      spread_block(plan, task / plan.all_blocks(), cls, block, output_grad, packed,
                   tiles + omp_get_thread_num() * plan.tile_floats(), packed_grad,
                   trans ? shift_grad : nullptr);
    }
    if (!trans) continue;
#pragma omp parallel for num_threads(thread_count(plan.rois))
    for (int64_t r = 0; r < plan.rois; ++r) collect_trans_grad(plan, r, shift_grad, trans_grad);
  }
  unpack_map(plan, packed_grad, data_grad);
}

}  // namespace sniper
