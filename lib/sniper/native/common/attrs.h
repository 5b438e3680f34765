// Attributes of an operator node: MXNet hands them over as the str() of Python values.
#ifndef SNIPER_NATIVE_COMMON_ATTRS_H_
#define SNIPER_NATIVE_COMMON_ATTRS_H_

#include <locale.h>

#include <cctype>
#include <cmath>
#include <cstdlib>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

namespace sniper {

// Typed, checked reader. Every error is one sentence that starts with the operator's name.
//     Attrs attrs("MultiProposal", raw, {"scales", "nms_thresh"});
//     attrs.get_float("nms_thresh", 0.7f);
class Attrs {
 public:
  using Raw = std::unordered_map<std::string, std::string>;

  using Names = std::initializer_list<const char*>;

  // Throws when `raw` has a name that is in neither list; the framework's own `__name__` pass.
  Attrs(const char* op, const Raw& raw, Names known, Names more = {}) : op_(op), raw_(raw) {
    for (const auto& entry : raw) {
      if (entry.first.rfind("__", 0) == 0) continue;
      bool found = false;
      for (const char* name : known) found = found || entry.first == name;
      for (const char* name : more) found = found || entry.first == name;
      if (!found) throw error("unknown attribute '" + entry.first + "'");
    }
  }

  // "3", "3.0" and " 3 " are the integer 3.
  long long get_int(const char* name, long long fallback) const {
    const std::string* text = find(name);
    if (text == nullptr) return fallback;
    const double value = number(name, *text, *text);
    if (value != std::floor(value) || std::fabs(value) > 9007199254740992.0) {
      throw bad(name, *text, "an integer");
    }
    return static_cast<long long>(value);
  }

  // The same, refused outside [low, high].
  long long get_int(const char* name, long long fallback, long long low, long long high) const {
    const long long value = get_int(name, fallback);
    if (value < low || value > high) {
      throw bad(name, std::to_string(value),
                "an integer from " + std::to_string(low) + " to " + std::to_string(high));
    }
    return value;
  }

  float get_float(const char* name, float fallback) const {
    const std::string* text = find(name);
    return text == nullptr ? fallback : static_cast<float>(number(name, *text, *text));
  }

  float get_float(const char* name, float fallback, float low, float high) const {
    const float value = get_float(name, fallback);
    if (!(value >= low && value <= high)) {
      throw bad(name, std::to_string(value),
                "a number from " + std::to_string(low) + " to " + std::to_string(high));
    }
    return value;
  }

  bool get_bool(const char* name, bool fallback) const {
    const std::string* text = find(name);
    if (text == nullptr) return fallback;
    const std::string word = trim(*text);
    if (word == "True" || word == "true" || word == "1") return true;
    if (word == "False" || word == "false" || word == "0") return false;
    throw bad(name, *text, "True or False");
  }

  // "(2, 4, 7.5)", "[0.5, 1]", "(8,)" or a single number.
  std::vector<float> get_floats(const char* name, const std::vector<float>& fallback) const {
    const std::string* text = find(name);
    if (text == nullptr) return fallback;
    std::string body = trim(*text);
    const bool tuple = body.size() >= 2 && body.front() == '(' && body.back() == ')';
    const bool list = body.size() >= 2 && body.front() == '[' && body.back() == ']';
    if (tuple || list) body = trim(body.substr(1, body.size() - 2));
    if (!body.empty() && body.back() == ',') body.pop_back();
    std::vector<float> values;
    std::size_t start = 0;
    while (start < body.size()) {
      std::size_t comma = body.find(',', start);
      if (comma == std::string::npos) comma = body.size();
      values.push_back(static_cast<float>(number(name, body.substr(start, comma - start), *text)));
      start = comma + 1;
    }
    if (values.empty()) throw bad(name, *text, "one number or more");
    return values;
  }

  // The same, every value greater than zero (scales, ratios).
  std::vector<float> get_positive_floats(const char* name,
                                         const std::vector<float>& fallback) const {
    std::vector<float> values = get_floats(name, fallback);
    for (const float value : values) {
      if (!(value > 0.0f)) throw bad(name, std::to_string(value), "numbers greater than 0");
    }
    return values;
  }

  std::runtime_error error(const std::string& what) const {
    return std::runtime_error(std::string(op_) + ": " + what + ".");
  }

 private:
  static std::string trim(const std::string& text) {
    std::size_t first = 0, last = text.size();
    while (first < last && std::isspace(static_cast<unsigned char>(text[first]))) ++first;
    while (last > first && std::isspace(static_cast<unsigned char>(text[last - 1]))) --last;
    return text.substr(first, last - first);
  }

  // A program may have switched the decimal point of plain strtod to a comma.
  static locale_t c_locale() {
    static const locale_t locale = newlocale(LC_ALL_MASK, "C", nullptr);
    return locale;
  }

  const std::string* find(const char* name) const {
    const auto entry = raw_.find(name);
    return entry == raw_.end() ? nullptr : &entry->second;
  }

  std::runtime_error bad(const char* name, const std::string& got,
                         const std::string& expected) const {
    return error("attribute '" + std::string(name) + "' is '" + got + "', expected " + expected);
  }

  double number(const char* name, const std::string& item, const std::string& whole) const {
    const std::string word = trim(item);
    char* end = nullptr;
    const double value = strtod_l(word.c_str(), &end, c_locale());
    if (word.empty() || *end != '\0' || !std::isfinite(value)) throw bad(name, whole, "a number");
    return value;
  }

  const char* op_;
  const Raw& raw_;
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_ATTRS_H_
