#include "jobs/job_folder.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <regex>
#include <system_error>
#include <vector>

#include "io/error.hpp"
#include "io/file.hpp"

namespace penstock::jobs {
namespace fs = std::filesystem;
namespace {

// What the folder may hold; nothing else is ever removed.
constexpr std::array<std::string_view, 6> kOwnFiles = {
    "state", "manifest.json", "index", "journal-0000.jsonl", "ledger.json", "input"};

// Also what a run that was killed left of io::replace_file ("state.0123abcd.tmp") and of the merge
// ("merge.aB3dE6").
bool is_own(const std::string& name) {
  static const std::regex temporary(R"((.*)\.[0-9a-f]{8}\.tmp)");
  static const std::regex scratch(R"(merge\.[A-Za-z0-9]{6})");
  std::smatch match;
  const std::string whole = std::regex_match(name, match, temporary) ? match[1].str() : name;
  return std::find(kOwnFiles.begin(), kOwnFiles.end(), whole) != kOwnFiles.end() ||
         std::regex_match(name, scratch);
}

void remove_folder(const std::string& folder) {
  std::error_code error;
  std::vector<fs::path> own;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (is_own(entry->path().filename().string())) own.push_back(entry->path());
  }
  if (error) return;  // not a folder
  for (const fs::path& path : own) fs::remove(path, error);
  fs::remove(folder, error);  // fails, rightly, if somebody else's files are in it
}

// Whether something is there, as far as can be seen; what cannot be seen cannot be written either.
fs::file_status status_of(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::none || status.type() == fs::file_type::unknown) {
    throw io::FileError(path, "cannot be looked at: " + error.message());
  }
  return status;
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
  const fs::file_status there = status_of(output_);
  if (fs::is_directory(there)) throw io::FileError(output_, "is a folder; --output names a file");
  if (fs::exists(there) && !fs::is_regular_file(there)) {
    // Never removed, not even by --fresh: /dev/null, a pipe, …
    throw io::FileError(output_, "is not a regular file; --output names a file to be made");
  }
  std::error_code error;
  if (fresh) {
    fs::remove(output_, error);
    if (error) throw io::FileError(output_, "cannot be removed: " + error.message());
    remove_folder(folder_);
    if (fs::exists(status_of(folder_))) {
      throw io::FileError(
          folder_,
          "is not what a run of penstock left, or holds files of others, so --fresh "
          "leaves it; move it away or choose another --output");
    }
  }
  if (fs::exists(status_of(output_))) {
    throw io::FileError(output_, "exists already; --fresh replaces it and starts over");
  }
  // False: it is there already, whether from an earlier run or from one that began just now.
  if (fs::create_directory(folder_, error)) return;
  if (error) throw io::FileError(folder_, "cannot be created: " + error.message());
  throw io::FileError(folder_,
                      "holds the files of an earlier run; --fresh removes them and starts over");
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
