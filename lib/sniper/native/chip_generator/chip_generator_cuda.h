// Launchers of ChipGenerator in libsniper_cuda.so; common/cuda_api.h says what they promise.
#ifndef SNIPER_NATIVE_CHIP_GENERATOR_CHIP_GENERATOR_CUDA_H_
#define SNIPER_NATIVE_CHIP_GENERATOR_CHIP_GENERATOR_CUDA_H_

#include "chip_generator/chip_generator.h"
#include "common/cuda_api.h"

SNIPER_CUDA_API int sniper_chip_generator_workspace(const sniper::ChipGeneratorParams* params,
                                                    std::size_t* bytes);

// The graph operator: boxes_im (num_boxes, 4), padding allowed; chips_im (max_chips, 4) in the
// order of selection, padded with -1; count (1).
SNIPER_CUDA_API int sniper_chip_generator_forward(const sniper::ChipGeneratorParams* params,
                                                  const float* boxes_im, float* chips_im,
                                                  float* count, void* workspace, void* stream);

#endif  // SNIPER_NATIVE_CHIP_GENERATOR_CHIP_GENERATOR_CUDA_H_
