#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "jobs/replay.hpp"

// The records that a replay is given: lengths that are known, in the order in which a run would
// begin them, or some of them that stand for all. Pure.
namespace penstock::jobs {

struct MeanLengths {
  double prompt = 0;
  double answer = 0;
};
MeanLengths mean_lengths(const std::vector<ReplayRecord>& lengths);

// Sequences that run at once, by slots and by KV memory that is reserved for whole records. Long
// ones count for more, since they stay longer.
double sequences_at_once(const SchedulerLimits& limits, const std::vector<ReplayRecord>& lengths);

// `records` records, evenly drawn from `lengths`, which is not empty.
std::vector<ReplayRecord> draw_records(const std::vector<ReplayRecord>& lengths,
                                       std::uint64_t records);

// Of a run with such a pipeline, window by window, once it has learnt how long answers get.
std::vector<ReplayRecord> in_run_order(const std::vector<ReplayRecord>& records,
                                       const SchedulerLimits& limits);

// Records of the window that a run of `records` records has, the same for all its windows.
std::uint64_t window_records(std::uint64_t records);

// What a replay has to do for a record, in tokens of answers.
double replay_work(const ReplayRecord& record);

// Part of many records, which begins, goes on and ends as they do.
struct ReplaySample {
  std::vector<ReplayRecord> records;
  // While it answers, these tokens of all its answers are in the midst of it: the sequences that
  // run at once are those of long standing, and there are many to come.
  std::uint64_t middle_begin = 0;
  std::uint64_t middle_end = 0;
};

// Of records as a run orders them: some of the whole way, evenly spread, and all of its end. Empty
// where that would be no fewer. Takes as many as come to `most_work`, or, if those are too few to
// have a middle, as that takes.
std::optional<ReplaySample> sample_of(const std::vector<ReplayRecord>& ordered,
                                      const SchedulerLimits& limits, double most_work);

}  // namespace penstock::jobs
