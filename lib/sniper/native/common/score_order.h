// Candidates in descending score, ties by ascending index, delivered in chunks (host).
#ifndef SNIPER_NATIVE_COMMON_SCORE_ORDER_H_
#define SNIPER_NATIVE_COMMON_SCORE_ORDER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sniper {

// Most consumers stop after a few hundred candidates, so only as much is sorted as they ask for:
//     ScoreOrder order;
//     order.start(scores, count, 6000, kDiscardedScore);
//     while (order.next(1024)) for (std::uint32_t index : order.chunk()) ...
// Scores that are not finite are left out.
//
// A sample of the scores tells roughly where the best `expected` of them begin; one pass collects
// these into a pool, and the chunks are cut from the pool. Whatever the sample says, the order is
// exact: when a pool is used up, the next one follows below it.
class ScoreOrder {
 public:
  // `expected`: how many candidates the caller will want at most, as far as it knows. Scores that
  // are not above `lowest` are left out too. The scores are read until the last chunk is fetched.
  void start(const float* scores, std::int64_t count, std::int64_t expected, float lowest);
  // Fetches the next chunk of at least `wanted` candidates (fewer when no more are left; more when
  // scores lie close together); false when nothing is left.
  bool next(std::int64_t wanted);
  const std::vector<std::uint32_t>& chunk() const { return chunk_; }

 private:
  void take_all();
  bool refill();
  bool fill_pool(std::size_t found);
  std::uint32_t pool_end(std::int64_t wanted);
  void cut_pool(std::uint32_t end_bucket);
  void sort_chunk();
  void radix_sort_pairs();

  const float* scores_ = nullptr;
  std::int64_t count_ = 0;
  std::int64_t expected_ = 0;
  // Keys ascend where scores descend. Keys below pool_end_ have been collected; those of the pool
  // fall into buckets, and the buckets below bucket_ have been delivered.
  std::uint32_t pool_begin_ = 0, pool_end_ = 0, end_key_ = 0, bucket_ = 0, num_buckets_ = 0;
  int bucket_bits_ = 0;
  bool all_at_once_ = false;
  std::vector<std::uint32_t> sample_;
  std::vector<std::uint32_t> histogram_;  // of the pool
  std::vector<std::uint8_t> flags_;       // which scores belong to the pool
  std::vector<std::uint32_t> indices_;    // collected for the pool
  std::vector<std::uint64_t> pool_;       // key << 32 | index, in the order of the index
  std::vector<std::uint64_t> pairs_, swap_;
  std::vector<std::uint32_t> chunk_;
};

}  // namespace sniper

#endif  // SNIPER_NATIVE_COMMON_SCORE_ORDER_H_
