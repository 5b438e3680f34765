#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

#include "annotation_scan/annotation_scan.h"

namespace sniper {
namespace {

constexpr int kMostNested = 64;
constexpr int kMostDigits = 18;  // that any int64 holds
constexpr int kMinPolygonNumbers = 6;
constexpr double kPowers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                              1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                              1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

bool is_digit(char sign) { return sign >= '0' && sign <= '9'; }

struct Number {
  double value;
  int64_t integer;
  bool is_integer;
};

// All functions step over what they read, and return false where it is not there.
class Reader {
 public:
  Reader(const char* place, const char* end) : place_(place), end_(end) {}

  const char* place() const { return place_; }
  void go_to(const char* place) { place_ = place; }
  bool is_at_end() const { return place_ == end_; }
  char next() const { return place_ < end_ ? *place_ : '\0'; }

  void blanks() {
    while (place_ < end_ &&
           (*place_ == ' ' || *place_ == '\n' || *place_ == '\t' || *place_ == '\r'))
      ++place_;
  }

  bool sign(char wanted) {
    if (next() != wanted) return false;
    ++place_;
    return true;
  }

  // A sign with blanks around it.
  bool mark(char wanted) {
    blanks();
    if (!sign(wanted)) return false;
    blanks();
    return true;
  }

  bool word(const char* wanted) {
    const int64_t length = std::strlen(wanted);
    if (end_ - place_ < length || std::memcmp(place_, wanted, length) != 0) return false;
    place_ += length;
    return true;
  }

  bool number(Number* number) {
    const char* start = place_;
    const bool negative = sign('-');
    uint64_t mantissa = 0;
    int digits = 0;
    const char* first = place_;
    if (!read_digits(&mantissa, &digits)) return false;
    if (*first == '0' && place_ - first > 1) return false;
    int exponent = 0;
    bool is_integer = true;
    if (next() == '.') {
      ++place_;
      is_integer = false;
      const char* fraction = place_;
      if (!read_digits(&mantissa, &digits)) return false;
      exponent = -static_cast<int>(place_ - fraction);
    }
    if (next() == 'e' || next() == 'E') {
      is_integer = false;
      if (!skip_exponent()) return false;
      digits = kMostDigits + 1;  // rare: no short way
    }
    number->is_integer = is_integer;
    if (digits <= kMostDigits) {
      const int64_t whole = negative ? -static_cast<int64_t>(mantissa) : mantissa;
      number->integer = whole;
      if (is_integer) {
        number->value = static_cast<double>(whole);
        return true;
      }
      // Both are exact, so that the quotient is rounded once, as it should be.
      if (mantissa <= (uint64_t{1} << 53) && exponent >= -22) {
        const double value = static_cast<double>(mantissa) / kPowers[-exponent];
        number->value = negative ? -value : value;
        return true;
      }
    }
    return !is_integer && slow_number(start, &number->value);
  }

  bool string() {
    if (!sign('"')) return false;
    while (place_ < end_) {
      const unsigned char sign = *place_++;
      if (sign == '"') return true;
      if (sign < ' ') return false;
      if (sign == '\\' && !escape()) return false;
    }
    return false;
  }

  bool value(int nested = 0) {
    switch (next()) {
      case '"':
        return string();
      case '{':
        return nested < kMostNested && object(nested);
      case '[':
        return nested < kMostNested && list(nested);
      case 't':
        return word("true");
      case 'f':
        return word("false");
      case 'n':
        return word("null");
      default:
        return skip_number();
    }
  }

 private:
  bool read_digits(uint64_t* mantissa, int* digits) {
    const char* start = place_;
    uint64_t value = *mantissa;
    while (place_ < end_ && is_digit(*place_)) value = 10 * value + (*place_++ - '0');
    *mantissa = value;  // of more than kMostDigits digits, nonsense
    const int64_t count = place_ - start;
    *digits = count > kMostDigits ? kMostDigits + 1 : *digits + static_cast<int>(count);
    return count > 0;
  }

  bool skip_digits() {
    const char* start = place_;
    while (place_ < end_ && is_digit(*place_)) ++place_;
    return place_ > start;
  }

  bool skip_exponent() {
    ++place_;
    if (next() == '+' || next() == '-') ++place_;
    return skip_digits();
  }

  bool skip_number() {
    sign('-');
    const char* first = place_;
    if (!skip_digits() || (*first == '0' && place_ - first > 1)) return false;
    if (sign('.') && !skip_digits()) return false;
    return (next() != 'e' && next() != 'E') || skip_exponent();
  }

  bool slow_number(const char* start, double* value) {
#if defined(__cpp_lib_to_chars) && __cpp_lib_to_chars >= 201611L
    const auto result = std::from_chars(start, place_, *value);
    return result.ec == std::errc() && result.ptr == place_ && std::isfinite(*value);
#else
    return false;
#endif
  }

  bool escape() {
    const char sign = place_ < end_ ? *place_++ : '\0';
    if (sign != 'u') return sign != '\0' && std::strchr("\"\\/bfnrt", sign) != nullptr;
    for (int i = 0; i < 4; ++i, ++place_) {
      const char digit = next();
      if (!is_digit(digit) && !(digit >= 'a' && digit <= 'f') && !(digit >= 'A' && digit <= 'F'))
        return false;
    }
    return true;
  }

  bool list(int nested) {
    if (!mark('[')) return false;
    if (sign(']')) return true;
    do {
      if (!value(nested + 1)) return false;
    } while (mark(','));
    return sign(']');
  }

  bool object(int nested) {
    if (!mark('{')) return false;
    if (sign('}')) return true;
    do {
      if (!string() || !mark(':') || !value(nested + 1)) return false;
    } while (mark(','));
    return sign('}');
  }

  const char* place_;
  const char* end_;
};

enum Key { kBox, kId, kImage, kCategory, kArea, kCrowd, kIgnore, kMask, kOther };
constexpr const char* kKeys[kOther] = {"bbox", "id",      "image_id", "category_id",
                                       "area", "iscrowd", "ignore",   "segmentation"};
constexpr unsigned kNeeded = 1u << kBox | 1u << kId | 1u << kImage | 1u << kCategory;

Key key_of(const char* start, int64_t length) {
  for (int key = 0; key < kOther; ++key) {
    if (static_cast<int64_t>(std::strlen(kKeys[key])) == length &&
        std::memcmp(start, kKeys[key], length) == 0)
      return static_cast<Key>(key);
  }
  return kOther;
}

class Annotation {
 public:
  Annotation(Reader* reader, AnnotationScan* scan, bool with_masks)
      : reader_(*reader), scan_(*scan), with_masks_(with_masks) {}

  bool read() {
    if (!reader_.mark('{')) return false;
    do {
      if (!read_pair()) return false;
    } while (reader_.mark(','));
    if (!reader_.sign('}') || (seen_ & kNeeded) != kNeeded) return false;
    if (has_odd_mask_ && !flags()) return false;
    return true;
  }

  // Appends what was read.
  void keep() {
    int32_t rings = static_cast<int32_t>(scan_.rings.size() - first_ring_);
    if (flags()) rings = drop_rings();
    const uint8_t bits = flags() | (has_area_ ? 0 : kNoArea);
    put(box_, sizeof box_);
    put(&area_, sizeof area_);
    put(ids_, sizeof ids_);
    put(&bits, sizeof bits);
    put(&rings, sizeof rings);
  }

  // Forgets it.
  int32_t drop_rings() {
    scan_.rings.resize(first_ring_);
    scan_.numbers.resize(first_number_);
    return 0;
  }

 private:
  uint8_t flags() const {
    return is_crowd_ ? kCrowdAnnotation : is_ignored_ ? kIgnoredAnnotation : 0;
  }

  void put(const void* what, size_t size) {
    const uint8_t* bytes = static_cast<const uint8_t*>(what);
    scan_.rows.insert(scan_.rows.end(), bytes, bytes + size);
  }

  bool read_pair() {
    const char* start = reader_.place() + 1;
    if (!reader_.string()) return false;
    const int64_t length = reader_.place() - 1 - start;
    // An escape may spell a key that is asked for.
    if (std::memchr(start, '\\', length) != nullptr) return false;
    const Key key = key_of(start, length);
    if (!reader_.mark(':')) return false;
    if (key == kOther) return reader_.value();
    if (seen_ & 1u << key) return false;
    seen_ |= 1u << key;
    switch (key) {
      case kBox:
        return read_box();
      case kArea:
        return reader_.word("null") || read_area();
      case kCrowd:
        return read_flag(&is_crowd_);
      case kIgnore:
        return read_flag(&is_ignored_);
      case kMask:
        return read_mask();
      default:
        return read_id(&ids_[key - kId]);
    }
  }

  bool read_box() {
    if (!reader_.mark('[')) return false;
    Number number;
    for (int i = 0; i < 4; ++i) {
      if ((i && !reader_.mark(',')) || !reader_.number(&number)) return false;
      box_[i] = number.value;
    }
    reader_.blanks();
    return reader_.sign(']');
  }

  bool read_area() {
    Number number;
    if (!reader_.number(&number)) return false;
    area_ = number.value;
    return has_area_ = true;
  }

  bool read_id(int64_t* id) {
    Number number;
    if (!reader_.number(&number) || !number.is_integer) return false;
    *id = number.integer;
    return true;
  }

  bool read_flag(bool* flag) {
    if (reader_.word("false") || reader_.word("null")) return true;
    if (reader_.word("true")) return *flag = true;
    int64_t number;
    if (!read_id(&number) || number < 0 || number > 1) return false;
    *flag = number == 1;
    return true;
  }

  bool read_mask() {
    if (!with_masks_) return reader_.value();
    const char* start = reader_.place();
    if (reader_.word("null") || read_polygons()) return true;
    // Nobody asks for the mask of what is no object: whether it is one comes later.
    drop_rings();
    has_odd_mask_ = true;
    reader_.go_to(start);
    return reader_.value();
  }

  bool read_polygons() {
    if (!reader_.mark('[')) return false;
    if (reader_.sign(']')) return true;
    do {
      if (!read_polygon()) return false;
    } while (reader_.mark(','));
    return reader_.sign(']');
  }

  bool read_polygon() {
    if (!reader_.mark('[')) return false;
    const size_t first = scan_.numbers.size();
    Number number;
    do {
      if (!reader_.number(&number)) return false;
      const float rounded = static_cast<float>(number.value);
      if (!std::isfinite(rounded)) return false;
      scan_.numbers.push_back(rounded);
    } while (reader_.mark(','));
    const size_t count = scan_.numbers.size() - first;
    if (count < kMinPolygonNumbers || count % 2 || count > std::numeric_limits<int32_t>::max() / 4)
      return false;
    scan_.rings.push_back(static_cast<int32_t>(4 * count));
    return reader_.sign(']');
  }

  Reader& reader_;
  AnnotationScan& scan_;
  const bool with_masks_;
  const size_t first_ring_ = scan_.rings.size(), first_number_ = scan_.numbers.size();
  double box_[4] = {}, area_ = 0;
  int64_t ids_[3] = {};
  unsigned seen_ = 0;
  bool has_area_ = false, is_crowd_ = false, is_ignored_ = false, has_odd_mask_ = false;
};

}  // namespace

AnnotationScan scan_annotations_cpu(const char* text, int64_t size, int64_t start,
                                    bool with_masks) {
  AnnotationScan scan;
  scan.end = start;
  Reader reader(text + start, text + size);
  while (true) {
    Annotation annotation(&reader, &scan, with_masks);
    if (!annotation.read() || !reader.mark(',') || reader.is_at_end()) {
      annotation.drop_rings();
      return scan;
    }
    annotation.keep();
    scan.end = reader.place() - text;
  }
}

}  // namespace sniper
