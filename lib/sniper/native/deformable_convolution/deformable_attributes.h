// What the operators of deformable convolution have in common: window, groups of offsets, layout.
#ifndef SNIPER_NATIVE_DEFORMABLE_CONVOLUTION_DEFORMABLE_ATTRIBUTES_H_
#define SNIPER_NATIVE_DEFORMABLE_CONVOLUTION_DEFORMABLE_ATTRIBUTES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "common/attrs.h"
#include "common/input_shapes.h"
#include "deformable_convolution/deformable_convolution.h"

namespace sniper {

constexpr Range kDeformableChannelRange = {1, 1 << 20};
constexpr Range kDeformableWindowRange = {1, 1 << 10};
constexpr std::int64_t kMostDeformableTaps = 1 << 12;

struct DeformableAttributes {
  DeformableShape sizes{};  // those of the tensors are not known yet

  explicit DeformableAttributes(Attrs& attrs) {
    attrs.require({"kernel"});
    read(attrs, "kernel", kDeformableWindowRange, 1, &DeformableAxis::kernel);
    read(attrs, "stride", kDeformableWindowRange, 1, &DeformableAxis::stride);
    read(attrs, "dilate", kDeformableWindowRange, 1, &DeformableAxis::dilate);
    read(attrs, "pad", {0, kDeformableWindowRange.high}, 0, &DeformableAxis::pad);
    if (sizes.taps() > kMostDeformableTaps) {
      throw attrs.error("attribute 'kernel' has " + std::to_string(sizes.taps()) +
                        " cells, expected at most " + std::to_string(kMostDeformableTaps));
    }
    sizes.groups = attrs.get_int("num_deformable_group", std::int64_t{1}, kDeformableChannelRange);
    sizes.conv_groups = 1;
    attrs.get_word("layout", {"None", "NCHW"});
    attrs.ignore({"workspace", "im2col_step"});  // of MXNet's: no memory is borrowed here
  }

  // Checks `data` and `offset`; "N" is named.
  DeformableShape shape(InputShapes& in) const {
    in.match("data", {"N", "channels", "h", "w"});
    DeformableShape shape = sizes;
    shape.images = in["N"];
    shape.channels = in["channels"];
    set_cells(in["h"], in["w"], &shape);
    in.require(shape.y.out >= 1 && shape.x.out >= 1, "data",
               "a map that is as large as the window at least");
    in.require(shape.channels % shape.groups == 0, "data",
               "channels that num_deformable_group = " + std::to_string(shape.groups) + " divides");
    const std::int64_t fields = shape.groups * shape.taps() * 2;
    in.match("offset",
             {"N", static_cast<std::uint64_t>(fields), static_cast<std::uint64_t>(shape.y.out),
              static_cast<std::uint64_t>(shape.x.out)});
    return shape;
  }

  // Of a call; `data` is the number of the input of this name.
  template <class Call>
  DeformableShape shape(const Call& call, std::size_t data) const {
    DeformableShape shape = sizes;
    shape.images = call.size(data, 0);
    shape.channels = call.size(data, 1);
    set_cells(call.size(data, 2), call.size(data, 3), &shape);
    return shape;
  }

 private:
  // Two numbers, y and x.
  void read(Attrs& attrs, const char* name, Range range, std::int64_t fallback,
            std::int64_t DeformableAxis::* member) {
    const std::vector<std::int32_t> values = attrs.get_ints(name, range, 2);
    if (values.size() == 1) {
      throw attrs.error("attribute '" + std::string(name) + "' has 1 number, expected 2");
    }
    sizes.y.*member = values.empty() ? fallback : values[0];
    sizes.x.*member = values.empty() ? fallback : values[1];
  }

  static void set_cells(std::int64_t height, std::int64_t width, DeformableShape* shape) {
    shape->y.in = height;
    shape->x.in = width;
    shape->y.out = deformable_cells(shape->y);
    shape->x.out = deformable_cells(shape->x);
  }
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_DEFORMABLE_CONVOLUTION_DEFORMABLE_ATTRIBUTES_H_
