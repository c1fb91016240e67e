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

  // The whole content is compared only where it may have changed: reading it takes its time.
  io::InputFingerprint& fingerprint = description_.fingerprint;
  fingerprint = io::fingerprint(file_, before == nullptr, progress());
  if (before != nullptr) {
    const nlohmann::json whole = member(before, "/input/whole_xxh3");
    const bool same_time = member(before, "/input/mtime_ns") == fingerprint.mtime_ns;
    fingerprint.whole_xxh3 = same_time && !options.verify && whole.is_string()
                                 ? whole.get<std::string>()
                                 : io::fingerprint(file_, true, progress()).whole_xxh3;
  }

  std::string index = folder.file("index");
  const bool may_fit = before != nullptr && fs::exists(index) &&
                       member(before, "/input/limit") == options.limit &&
                       member(before, "/input/size_bytes") == fingerprint.size_bytes;
  if (may_fit) index_hash_ = io::fingerprint(index, true, progress()).whole_xxh3;
  if (!may_fit || member(before, "/index_xxh3") != index_hash_) {
    index = folder.new_file("index");
    io::build_index(file_, index, options.limit, progress());
    index_hash_ = io::fingerprint(index, true, progress()).whole_xxh3;
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
  const io::InputFingerprint now = io::fingerprint(file_, false);
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
