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

struct KnownLengths {
  const std::vector<ReplayRecord>& lengths;  // not empty
  bool all_in_order = false;  // they are all of the records, as a run began them, else drawn from
};

// For each of some numbers of records, not empty. Where that is not too many they are all replayed,
// in the order of a run; else a sample that fills the pipeline until what runs at once is as it
// stays, goes on so, and lets it run empty; those behind take as long as its middle. Throws what
// replay() throws.
std::vector<Prediction> predict(const ReplayPipeline& pipeline, const KnownLengths& known,
                                const std::vector<std::uint64_t>& records, double affordable_work);

}  // namespace penstock::jobs
