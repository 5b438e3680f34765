// A window at a random place of a level, with an object in it where one is found (the training of
// detectors without chips: random crops, 25 tries for one with the centre of an object inside).
#ifndef SNIPER_NATIVE_RANDOM_CROP_H_
#define SNIPER_NATIVE_RANDOM_CROP_H_

#include <cstdint>

#include "chip_generator/chip_generator.h"
#include "epoch_chips/epoch_chips.h"

namespace sniper {

// Whether the centre of a box, both in image px, lies inside the window.
bool holds_centre(const ChipRect& rect, const float* box);

// A window of `request.chip_size` scaled px, less where the level is smaller. `boxes` are corners of
// `count` objects, image px; without any the first window drawn is taken.
ChipRect random_crop(const ChipRequest& request, const float* boxes, int64_t count,
                     uint64_t* random);

}  // namespace sniper

#endif  // SNIPER_NATIVE_RANDOM_CROP_H_
