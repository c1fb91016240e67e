#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "io/journal_scan.hpp"
#include "io/records.hpp"
#include "jobs/dataset.hpp"
#include "jobs/generate_workload.hpp"

// Which records each replica answers: a contiguous share of the job's, fixed when a run begins.
namespace penstock::jobs {

struct ReplicaShare {
  RecordRange range;
  io::RecordSet finished;  // of them, by earlier runs
  EarlierWork earlier;
};

// Cuts `range` into `replicas` shares with equally many records that are not finished (they differ
// by one at most), and gives each what earlier runs left of its records, whoever worked on them
// then. The counts of earlier answers and failures are all the first one's, so that the sum over
// the shares is the job's. Equal shares of what is left, not of all records: where a run was
// killed, one replica may have been nearly through and another not.
std::vector<ReplicaShare> split_job(const RecordRange& range, const io::RecordSet& finished,
                                    EarlierWork earlier, int replicas);

// What the driver of another replica needs to know before it can begin.
struct ShareMessage {
  ReplicaShare share;
  std::string index_xxh3;  // of the index file
  io::InputFormat format = io::InputFormat::jsonl;
  nlohmann::json parameters;  // of the manifest, which must be its own as well
};
std::vector<std::byte> share_message(const ShareMessage& message);
// Throws comm::CommError for what share_message() does not make.
ShareMessage parse_share(std::span<const std::byte> message);

}  // namespace penstock::jobs
