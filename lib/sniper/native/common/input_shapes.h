// Shapes of an operator's inputs, checked while those of its outputs are inferred.
#ifndef SNIPER_NATIVE_COMMON_INPUT_SHAPES_H_
#define SNIPER_NATIVE_COMMON_INPUT_SHAPES_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace sniper {

using Shape = std::vector<unsigned int>;
using Shapes = std::vector<Shape>;

// A dimension as an operator expects it: a number, or a name that stands for the same number
// everywhere.
struct Dimension {
  Dimension(const char* name) : name(name), size(0) {}                  // NOLINT: implicit
  Dimension(std::uint64_t size) : name(nullptr), size(size) {}          // NOLINT: implicit
  Dimension(unsigned int size) : name(nullptr), size(size) {}           // NOLINT: implicit
  Dimension(int size) : Dimension(static_cast<std::uint64_t>(size)) {}  // NOLINT: implicit

  const char* name;  // null for a number
  std::uint64_t size;
};

// The shapes of the inputs of one call, while those of the outputs are inferred.
class InputShapes {
 public:
  InputShapes(const char* op, const char* const* names, Shapes& shapes)
      : op_(op), names_(names), shapes_(shapes) {}

  // The shape of an input. Throws unless it is fully known: MXNet passes an unknown shape as empty
  // and an unknown dimension as 0 or 2^32 - 1, and would "infer" on with them.
  const Shape& known(const char* input) const {
    const Shape& shape = of(input);
    if (shape.empty()) throw error(input, "has an unknown shape, give it one when binding");
    for (const unsigned int size : shape) {
      if (size != 0 && size != 0xFFFFFFFFu) continue;
      throw error(input, "has an unknown or empty dimension in its shape " + text(shape));
    }
    return shape;
  }

  // Throws unless the input has these dimensions; names get their numbers at their first use.
  // `note` ends the message.
  void match(const char* input, std::initializer_list<Dimension> wanted,
             const std::string& note = "") {
    const Shape& shape = known(input);
    bool fits = shape.size() == wanted.size();
    std::map<std::string, std::uint64_t> named = named_;
    for (std::size_t i = 0; fits && i < shape.size(); ++i) {
      const Dimension& dimension = wanted.begin()[i];
      fits = shape[i] == (dimension.name == nullptr
                              ? dimension.size
                              : named.emplace(dimension.name, shape[i]).first->second);
    }
    if (!fits) throw mismatch(input, shape, wanted, note);
    named_ = named;
  }

  // The same for a parameter, whose shape follows from those of the other inputs where it is not
  // known yet; `wanted` are numbers.
  void infer(const char* input, std::initializer_list<Dimension> wanted) {
    Shape& shape = of(input);
    if (shape.empty()) {
      for (const Dimension& dimension : wanted) {
        shape.push_back(static_cast<unsigned int>(dimension.size));
      }
    }
    match(input, wanted);
  }

  // Throws unless `holds`; `expected` describes the right shape.
  void require(bool holds, const char* input, const std::string& expected) const {
    if (holds) return;
    throw error(input, "has shape " + text(known(input)) + ", expected " + expected);
  }

  // The number that a name of a matched input stands for.
  unsigned int operator[](const char* name) const {
    return static_cast<unsigned int>(named_.at(name));
  }

  const char* op() const { return op_; }

 private:
  Shape& of(const char* input) const {
    std::size_t i = 0;
    while (i < shapes_.size() && std::strcmp(names_[i], input) != 0) ++i;
    return shapes_.at(i);
  }

  static std::string text(const Shape& shape) {
    std::vector<std::string> sizes;
    for (const unsigned int size : shape) sizes.push_back(std::to_string(size));
    return text(sizes);
  }

  static std::string text(const std::vector<std::string>& sizes) {
    std::string joined;
    for (const std::string& size : sizes) joined += (joined.empty() ? "" : ", ") + size;
    return "(" + joined + (sizes.size() == 1 ? ",)" : ")");
  }

  std::runtime_error error(const char* input, const std::string& what) const {
    return std::runtime_error(std::string(op_) + ": input '" + input + "' " + what + ".");
  }

  std::runtime_error mismatch(const char* input, const Shape& shape,
                              std::initializer_list<Dimension> wanted,
                              const std::string& note) const {
    std::vector<std::string> sizes;
    for (const Dimension& dimension : wanted) {
      const bool open = dimension.name != nullptr && named_.count(dimension.name) == 0;
      sizes.push_back(open ? dimension.name
                           : std::to_string(dimension.name == nullptr ? dimension.size
                                                                      : named_.at(dimension.name)));
    }
    return error(input, "has shape " + text(shape) + ", expected " + text(sizes) + note);
  }

  const char* op_;
  const char* const* names_;
  Shapes& shapes_;
  std::map<std::string, std::uint64_t> named_;
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_INPUT_SHAPES_H_
