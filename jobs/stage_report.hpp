#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace penstock::jobs {

// One rank of the layout.
struct StageReport {
  int rank = 0;
  std::string host;
  int threads = 0;
  int stage = 0;
  std::int64_t layer_begin = 0;
  std::int64_t layer_end = 0;
  std::uint64_t weight_bytes = 0;
  std::uint64_t kv_bytes = 0;
  std::uint64_t bytes_read = 0;  // from the checkpoint
  double load_seconds = 0;       // until its weights were in the device's memory
  std::string gpu{};             // "NVIDIA H100 80GB HBM3"; empty on a CPU
  std::string gpu_uuid{};
  std::uint64_t gpu_memory_bytes = 0;
  std::uint64_t bytes_loaded = 0;  // in load_seconds, from the checkpoint or the copy
  std::string copy{};              // "found in DIR"; empty without --stage-dir
  std::string warning{};           // of the copy
  int replica = 0;
  std::string predicted{};  // time of a step, "14.2 ms"; "96 %" of the slowest stage's
};

// As ranks send it to each other. from_json throws nlohmann::json::exception.
void to_json(nlohmann::json& json, const StageReport& report);
void from_json(const nlohmann::json& json, StageReport& report);

}  // namespace penstock::jobs
