#include "jobs/job_input.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "io/error.hpp"
#include "jobs/launch.hpp"

namespace penstock::jobs {
namespace {

namespace fs = std::filesystem;

// A member of the earlier manifest; null where it has none.
nlohmann::json member(const nlohmann::json* before, const char* pointer) {
  const nlohmann::json::json_pointer place(pointer);
  return before != nullptr && before->contains(place) ? before->at(place) : nlohmann::json();
}

// Records [first, end) of `records` that are the n-th of equal shares.
RecordRange share(std::uint64_t records, std::uint32_t part, std::uint32_t parts) {
  const auto begin_of = [&](std::uint64_t index) {
    return records / parts * index + records % parts * index / parts;
  };
  return {begin_of(part - 1), begin_of(part)};
}

}  // namespace

JobInput::JobInput(const InputOptions& options, const JobFolder& folder,
                   const nlohmann::json* before, const std::function<void(std::string_view)>& tell,
                   const Alive& alive)
    : file_(options.path), is_copy_(options.path == "-") {
  // For one pass over a file.
  const auto progress = [&alive] {
    return [&alive, last = std::uint64_t{0}](std::uint64_t bytes) mutable {
      alive(std::max<std::uint64_t>(bytes - last, 1));  // also while standard input lets us wait
      last = bytes;
    };
  };
  if (is_copy_) {
    file_ = folder.file("input");
    if (before != nullptr && fs::exists(file_)) {
      tell("standard input is not read: the job goes on with the copy that its first run made\n");
    } else {
      file_ = folder.new_file("input");
      io::spool_standard_input(file_, options.limit, progress());
    }
  }
  description_.path = options.path;
  description_.format = options.format
                            ? *options.format
                            : io::detect_format(file_, is_copy_ ? "standard input" : file_);

  description_.fingerprint = io::fingerprint(file_);

  // The index holds a hash of each line. One of an earlier run is used again, unless the content
  // may have changed since: making it anew takes a pass over the input.
  std::string index = folder.file("index");
  std::string& hash = description_.index_xxh3;
  if (!options.verify && before != nullptr && fs::exists(index) &&
      member(before, "/input/limit") == options.limit &&
      member(before, "/input/mtime_ns") == description_.fingerprint.mtime_ns &&
      member(before, "/input/size_bytes") == description_.fingerprint.size_bytes) {
    hash = io::hash_of_file(index, progress());
  }
  if (hash.empty() || member(before, "/input/index_xxh3") != hash) {
    index = folder.new_file("index");
    io::build_index(file_, index, options.limit, progress());
    hash = io::hash_of_file(index, progress());
  }
  description_.limit = options.limit;
  records_.emplace(file_, index);
  description_.records = records_->size();
  description_.range = share(records_->size(), options.part, options.parts);
}

void JobInput::check_unchanged() const {
  if (is_copy_) return;
  std::error_code error;
  if (!fs::exists(file_, error)) return;
  const io::InputFingerprint now = io::fingerprint(file_);
  const io::InputFingerprint& then = description_.fingerprint;
  // The lines that were read are known to be the indexed ones, so a new time alone means nothing.
  if (now.size_bytes == then.size_bytes && now.head_xxh3 == then.head_xxh3 &&
      now.tail_xxh3 == then.tail_xxh3) {
    return;
  }
  throw io::FileError(
      file_,
      "was changed while the job ran; put the old content back and run the same command again, "
      "which keeps all answers, or start over with --fresh");
}

}  // namespace penstock::jobs
