#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "io/input_index.hpp"
#include "jobs/job_folder.hpp"
#include "jobs/manifest.hpp"
#include "jobs/stay_alive.hpp"

namespace penstock::jobs {

struct InputOptions {
  std::string path;                       // "-": standard input
  std::optional<io::InputFormat> format;  // none: the name or the content tells
  std::uint64_t limit = UINT64_MAX;       // records
  std::uint32_t part = 1;                 // of `parts` equal shares, from 1
  std::uint32_t parts = 1;
  bool verify = false;  // on resume: compare the whole content
};

// The records of a job: indexed, standard input copied first. When a job goes on, what the first
// run made is used again, and the input is known to be the same.
class JobInput {
 public:
  // `before`: the manifest of a job that goes on, else null. Throws UsageError and io::FileError;
  // an input that is not the one of `before` is told by differences(), not here.
  JobInput(const InputOptions& options, const JobFolder& folder, const nlohmann::json* before,
           const std::function<void(std::string_view)>& tell, const Alive& alive);

  const io::IndexedInput& records() const { return *records_; }
  const ManifestInput& description() const { return description_; }

  // Throws io::FileError if the file was written since. One that is gone was read through a
  // descriptor all the time, so that is well.
  void check_unchanged() const;

 private:
  std::string file_;  // that is read: the input itself, or the copy of standard input
  bool is_copy_ = false;
  ManifestInput description_;
  std::optional<io::IndexedInput> records_;
};

}  // namespace penstock::jobs
