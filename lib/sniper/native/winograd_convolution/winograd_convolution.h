// 3x3 convolutions of stride 1 with a quarter of the multiplications: Winograd's F(4x4, 3x3) (Lavin
// and Gray 2016, "Fast Algorithms for Convolutional Neural Networks") on the CPU.
#ifndef SNIPER_NATIVE_WINOGRAD_CONVOLUTION_WINOGRAD_CONVOLUTION_H_
#define SNIPER_NATIVE_WINOGRAD_CONVOLUTION_WINOGRAD_CONVOLUTION_H_

#include <cstdint>

namespace sniper {

// A convolution and its tensors, float32 and dense:
//   data    images x channels x height x width
//   weight  filters x channels x 3 x 3
//   bias    filters
//   output  images x filters x out_height() x out_width()
struct WinogradShape {
  std::int64_t images, channels, filters, height, width;
  std::int64_t pad_y, pad_x;  // zeros on each side
  bool relu;                  // of the sums with the bias

  std::int64_t out_height() const { return height + 2 * pad_y - 2; }
  std::int64_t out_width() const { return width + 2 * pad_x - 2; }
};

// `bias` may be null. The same bits for any number of threads, and for an image alone as in a
// batch.
void winograd_convolution_cpu(const WinogradShape& shape, const float* data, const float* weight,
                              const float* bias, float* output);

// Gradients of data, weight and bias (or null) from that of the output; `output` is read where a
// ReLU cut it. The same bits for any number of threads.
void winograd_gradients_cpu(const WinogradShape& shape, const float* output_grad, const float* data,
                            const float* weight, const float* output, float* data_grad,
                            float* weight_grad, float* bias_grad);

}  // namespace sniper

#endif  // SNIPER_NATIVE_WINOGRAD_CONVOLUTION_WINOGRAD_CONVOLUTION_H_
