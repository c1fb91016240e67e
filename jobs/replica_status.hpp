#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "jobs/generate_workload.hpp"
#include "jobs/pipeline.hpp"

namespace penstock::jobs {

// What replica 0's driver hears of another replica, now and then and at its end.
struct ReplicaStatus {
  GenerateCounts counts;  // of its share
  std::uint64_t tokens_in = 0;
  std::uint64_t tokens_out = 0;
  std::vector<double> busy;             // by stage, share of compute lately
  bool done = false;                    // nothing more will come; the rest is only known then
  std::string reason{};                 // why it stopped early; empty if it did not
  std::vector<std::string> failures{};  // the first few
  PipelineTotals totals{};
};

// In JSON.
std::vector<std::byte> to_bytes(const ReplicaStatus& status);
// Throws comm::CommError for what is no status.
ReplicaStatus parse_status(std::span<const std::byte> bytes);

}  // namespace penstock::jobs
