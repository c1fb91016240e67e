#include "jobs/job_folder.hpp"

#include <array>
#include <filesystem>
#include <system_error>

#include "io/error.hpp"
#include "io/file.hpp"

namespace penstock::jobs {
namespace fs = std::filesystem;
namespace {

// What the folder may hold; nothing else is ever removed.
constexpr std::array kOwnFiles = {
    "state",       "manifest.json", "index",        "journal-0000.jsonl",
    "ledger.json", "input",         "merge.scratch"};

void remove_folder(const std::string& folder) {
  std::error_code error;
  for (const char* name : kOwnFiles) fs::remove(fs::path(folder) / name, error);
  fs::remove(folder, error);  // fails, rightly, if somebody else's files are in it
}

}  // namespace

std::string_view to_string(JobState state) {
  switch (state) {
    case JobState::running:
      return "running";
    case JobState::again:
      return "again";
    case JobState::done:
      return "done";
    case JobState::errors:
      return "errors";
    case JobState::broken:
      return "broken";
  }
  return "broken";
}

JobFolder::JobFolder(const std::string& output, bool fresh)
    : output_(output), folder_(output + ".job") {
  if (fs::is_directory(output_)) throw io::FileError(output_, "is a folder; --output names a file");
  if (fresh) {
    std::error_code ignored;
    fs::remove(output_, ignored);
    remove_folder(folder_);
  }
  if (fs::exists(output_)) {
    throw io::FileError(output_, "exists already; --fresh replaces it and starts over");
  }
  if (fs::exists(folder_)) {
    throw io::FileError(folder_,
                        "holds the files of an earlier run; --fresh removes them and starts over");
  }
  std::error_code error;
  fs::create_directory(folder_, error);
  if (error) throw io::FileError(folder_, "cannot be created: " + error.message());
}

JobFolder::~JobFolder() {
  if (!keep_) remove_folder(folder_);
}

std::string JobFolder::file(std::string_view name) const {
  return (fs::path(folder_) / name).string();
}

void JobFolder::write_state(JobState state, const JobCounts& counts) const {
  write_json("state", {{"state", to_string(state)},
                       {"finished", counts.finished},
                       {"failed", counts.failed},
                       {"left", counts.left}});
}

void JobFolder::write_json(std::string_view name, const nlohmann::json& content) const {
  io::replace_file(file(name), content.dump(2) + "\n");
}

}  // namespace penstock::jobs
