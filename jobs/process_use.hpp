#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

// What a rank takes of its host.
namespace penstock::jobs {

struct ProcessUse {
  std::uint64_t peak_memory_bytes = 0;  // resident, mapped files included
  std::uint64_t open_files = 0;         // descriptors: files, sockets, shared memory
  double thread_seconds = 0;            // processor time of the stage's own thread in the pipeline
};
void to_json(nlohmann::json& json, const ProcessUse& use);
// Throws nlohmann::json::exception.
void from_json(const nlohmann::json& json, ProcessUse& use);

// Counts from its construction on. Both calls by the stage's thread.
class ProcessMeter {
 public:
  ProcessMeter();
  ProcessUse use() const;  // 0 for what the system does not tell

 private:
  double begin_;
};

// Since this process was started, to a hundredth; 0 where the system does not tell.
double process_age_seconds();

}  // namespace penstock::jobs
