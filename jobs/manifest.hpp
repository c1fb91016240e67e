#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "io/input_fingerprint.hpp"
#include "jobs/dataset.hpp"
#include "jobs/generation_params.hpp"

// O.job/manifest.json: what the answers of a job depend on. A job only goes on with the same.
namespace penstock::jobs {

struct ManifestInput {
  std::string path;  // "-": standard input; not compared
  io::InputFormat format = io::InputFormat::jsonl;
  std::uint64_t limit = UINT64_MAX;  // of records, as given; not compared
  std::uint64_t records = 0;         // in the dataset
  RecordRange range;                 // those of this job
  io::InputFingerprint fingerprint;
  std::string index_xxh3;  // of the index file, which holds a hash of each line
};

// The members of the manifest, but for the numeric class, which is known only when the stages are
// loaded.
nlohmann::json to_manifest(const std::string& version, const std::string& checkpoint,
                           const std::string& checkpoint_digest, const ManifestInput& input,
                           const GenerationParams& defaults, std::uint32_t context_limit);

// What differs in a way that matters, a line each, ready for the user: "--temperature was 0.7, is
// 0". A member that only one of them has differs. Paths and the input's time are not compared.
std::vector<std::string> differences(const nlohmann::json& before, const nlohmann::json& now);

}  // namespace penstock::jobs
