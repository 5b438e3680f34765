// Which detections of an image take part in its merge, by class.
#ifndef SNIPER_NATIVE_MULTI_SCALE_NMS_NMS_CANDIDATES_H_
#define SNIPER_NATIVE_MULTI_SCALE_NMS_NMS_CANDIDATES_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/scratch.h"
#include "multi_scale_nms/multi_scale_nms.h"

namespace sniper {

// An array for one call. The memory of small ones is kept: see common/scratch.h.
template <class T>
class CallArray {
 public:
  void take(int64_t count, KeptArray* kept) {
    constexpr int64_t kMostKept = 1 << 18;
    if (count > kMostKept) own_.reset(new T[static_cast<std::size_t>(count)]);
    data_ = own_ ? own_.get() : kept->take<T>(count);
  }
  T* get() const { return data_; }

 private:
  std::unique_ptr<T[]> own_;
  T* data_ = nullptr;
};

// A row that is finite and inside the valid range of its level.
struct NmsCandidate {
  const float* det;  // the row of a part
  int32_t cls;
  int32_t part;  // of the request
};

// Candidates of one image and class, in the order of the input.
struct NmsGroup {
  int64_t begin, count;
  int32_t cls;
  int64_t kept;  // how many NMS has left
};

// The candidates of a request, image by image.
class NmsCandidates {
 public:
  struct Image {
    int32_t number;
    int64_t first_part, end_part;  // of the parts in the order of their images
    int64_t begin, count;          // its candidates
    std::vector<NmsGroup> groups;  // rising by class
  };

  // Finds them. One object at a time lives on a thread. Throws std::invalid_argument on a level
  // without a valid range.
  explicit NmsCandidates(const NmsRequest& request);

  // Makes the groups of an image, of its best `most` candidates and those whose scores lie close to
  // the last of these; of all where `most` is not positive. False when these are all. Images may be
  // grouped at the same time.
  bool group(Image* image, int64_t most);

  std::vector<Image>& images() { return images_; }
  // In how many candidates the groups of all images lie.
  int64_t size() const { return size_; }
  // Whether several threads are worth it: one takes longer to wake up than to look at a few
  // thousand rows.
  static bool are_many(int64_t rows) { return rows >= 16384; }
  // Candidates of a group.
  const NmsCandidate* of(const NmsGroup& group) const { return grouped_.get() + group.begin; }
  // The row of the request, counted over all parts, that a candidate is.
  int64_t row(const NmsCandidate& candidate) const;

 private:
  void find_images();
  void collect(int64_t place);
  std::uint32_t end_key(const Image& image, int64_t most) const;
  template <class Body>
  void each(const Image& image, const Body& body) const;

  const NmsRequest& request_;
  std::vector<int64_t> first_rows_;       // [part of the request]
  std::vector<int32_t> parts_;            // in the order of their images
  std::vector<int64_t> begins_, counts_;  // in found_: [place in parts_]
  CallArray<NmsCandidate> found_, grouped_;
  int64_t size_ = 0;
  std::vector<Image> images_;
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_MULTI_SCALE_NMS_NMS_CANDIDATES_H_
