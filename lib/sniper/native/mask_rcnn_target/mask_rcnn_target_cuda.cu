// CUDA kernel of MaskRcnnTarget.
//
// Scan rows are independent, so a block rasterises one band of rows of one roi in shared memory:
// its threads take the edges of a segment and flip one bit per crossing, then each fills rows by
// prefix parity and adds them to the mask.

#include "common/cuda.cuh"
#include "mask_rcnn_target/mask_rcnn_target_cuda.h"

namespace sniper {
namespace {

constexpr int kThreads = 128;
constexpr int kWordBits = 32;
constexpr int kBandWords = 2048;  // of one band; a row of the largest mask has 32

// Scan rows that a block rasterises.
struct Band {
  int first, rows;
  int words;  // of one row
};

int words_of(int mask_size) { return static_cast<int>(ceil_div(mask_size, kWordBits)); }

int band_rows(int mask_size) {
  const int rows = kBandWords / words_of(mask_size);
  return rows < mask_size ? rows : mask_size;
}

// Flips, for every row of the band that the edge crosses, the first pixel behind the crossing.
__device__ void flip_crossings(const MaskVertex& a, const MaskVertex& b, int mask_size,
                               const Band& band, unsigned* flips) {
  const bool rising = a.rows_before < b.rows_before;
  int row = rising ? a.rows_before : b.rows_before;
  int end = rising ? b.rows_before : a.rows_before;
  if (row < band.first) row = band.first;
  if (end > band.first + band.rows) end = band.first + band.rows;
  for (; row < end; ++row) {
    const int pixel = mask_crossing(a, b, row, mask_size);
    if (pixel >= mask_size) continue;
    atomicXor(flips + (row - band.first) * band.words + pixel / kWordBits,
              1u << (pixel % kWordBits));
  }
}

// Flips the crossings of a segment, one thread per edge; false when a vertex of this thread is not
// finite.
__device__ bool trace_segment(const MaskFrame& frame, int mask_size, const float* points,
                              int num_vertices, const Band& band, unsigned* flips) {
  bool finite = true;
  for (int i = static_cast<int>(threadIdx.x); i < num_vertices; i += kThreads) {
    const float* from = points + 2 * (i > 0 ? i - 1 : num_vertices - 1);
    const float* to = points + 2 * i;
    MaskVertex a, b;
    if (mask_vertex(frame, mask_size, from[0], from[1], &a) &&
        mask_vertex(frame, mask_size, to[0], to[1], &b)) {
      flip_crossings(a, b, mask_size, band, flips);
    } else {
      finite = false;
    }
  }
  return finite;
}

// Adds the pixels between the flips of a row to the mask and clears the flips.
__device__ void fill_row(int words, unsigned* flips, unsigned* mask) {
  unsigned carry = 0;  // all bits set when the word begins inside
  for (int w = 0; w < words; ++w) {
    unsigned inside = flips[w];
    for (int shift = 1; shift < kWordBits; shift *= 2) inside ^= inside << shift;
    inside ^= carry;
    carry = inside >> (kWordBits - 1) ? 0xFFFFFFFFu : 0u;
    mask[w] |= inside;
    flips[w] = 0;
  }
}

// Rasterises all segments into `mask`; false when the target is ignored. The same for all threads.
__device__ bool rasterise(const MaskPolygon& polygon, const MaskFrame& frame, int mask_size,
                          const Band& band, unsigned* flips, unsigned* mask) {
  __shared__ int finite;
  if (threadIdx.x == 0) finite = 1;
  for (int i = static_cast<int>(threadIdx.x); i < band.rows * band.words; i += kThreads) {
    flips[i] = 0;
    mask[i] = 0;
  }
  const float* points = polygon.points;
  for (int k = 0; k < polygon.segments; ++k) {
    __syncthreads();
    const int length = static_cast<int>(polygon.lengths[k]);
    if (!trace_segment(frame, mask_size, points, length / 2, band, flips)) finite = 0;
    points += length;
    __syncthreads();
    if (!finite) return false;
    for (int row = static_cast<int>(threadIdx.x); row < band.rows; row += kThreads) {
      fill_row(band.words, flips + row * band.words, mask + row * band.words);
    }
  }
  __syncthreads();
  return polygon.segments > 0;
}

__global__ void mask_kernel(MaskRcnnTargetParams params, Band shape, const float* rois,
                            const float* mask_polys, const float* mask_ids, float* targets,
                            float* classes) {
  __shared__ unsigned flips[kBandWords], mask[kBandWords];
  const int size = params.mask_size;
  const std::int64_t bands = ceil_div(size, shape.rows);
  for (std::int64_t task = blockIdx.x; task < params.num_rois * bands; task += gridDim.x) {
    const std::int64_t n = task / bands;
    Band band = shape;
    band.first = static_cast<int>(task % bands) * shape.rows;
    if (band.rows > size - band.first) band.rows = size - band.first;
    const float* roi = rois + 5 * n;
    const MaskPolygon polygon = mask_polygon(params, mask_polys, roi, mask_ids[n]);
    const bool real = rasterise(polygon, mask_frame(roi), size, band, flips, mask);
    const float cls = real ? polygon.cls : 0.0f;
    const std::int64_t start = (n * size + band.first) * size;
    for (int i = static_cast<int>(threadIdx.x); i < band.rows * size; i += kThreads) {
      const int pixel = i % size;
      const unsigned word = mask[i / size * band.words + pixel / kWordBits];
      const float inside = static_cast<float>(word >> (pixel % kWordBits) & 1u);
      targets[start + i] = real ? inside : params.ignore_label;
      classes[start + i] = cls;
    }
    __syncthreads();
  }
}

}  // namespace
}  // namespace sniper

// The kernel needs no scratch memory.
SNIPER_CUDA_API int sniper_mask_rcnn_target_workspace(const sniper::MaskRcnnTargetParams*,
                                                      std::size_t* bytes) {
  *bytes = 0;
  return cudaSuccess;
}

// As mask_rcnn_target_cpu, with the same bits. `mask_size` is at most 65536.
SNIPER_CUDA_API int sniper_mask_rcnn_target_forward(const sniper::MaskRcnnTargetParams* params,
                                                    const float* rois, const float* mask_polys,
                                                    const float* mask_ids, float* targets,
                                                    float* classes, void* /*workspace*/,
                                                    void* stream) {
  const int size = params->mask_size;
  if (size < 1 || size > sniper::kBandWords * sniper::kWordBits) return cudaErrorInvalidValue;
  const sniper::Band band = {0, sniper::band_rows(size), sniper::words_of(size)};
  const std::int64_t tasks = params->num_rois * sniper::ceil_div(size, band.rows);
  SNIPER_LAUNCH(sniper::mask_kernel, sniper::blocks_for(tasks, 1), sniper::kThreads, 0, stream,
                *params, band, rois, mask_polys, mask_ids, targets, classes);
  return cudaGetLastError();
}
