// The loop over the records. Threads take them one by one in order, each with its own memory and
// its own output; the outputs are put in order at the end.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <string>

#include "common/parallel.h"
#include "epoch_chips/epoch_chips.h"
#include "epoch_chips/record_chips.h"

namespace sniper {
namespace {

using Clock = std::chrono::steady_clock;

// Where a thread has put the results of a record.
struct Place {
  int worker;
  int32_t chips;
  std::size_t first_chip, first_row;
};

struct Worker {
  explicit Worker(const EpochRequest& request) : record_chips(request) {}

  RecordChips record_chips;
  ChipList list;
};

// Runs `make` and names the record in what goes wrong with it.
int32_t make_named(Worker* worker, const ChipRecord& record) {
  try {
    return worker->record_chips.make(record, &worker->list);
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument(std::string(error.what()) + " Image id " +
                                std::to_string(record.image_id) + ".");
  }
}

template <class Value>
void append(const std::vector<Value>& from, std::size_t first, std::size_t count,
            std::vector<Value>* to) {
  const auto begin = from.begin() + static_cast<std::ptrdiff_t>(first);
  to->insert(to->end(), begin, begin + static_cast<std::ptrdiff_t>(count));
}

class EpochLoop {
 public:
  EpochLoop(const EpochRequest& request, const ChipRecord* records, int64_t count, double budget_s)
      : records_(records),
        count_(count),
        end_(Clock::now() +
             std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(budget_s))),
        workers_(static_cast<std::size_t>(thread_count(count)), Worker(request)),
        places_(static_cast<std::size_t>(count)),
        num_levels_(static_cast<std::size_t>(request.num_levels)) {}

  EpochChips run() {
    const long long workers = static_cast<long long>(workers_.size());
    parallel_for(workers, [&](long long worker) { work(static_cast<int>(worker)); });
    return collect();
  }

 private:
  void work(int number) {
    Worker& worker = workers_[static_cast<std::size_t>(number)];
    for (;;) {
      const int64_t record = next_.fetch_add(1, std::memory_order_relaxed);
      if (record >= count_) return;
      Place& place = places_[static_cast<std::size_t>(record)];
      place = {number, 0, worker.list.rects.size(), worker.list.rows.size()};
      place.chips = make_named(&worker, records_[record]);
      if (Clock::now() >= end_) return;
    }
  }

  // Records are begun in order and always finished, so those that are done are the first ones.
  EpochChips collect() const {
    EpochChips all{};
    all.levels.resize(num_levels_);
    const std::size_t done = static_cast<std::size_t>(std::min(next_.load(), count_));
    reserve(&all, done);
    std::vector<std::size_t> first_fate(workers_.size(), 0);
    for (std::size_t record = 0; record < done; ++record) {
      const Place& place = places_[record];
      std::size_t* fate = &first_fate[static_cast<std::size_t>(place.worker)];
      const std::size_t num_gt = static_cast<std::size_t>(records_[record].num_gt);
      append(workers_[static_cast<std::size_t>(place.worker)].list.fates, *fate, num_gt,
             &all.list.fates);
      *fate += num_gt;
      copy_chips(place, &all);
    }
    for (const Worker& worker : workers_) add_counts(worker.record_chips, &all);
    return all;
  }

  void reserve(EpochChips* all, std::size_t records) const {
    std::size_t chips = 0, rows = 0;
    for (const Worker& worker : workers_) {
      chips += worker.list.rects.size();
      rows += worker.list.rows.size();
    }
    all->chip_counts.reserve(records);
    all->list.rects.reserve(chips);
    all->list.levels.reserve(chips);
    all->list.negative.reserve(chips);
    all->list.row_counts.reserve(chips);
    all->list.box_counts.reserve(chips);
    all->list.gt_counts.reserve(chips);
    all->list.rows.reserve(rows);
  }

  void copy_chips(const Place& place, EpochChips* all) const {
    const ChipList& from = workers_[static_cast<std::size_t>(place.worker)].list;
    const std::size_t first = place.first_chip, count = static_cast<std::size_t>(place.chips);
    std::size_t rows = 0;
    for (std::size_t k = first; k < first + count; ++k) {
      rows += static_cast<std::size_t>(from.row_counts[k]);
    }
    all->chip_counts.push_back(place.chips);
    append(from.rects, first, count, &all->list.rects);
    append(from.levels, first, count, &all->list.levels);
    append(from.negative, first, count, &all->list.negative);
    append(from.row_counts, first, count, &all->list.row_counts);
    append(from.box_counts, first, count, &all->list.box_counts);
    append(from.gt_counts, first, count, &all->list.gt_counts);
    append(from.rows, place.first_row, rows, &all->list.rows);
  }

  void add_counts(const RecordChips& from, EpochChips* all) const {
    all->negative_candidates += from.negative_candidates();
    for (std::size_t k = 0; k < num_levels_; ++k) {
      const LevelCounts& counts = from.levels()[k];
      LevelCounts& sum = all->levels[k];
      sum.positive += counts.positive;
      sum.negative += counts.negative;
      sum.images += counts.images;
      sum.gt_in_range += counts.gt_in_range;
      sum.gt_too_long += counts.gt_too_long;
      sum.gt_wanted += counts.gt_wanted;
      sum.gt_covered += counts.gt_covered;
      sum.background += counts.background;
    }
  }

  const ChipRecord* records_;
  const int64_t count_;
  const Clock::time_point end_;
  std::vector<Worker> workers_;
  std::vector<Place> places_;
  const std::size_t num_levels_;
  std::atomic<int64_t> next_{0};
};

}  // namespace

EpochChips epoch_chips_cpu(const EpochRequest& request, const ChipRecord* records, int64_t count,
                           double budget_s) {
  return EpochLoop(request, records, count, budget_s).run();
}

}  // namespace sniper
