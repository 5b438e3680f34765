// Attributes of an operator node: MXNet hands them over as the str() of Python values.
#ifndef SNIPER_NATIVE_COMMON_ATTRS_H_
#define SNIPER_NATIVE_COMMON_ATTRS_H_

#include <locale.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <set>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/range.h"

namespace sniper {

using RawAttrs = std::unordered_map<std::string, std::string>;

// Typed, checked reader. Every error is one sentence that starts with the operator's name.
//     Attrs attrs("MultiProposal", raw);
//     attrs.get_float("threshold", 0.7f, {0, 1});
//     attrs.refuse_unread();
class Attrs {
 public:
  using Names = std::initializer_list<const char*>;

  Attrs(const char* op, const RawAttrs& raw) : op_(op), raw_(raw) {}

  // Throws when one of them is not given.
  void require(Names names) const {
    for (const char* name : names) {
      if (raw_.count(name) == 0) throw error("attribute '" + std::string(name) + "' is missing");
    }
  }

  // Allows attributes that have no effect: symbol files of 2018 hold them.
  void ignore(Names names) { read_.insert(names.begin(), names.end()); }

  // Throws when there is an attribute that nobody has asked for; the framework's `__name__` pass.
  void refuse_unread() const {
    for (const auto& entry : raw_) {
      if (entry.first.rfind("__", 0) == 0 || read_.count(entry.first) != 0) continue;
      throw error("unknown attribute '" + shortened(entry.first) + "'");
    }
  }

  // "3", "3.0" and " 3 " are the integer 3. The range lies within Int.
  template <class Int>
  Int get_int(const char* name, Int fallback, Range range) {
    const std::string* text = find(name);
    if (text == nullptr) return fallback;
    const double value = number(*text);
    if (!within(value, range) || value != std::floor(value)) {
      throw bad(name, *text, "an integer " + range_text("%.0f", range));
    }
    return static_cast<Int>(value);
  }

  double get_double(const char* name, double fallback, Range range) {
    const std::string* text = find(name);
    if (text == nullptr) return fallback;
    const double value = number(*text);
    if (!within(value, range)) throw bad(name, *text, "a number " + range_text("%g", range));
    return value;
  }

  float get_float(const char* name, float fallback, Range range) {
    return static_cast<float>(get_double(name, fallback, range));
  }

  bool get_bool(const char* name, bool fallback) {
    const std::string* text = find(name);
    if (text == nullptr) return fallback;
    const std::string word = trim(*text);
    if (word == "True" || word == "true" || word == "1") return true;
    if (word == "False" || word == "false" || word == "0") return false;
    throw bad(name, *text, "True or False");
  }

  // "(2, 4, 7.5)", "[0.5, 1]", "(8,)" or a single number.
  std::vector<float> get_floats(const char* name, const std::vector<float>& fallback, Range range) {
    const std::string* text = find(name);
    if (text == nullptr) return fallback;
    const std::vector<std::string> items = list_items(*text);
    bool right = !items.empty() && items.size() <= kMaxItems;
    std::vector<float> values;
    for (const std::string& item : items) {
      const double value = number(item);
      right = right && within(value, range);
      values.push_back(static_cast<float>(value));
    }
    if (!right) {
      throw bad(name, *text,
                "1 to " + std::to_string(kMaxItems) + " numbers " + range_text("%g", range));
    }
    return values;
  }

  // A list like that of integers, at most `most`; empty when the attribute is not given.
  std::vector<std::int32_t> get_ints(const char* name, Range range, std::size_t most) {
    std::vector<std::int32_t> values;
    const std::string* text = find(name);
    if (text == nullptr) return values;
    const std::vector<std::string> items = list_items(*text);
    bool right = !items.empty() && items.size() <= most;
    for (std::size_t i = 0; right && i < items.size(); ++i) {
      const double value = number(items[i]);
      right = within(value, range) && value == std::floor(value);
      if (right) values.push_back(static_cast<std::int32_t>(value));
    }
    if (!right) {
      throw bad(name, *text,
                "1 to " + std::to_string(most) + " integers " + range_text("%.0f", range));
    }
    return values;
  }

  // One of some words; the first one when the attribute is not given.
  std::string get_word(const char* name, Names words) {
    const std::string* text = find(name);
    if (text == nullptr) return *words.begin();
    std::string choices;
    for (const char* word : words) {
      if (trim(*text) == word) return word;
      choices += std::string(choices.empty() ? "'" : " or '") + word + "'";
    }
    throw bad(name, *text, choices);
  }

  // An integer of 64 bits, with a sign or without; negative ones count from 2^64 down.
  std::uint64_t get_seed(const char* name) {
    const std::string* text = find(name);
    if (text == nullptr) return 0;
    const std::string word = trim(*text);
    const bool negative = !word.empty() && word.front() == '-';
    const std::string digits = word.substr(negative ? 1 : 0);
    errno = 0;
    const std::uint64_t value = std::strtoull(digits.c_str(), nullptr, 10);
    const bool is_number =
        !digits.empty() && digits.find_first_not_of("0123456789") == std::string::npos;
    if (!is_number || errno != 0 || (negative && value > std::uint64_t{1} << 63)) {
      throw bad(name, *text, "an integer of 64 bits");
    }
    return negative ? -value : value;
  }

  std::runtime_error error(const std::string& what) const {
    return std::runtime_error(std::string(op_) + ": " + what + ".");
  }

 private:
  static constexpr std::size_t kMaxItems = 1024;  // of a list
  static constexpr std::size_t kMaxText = 120;    // bytes of a wrong value in a message

  static std::string trim(const std::string& text) {
    std::size_t first = 0, last = text.size();
    while (first < last && std::isspace(static_cast<unsigned char>(text[first]))) ++first;
    while (last > first && std::isspace(static_cast<unsigned char>(text[last - 1]))) --last;
    return text.substr(first, last - first);
  }

  static std::vector<std::string> list_items(const std::string& text) {
    std::string body = trim(text);
    const bool tuple = body.size() >= 2 && body.front() == '(' && body.back() == ')';
    const bool list = body.size() >= 2 && body.front() == '[' && body.back() == ']';
    if (tuple || list) body = trim(body.substr(1, body.size() - 2));
    if (!body.empty() && body.back() == ',') body.pop_back();
    std::vector<std::string> items;
    for (std::size_t start = 0; start < body.size();) {
      const std::size_t comma = std::min(body.find(',', start), body.size());
      items.push_back(body.substr(start, comma - start));
      start = comma + 1;
    }
    return items;
  }

  static std::string shortened(const std::string& text) {
    if (text.size() <= kMaxText) return text;
    std::size_t end = kMaxText;
    while (end > 0 && (text[end] & 0xC0) == 0x80) --end;  // not within a character of UTF-8
    return text.substr(0, end) + "...";
  }

  // A program may have switched the decimal point of plain strtod to a comma.
  static locale_t c_locale() {
    static const locale_t locale = newlocale(LC_ALL_MASK, "C", nullptr);
    return locale;
  }

  // NaN when the text is no number.
  static double number(const std::string& text) {
    const std::string word = trim(text);
    char* end = nullptr;
    const double value = strtod_l(word.c_str(), &end, c_locale());
    return word.empty() || *end != '\0' ? std::nan("") : value;
  }

  static bool within(double value, Range range) {
    return value >= range.low && value <= range.high;
  }

  static std::string range_text(const char* format, Range range) {
    char low[32], high[32];
    std::snprintf(low, sizeof(low), format, range.low);
    std::snprintf(high, sizeof(high), format, range.high);
    return std::string("from ") + low + " to " + high;
  }

  const std::string* find(const char* name) {
    read_.insert(name);
    const auto entry = raw_.find(name);
    return entry == raw_.end() ? nullptr : &entry->second;
  }

  std::runtime_error bad(const char* name, const std::string& got,
                         const std::string& expected) const {
    return error("attribute '" + std::string(name) + "' is '" + shortened(got) + "', expected " +
                 expected);
  }

  const char* op_;
  const RawAttrs& raw_;
  std::set<std::string> read_;
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_ATTRS_H_
