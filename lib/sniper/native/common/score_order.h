// Candidates in descending score, ties by ascending index, delivered in chunks (host).
#ifndef SNIPER_NATIVE_COMMON_SCORE_ORDER_H_
#define SNIPER_NATIVE_COMMON_SCORE_ORDER_H_

#include <cstdint>
#include <vector>

namespace sniper {

// Most consumers stop after a few hundred candidates, so only as much is sorted as they ask for:
//     ScoreOrder order;
//     order.start(scores, count);
//     while (order.next(1024)) for (std::uint32_t index : order.chunk()) ...
// Scores that are not finite or not above -1 (the 2018 mark for "discarded") are left out.
class ScoreOrder {
 public:
  void start(const float* scores, std::int64_t count);
  // Fetches the next chunk of at least `wanted` candidates (fewer when no more are left; more when
  // scores lie close together); false when nothing is left.
  bool next(std::int64_t wanted);
  const std::vector<std::uint32_t>& chunk() const { return chunk_; }

 private:
  void collect(std::uint32_t end_bucket);
  void sort_chunk();

  std::vector<std::uint32_t> keys_;       // ascending key = descending score
  std::vector<std::uint32_t> histogram_;  // candidates per bucket (high half of the key)
  std::vector<std::uint64_t> pairs_, swap_;
  std::vector<std::uint32_t> chunk_;
  std::uint32_t bucket_ = 0;  // buckets below it have been delivered
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_SCORE_ORDER_H_
