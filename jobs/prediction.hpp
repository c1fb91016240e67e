#pragma once

#include <cstdint>
#include <vector>

#include "jobs/replay.hpp"

// How long a pipeline takes for some records, and where its stages' time goes. Pure.
namespace penstock::jobs {

struct Prediction {
  double seconds = 0;  // from the first step to the last token, without loading
  std::uint64_t replayed_records = 0;
  bool is_sample = false;    // the records behind those were reckoned, not replayed
  double rows_per_step = 0;  // tokens of a mean step
  double sequences = 0;      // that run at once at most, by slots and KV memory
  double busy_seconds = 0;   // that all stages together compute for a token of an answer
  double evenness = 1;       // the mean stage's work as a part of the slowest one's
  double waiting = 0;        // of the slowest stage's time
  double drain = 0;          // likewise
};

// For each of some numbers of records whose lengths are drawn evenly from `lengths`, which is not
// empty. Of many records so many are replayed as fill the pipeline, run at once twice, and let it
// run empty; those behind take as long as the ones in the middle. Throws what replay() throws.
std::vector<Prediction> predict(const ReplayPipeline& pipeline,
                                const std::vector<ReplayRecord>& lengths,
                                const std::vector<std::uint64_t>& records);

// Records in an order and number for a replay that stands for `records` records: evenly drawn from
// `lengths`, the last `last` of them longest first, as a run keeps short ones for its drain.
std::vector<ReplayRecord> draw_records(const std::vector<ReplayRecord>& lengths,
                                       std::uint64_t records, std::uint64_t last);

struct MeanLengths {
  double prompt = 0;
  double answer = 0;
};
MeanLengths mean_lengths(const std::vector<ReplayRecord>& lengths);

}  // namespace penstock::jobs
