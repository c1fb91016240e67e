#include "jobs/job_folder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <regex>
#include <system_error>
#include <utility>
#include <vector>

#include "io/error.hpp"
#include "io/file.hpp"
#include "io/json.hpp"
#include "io/output_file.hpp"

namespace penstock::jobs {
namespace fs = std::filesystem;
namespace {

// Ours have some KB.
constexpr std::uint64_t kMostJsonBytes = 1u << 24;

// What the folder may hold; nothing else is ever removed. Also what a run that was killed left: new
// files, those of io::replace_file ("state.0123abcd.tmp"), of the lock ("lock.…") and of the merge
// ("merge.aB3dE6").
bool is_own(const std::string& name) {
  static const std::regex own(
      R"((state|manifest\.json|ledger\.json|(index|input)(\.new)?|lock|journal-[0-9]{4}\.jsonl|)"
      R"(flight-[0-9]{4}\.log)(\.[0-9a-f]{8}\.tmp)?|lock\..*|merge\.[A-Za-z0-9]{6})");
  return std::regex_match(name, own);
}

std::vector<fs::path> files_of(const std::string& folder) {
  std::error_code error;
  std::vector<fs::path> files;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    files.push_back(entry->path());
  }
  if (error) throw io::FileError(folder, "cannot be read: " + error.message());
  return files;
}

bool is_lock(const std::string& name) { return name == "lock" || name.starts_with("lock."); }

// Whether something is there, as far as can be seen; what cannot be seen cannot be written either.
fs::file_status status_of(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::none || status.type() == fs::file_type::unknown) {
    throw io::FileError(path, "cannot be looked at: " + error.message());
  }
  return status;
}

// What a run that was killed while it wrote the output left of it, as large as that
// ("answers.jsonl.0123abcd.tmp", io::OutputFile).
void remove_unfinished(const std::string& output) {
  const fs::path path(output);
  const std::string start = path.filename().string() + ".";
  static const std::regex rest("[0-9a-f]{8}\\.tmp");
  std::error_code error;
  for (fs::directory_iterator entry(path.has_parent_path() ? path.parent_path() : ".", error), end;
       !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(start) || !std::regex_match(name.substr(start.size()), rest)) continue;
    std::error_code ignored;
    fs::remove(entry->path(), ignored);
  }
}

// A folder of the same name that somebody made for something else. Where there is a manifest, they
// may lie beside our files, and stay there.
void refuse_foreign_files(const std::string& folder) {
  const std::vector<fs::path> files = files_of(folder);
  const auto foreign = std::find_if(files.begin(), files.end(), [](const fs::path& file) {
    return !is_own(file.filename().string());
  });
  if (foreign == files.end()) return;
  throw io::FileError(folder,
                      fmt::format("holds '{}', which penstock did not make; move it away or "
                                  "choose another --output",
                                  foreign->filename().string()));
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

JobFolder::JobFolder(const std::string& output, bool fresh,
                     std::function<void(std::string_view)> tell)
    : output_(io::follow_links(output)), folder_(output + ".job") {
  const fs::file_status there = status_of(output_);
  if (fs::is_directory(there)) throw io::FileError(output_, "is a folder; --output names a file");
  if (fs::exists(there) && !fs::is_regular_file(there)) {
    // Never removed, not even by --fresh: /dev/null, a pipe, …
    throw io::FileError(output_, "is not a regular file; --output names a file to be made");
  }
  const fs::file_status folder = status_of(folder_);
  if (fs::exists(folder) && !fs::is_directory(folder)) {
    throw io::FileError(folder_, "is not a folder; move it away or choose another --output");
  }
  if (!fs::exists(folder)) {
    if (fs::exists(there) && !fresh) refuse_output();
    std::error_code error;
    made_ = fs::create_directory(folder_, error);
    if (error) throw io::FileError(folder_, "cannot be created: " + error.message());
  }
  if (!fs::exists(status_of(file("manifest.json")))) refuse_foreign_files(folder_);
  try {
    lock_.emplace(folder_, std::move(tell));
  } catch (...) {
    std::error_code error;
    if (made_) fs::remove(folder_, error);  // if it is empty
    throw;
  }
  // Only now nobody else makes or removes them. Such files are those of a run that was killed.
  remove_own_files([](const std::string& name) {
    return !is_lock(name) &&
           (name.ends_with(".new") || name.ends_with(".tmp") || name.starts_with("merge."));
  });
  const bool has_manifest = fs::exists(status_of(file("manifest.json")));
  has_output_ = fs::exists(status_of(output_));
  resumes_ = has_manifest && !fresh;
  if (has_manifest) remove_unfinished(output_);
  if (has_output_ && !has_manifest && !fresh) {
    lock_.reset();
    refuse_output();
  }
}

void JobFolder::refuse_output() const {
  throw io::FileError(output_, "exists already; --fresh replaces it and starts over");
}

JobFolder::~JobFolder() {
  std::error_code error;
  if (lost()) return;  // all is another job's
  if (!begun_ && made_) {
    remove_own_files([](const std::string& name) { return !is_lock(name); });
  } else if (!begun_) {
    remove_own_files([](const std::string& name) { return name.ends_with(".new"); });
  }
  lock_.reset();
  if (!begun_ && made_) fs::remove(folder_, error);  // not where somebody waited for the lock
}

void JobFolder::begin() {
  check_lock();
  begun_ = true;
  io::sync_folder_of(folder_);  // its name is on disk, too
  if (!resumes_) remove_earlier();
  for (const fs::path& path : files_of(folder_)) {
    if (path.extension() != ".new" || !is_own(path.filename().string())) continue;
    std::error_code error;
    fs::rename(path, fs::path(path).replace_extension(), error);
    if (error) throw io::FileError(path.string(), "cannot be renamed: " + error.message());
  }
}

void JobFolder::remove_earlier() const {
  std::error_code error;
  // Without it the job has not begun, whatever else is left of it.
  fs::remove(file("manifest.json"), error);
  if (error) throw io::FileError(file("manifest.json"), "cannot be removed: " + error.message());
  fs::remove(output_, error);
  if (error) throw io::FileError(output_, "cannot be removed: " + error.message());
  // Rows of an earlier journal would count as this job's.
  for (const fs::path& path : files_of(folder_)) {
    const std::string name = path.filename().string();
    if (!is_own(name) || is_lock(name) || name.ends_with(".new")) continue;
    fs::remove(path, error);
    if (error) throw io::FileError(path.string(), "cannot be removed: " + error.message());
  }
}

void JobFolder::remove_own_files(const std::function<bool(const std::string& name)>& which) const {
  std::error_code error;
  for (fs::directory_iterator entry(folder_, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    std::error_code ignored;
    if (is_own(name) && which(name)) fs::remove(entry->path(), ignored);
  }
}

std::string JobFolder::file(std::string_view name) const {
  return (fs::path(folder_) / name).string();
}

std::vector<std::string> JobFolder::journals() const {
  std::vector<std::string> paths;
  for (const fs::path& path : files_of(folder_)) {
    const std::string name = path.filename().string();
    if (is_own(name) && name.starts_with("journal-") && name.ends_with(".jsonl")) {
      paths.push_back(path.string());
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

void JobFolder::write_state(JobState state, const JobCounts& counts) const {
  write_json("state", {{"state", to_string(state)},
                       {"finished", counts.finished},
                       {"failed", counts.failed},
                       {"left", counts.left},
                       {"partial_tokens", counts.partial_tokens}});
}

void JobFolder::write_json(std::string_view name, const nlohmann::json& content) const {
  io::replace_file(file(name), content.dump(2) + "\n");
}

nlohmann::json JobFolder::read_json(std::string_view name) const {
  const std::string path = file(name);
  try {
    nlohmann::json content = io::parse_json(io::read_text(path, kMostJsonBytes));
    if (content.is_object()) return content;
  } catch (const io::JsonError&) {
  }
  throw io::FileError(path, "is not what penstock wrote; --fresh starts the job over");
}

}  // namespace penstock::jobs
