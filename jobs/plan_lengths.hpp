#pragma once

#include <cstdint>

#include "jobs/dataset_tokens.hpp"
#include "jobs/plan_report.hpp"
#include "jobs/plan_size.hpp"
#include "jobs/request.hpp"

// How many records a plan is for, and how long they are. `input` has all else already.
namespace penstock::jobs {

// All alike. Throws UsageError for lengths that exceed the context.
struct AlikeRecords {
  std::uint32_t prompt = 0;
  std::uint32_t answer = 0;      // that is expected
  std::uint32_t max_tokens = 0;  // of an answer; at least what is expected
  std::uint64_t records = 0;
};
void take_lengths(const AlikeRecords& records, PlanInput& input, PlanSource& source);

// Those of a dataset, as a run with `builder` would read it. `expected`: tokens of an answer, if it
// may have so many; 0: as many as it may have. Throws UsageError where no record can be answered,
// and io::FileError.
void read_lengths(const DatasetTokensOptions& dataset, const RequestBuilder& builder,
                  std::uint32_t expected, PlanInput& input, PlanSource& source);

}  // namespace penstock::jobs
