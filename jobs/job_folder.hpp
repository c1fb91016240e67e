#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/job_lock.hpp"

namespace penstock::jobs {

// What scripts read in O.job/state. A job is worth starting again while it is `running` (nobody is
// there any more to say otherwise) or `again`.
enum class JobState { running, again, done, errors, broken };
std::string_view to_string(JobState state);

struct JobCounts {
  std::uint64_t finished = 0;  // answered
  std::uint64_t failed = 0;    // with an error row
  std::uint64_t left = 0;
  std::uint64_t partial_tokens = 0;  // journalled of the answers that are left
};

// O.job/ beside the output O: what a job keeps while it runs and afterwards. Where O is a link, say
// from a home folder to a scratch disk, it stands beside the link, where O's user looks for it; the
// answers, and what `fresh` removes, are the file that the link leads to.
//   lock           who works on it
//   state          one JSON object, replaced atomically: state and counts
//   manifest.json  what the answers depend on; without it the job never began
//   index          where each record lies in the input
//   journal-0000.jsonl  finished records, a file for each replica
//   ledger.json    where each stage's time went
//   input          a copy of standard input, if that is the input
//   flight-0000.log  the last events of a rank, after a failure
class JobFolder {
 public:
  // Makes the folder if it is not there, and locks it. Refuses, with io::FileError, what is not
  // its own, and an output without a job, unless `fresh`; waits for a lock that nobody may hold any
  // more. `tell` gets lines for people.
  JobFolder(const std::string& output, bool fresh, std::function<void(std::string_view)> tell);
  // A job that never began leaves nothing, and has destroyed nothing.
  ~JobFolder();
  JobFolder(const JobFolder&) = delete;
  JobFolder& operator=(const JobFolder&) = delete;

  // There is a job to go on with.
  bool resumes() const { return resumes_; }
  // O is there: the job's answers, if it `resumes()`.
  bool has_output() const { return has_output_; }
  // Somebody else took the folder while this process was stopped: it must not write here any more.
  bool lost() const { return lock_->lost(); }
  // Looks now, and throws io::FileError then; before what cannot be undone.
  void check_lock() const { lock_->check(); }

  // The job begins, or goes on, and takes the files that were made as new_file(); files that are
  // open stay so. A new one first removes what `fresh` is to replace. A killed begin() of a new one
  // leaves a folder without manifest. Throws io::FileError, also for a lock that is lost.
  void begin();

  const std::string& path() const { return folder_; }
  std::string file(std::string_view name) const;
  // The journals that are there, in the order of their numbers.
  std::vector<std::string> journals() const;
  std::string new_file(std::string_view name) const { return file(std::string(name) + ".new"); }

  void write_state(JobState state, const JobCounts& counts) const;
  void write_json(std::string_view name, const nlohmann::json& content) const;
  // Throws io::FileError for a file that is no JSON object, or not there.
  nlohmann::json read_json(std::string_view name) const;

 private:
  [[noreturn]] void refuse_output() const;
  void remove_earlier() const;
  void remove_own_files(const std::function<bool(const std::string& name)>& which) const;

  std::string output_;  // no link
  std::string folder_;  // O.job
  bool made_ = false;   // by this object
  bool resumes_ = false;
  bool has_output_ = false;
  bool begun_ = false;
  std::optional<JobLock> lock_;
};

}  // namespace penstock::jobs
