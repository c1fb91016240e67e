#include "jobs/job_folder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <random>
#include <regex>
#include <system_error>
#include <vector>

#include "io/error.hpp"
#include "io/file.hpp"
#include "io/output_file.hpp"

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

// The files of a folder, and whether all of them are ours.
std::vector<fs::path> files_of(const std::string& folder, bool& all_own) {
  std::error_code error;
  std::vector<fs::path> files;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    files.push_back(entry->path());
  }
  all_own = !error && std::all_of(files.begin(), files.end(), [](const fs::path& file) {
    return is_own(file.filename().string());
  });
  return files;
}

// Leaves a folder alone that holds files of others.
void remove_folder(const std::string& folder) {
  bool all_own = false;
  const std::vector<fs::path> files = files_of(folder, all_own);
  if (!all_own) return;
  std::error_code error;
  for (const fs::path& path : files) fs::remove(path, error);
  fs::remove(folder, error);
}

// A name that nobody can foresee, since the folder may be one that many write to.
std::string random_suffix() {
  std::random_device random;
  return fmt::format("{:08x}", random());
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
    : output_(io::follow_links(output)), final_(output + ".job") {
  const fs::file_status there = status_of(output_);
  if (fs::is_directory(there)) throw io::FileError(output_, "is a folder; --output names a file");
  if (fs::exists(there) && !fs::is_regular_file(there)) {
    // Never removed, not even by --fresh: /dev/null, a pipe, …
    throw io::FileError(output_, "is not a regular file; --output names a file to be made");
  }
  const bool old_output = fs::exists(there);
  const bool old_folder = fs::exists(status_of(final_));
  if (!fresh && old_output) {
    throw io::FileError(output_, "exists already; --fresh replaces it and starts over");
  }
  bool all_own = false;
  if (fresh && old_folder) files_of(final_, all_own);
  if (fresh && old_folder && !all_own) {
    throw io::FileError(final_,
                        "is not what a run of penstock left, or holds files of others, so --fresh "
                        "leaves it; move it away or choose another --output");
  }
  // What an earlier run left stays until this one begins.
  folder_ = old_output || (fresh && old_folder) ? final_ + "." + random_suffix() : final_;
  std::error_code error;
  // False: it is there already, whether from an earlier run or from one that began just now.
  if (fs::create_directory(folder_, error)) return;
  if (error) throw io::FileError(folder_, "cannot be created: " + error.message());
  throw io::FileError(folder_,
                      "holds the files of an earlier run; --fresh removes them and starts over");
}

void JobFolder::begin() {
  if (folder_ != final_) {
    std::error_code error;
    fs::remove(output_, error);
    if (error) throw io::FileError(output_, "cannot be removed: " + error.message());
    remove_folder(final_);
    fs::rename(folder_, final_, error);
    if (error) throw io::FileError(final_, "cannot be replaced: " + error.message());
    folder_ = final_;
  }
  begun_ = true;
}

JobFolder::~JobFolder() {
  if (!begun_) remove_folder(folder_);
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
