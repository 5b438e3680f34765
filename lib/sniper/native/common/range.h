// Limits of the numbers that an operator takes. Each is stated once, in the operator's header, for
// the attributes of graphs and for the arguments of the host functions.
#ifndef SNIPER_NATIVE_COMMON_RANGE_H_
#define SNIPER_NATIVE_COMMON_RANGE_H_

namespace sniper {

struct Range {
  double low, high;  // both are allowed
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_RANGE_H_
