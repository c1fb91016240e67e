#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace penstock::jobs {

enum class JobState { running, done, errors, broken };
std::string_view to_string(JobState state);

struct JobCounts {
  std::uint64_t finished = 0;  // answered
  std::uint64_t failed = 0;    // with an error row
  std::uint64_t left = 0;
};

// O.job/ beside the output O: what a job keeps while it runs and afterwards. Where O is a link, say
// from a home folder to a scratch disk, it stands beside the link, where O's user looks for it; the
// answers, and what `fresh` removes, are the file that the link leads to.
//   state          one JSON object, replaced atomically: state and counts; scripts read it
//   manifest.json  what the answers depend on
//   index          where each record lies in the input
//   journal-0000.jsonl  finished records
//   ledger.json    where each stage's time went
//   input          a copy of standard input, if that is the input
class JobFolder {
 public:
  // Creates the folder. Refuses, with io::FileError, an output or a job that is there already,
  // unless `fresh`: then they stay until begin(), and this folder has another name until then.
  JobFolder(const std::string& output, bool fresh);
  // Removes the folder again unless begin() was called: a job that never began leaves nothing, and
  // has destroyed nothing.
  ~JobFolder();
  JobFolder(const JobFolder&) = delete;
  JobFolder& operator=(const JobFolder&) = delete;

  // The job begins: removes what `fresh` is to replace. Files that are open stay so.
  void begin();

  const std::string& path() const { return folder_; }
  std::string file(std::string_view name) const;

  void write_state(JobState state, const JobCounts& counts) const;
  void write_json(std::string_view name, const nlohmann::json& content) const;

 private:
  std::string output_;  // no link
  std::string final_;   // O.job
  std::string folder_;  // where the files are now
  bool begun_ = false;
};

}  // namespace penstock::jobs
