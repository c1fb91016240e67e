#include "io/checkpoint_slice.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <random>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <thread>

#include "io/checkpoint_format.hpp"
#include "io/error.hpp"
#include "io/file.hpp"
#include "io/for_each_parallel.hpp"
#include "io/output_file.hpp"

namespace penstock::io {
namespace {

// Of the file, so that reads are aligned: a few stripes of a parallel file system.
constexpr std::uint64_t kPieceBytes = 8u << 20;
// One node-local disk; more only fight for it.
constexpr int kMostThreads = 8;

// A file that gets its name when it is whole.
class NamelessFile {
 public:
  NamelessFile(const std::string& folder, std::string path) : path_(std::move(path)) {
    do {
      descriptor_ = ::open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
    } while (descriptor_ < 0 && errno == EINTR);
    // EISDIR: from a kernel that does not know the flag.
    if (descriptor_ < 0 && errno != EOPNOTSUPP && errno != EISDIR) throw_errno(folder, "write to");
    if (descriptor_ >= 0 && ::access(link().c_str(), F_OK) == 0) return;
    close();
    std::random_device random;
    do {
      temporary_path_ = fmt::format("{}.{:08x}.tmp", path_, random());
      descriptor_ = ::open(temporary_path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (descriptor_ < 0 && (errno == EEXIST || errno == EINTR));
    if (descriptor_ < 0) {
      temporary_path_.clear();
      throw_errno(folder, "write to");
    }
  }
  ~NamelessFile() {
    close();
    if (!temporary_path_.empty()) ::unlink(temporary_path_.c_str());
  }
  NamelessFile(const NamelessFile&) = delete;
  NamelessFile& operator=(const NamelessFile&) = delete;

  int descriptor() const { return descriptor_; }

  // Where another process was faster, its file may stay: the content is the same.
  void publish() {
    if (!temporary_path_.empty()) {
      if (::rename(temporary_path_.c_str(), path_.c_str()) != 0) throw_errno(path_, "create");
      temporary_path_.clear();
    } else if (::linkat(AT_FDCWD, link().c_str(), AT_FDCWD, path_.c_str(), AT_SYMLINK_FOLLOW) !=
                   0 &&
               errno != EEXIST) {
      throw_errno(path_, "create");
    }
  }

 private:
  std::string link() const { return fmt::format("/proc/self/fd/{}", descriptor_); }
  void close() {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
  }

  std::string path_;
  std::string temporary_path_;  // empty: it has none
  int descriptor_ = -1;
};

[[noreturn]] void throw_full(const std::string& folder, std::uint64_t needed, std::uint64_t free) {
  throw FileError(folder, fmt::format("has no room for a copy of this stage's part of the "
                                      "checkpoint: it needs {} bytes, {} are free; remove old "
                                      "penstock-*.h5 there, or read from the checkpoint, without "
                                      "--stage-dir",
                                      needed, free));
}

std::uint64_t free_bytes(const std::string& folder) {
  struct statvfs status {};
  if (::statvfs(folder.c_str(), &status) != 0) throw_errno(folder, "ask for the free space of");
  return std::uint64_t{status.f_bavail} * status.f_frsize;
}

// Other ranks copy to the same disk at the same time, so what is free is taken, where the file
// system can, and not only counted.
void take_space(const std::string& folder, int descriptor, std::uint64_t file_bytes,
                const std::vector<ByteRange>& ranges, std::uint64_t needed) {
  const std::uint64_t free = free_bytes(folder);
  if (free < needed) throw_full(folder, needed, free);
  if (::ftruncate(descriptor, static_cast<off_t>(file_bytes)) != 0) {
    throw_errno(folder, fmt::format("make a file of {} bytes in", file_bytes));
  }
  for (const ByteRange& range : ranges) {
    int failed = 0;
    do {
      failed = ::fallocate(descriptor, 0, static_cast<off_t>(range.first),
                           static_cast<off_t>(range.end - range.first));
    } while (failed != 0 && errno == EINTR);
    if (failed == 0) continue;
    if (errno == ENOSPC) throw_full(folder, needed, free);
    if (errno == EDQUOT) throw_errno(folder, fmt::format("take {} bytes of", needed));
    return;  // the file system cannot
  }
}

// Cut at multiples of kPieceBytes.
std::vector<ByteRange> pieces_of(const std::vector<ByteRange>& ranges) {
  std::vector<ByteRange> pieces;
  for (const ByteRange& range : ranges) {
    for (std::uint64_t first = range.first; first < range.end;) {
      const std::uint64_t end = std::min(range.end, (first / kPieceBytes + 1) * kPieceBytes);
      pieces.push_back({first, end});
      first = end;
    }
  }
  return pieces;
}

}  // namespace

CheckpointSlice::CheckpointSlice(const CheckpointReader& checkpoint,
                                 std::span<const TensorInfo* const> tensors,
                                 const std::string& folder)
    : checkpoint_(&checkpoint), folder_(folder) {
  if (tensors.empty()) throw std::logic_error("CheckpointSlice: no tensors");
  ranges_.push_back({0, checkpoint.size_bytes()});
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    if (tensor.file != checkpoint.path()) {
      throw FileError(checkpoint.path(),
                      fmt::format("spans several files, {} is another: --stage-dir copies only "
                                  "checkpoints of one file, leave it out",
                                  io::quoted(tensor.file)));
    }
    ranges_[0].end = std::min(ranges_[0].end, tensor.offset);
  }
  std::vector<ByteRange> wanted;
  for (const TensorInfo* tensor : tensors) {
    wanted.push_back({tensor->offset, tensor->offset + tensor->size_bytes});
  }
  std::ranges::sort(wanted, {}, &ByteRange::first);
  path_ = fmt::format("{}/penstock-{}-{}-{}-{}.h5", folder_, ::geteuid(), checkpoint.digest(),
                      wanted.front().first, wanted.back().end - 1);
  for (const ByteRange& range : wanted) {
    if (range.first - ranges_.back().end < kTensorAlignment) {
      ranges_.back().end = range.end;
    } else {
      ranges_.push_back(range);
    }
  }
  for (const ByteRange& range : ranges_) size_bytes_ += range.end - range.first;
}

std::optional<CheckpointReader> CheckpointSlice::open(std::string& damage) const {
  damage.clear();
  struct stat status {};
  if (::lstat(path_.c_str(), &status) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
    throw_errno(path_, "look for");
  }
  if (!S_ISREG(status.st_mode) || status.st_uid != ::geteuid()) {
    throw FileError(path_,
                    "is there, but is not a file of yours; choose another folder as --stage-dir");
  }
  try {
    // With the tokenizer, since only then is the digest computed and not believed.
    CheckpointReader copy(path_);
    if (copy.digest() == checkpoint_->digest()) return copy;
    damage = fmt::format("{}: is a copy of another checkpoint", path_);
  } catch (const FileError& error) {
    damage = error.what();
  }
  struct stat now {};
  if (::lstat(path_.c_str(), &now) == 0 && now.st_ino == status.st_ino) {
    remove();
  } else {
    damage.clear();  // another process removed it, or has made it again
  }
  return std::nullopt;
}

void CheckpointSlice::copy(int threads,
                           const std::function<void(std::uint64_t bytes_done,
                                                    std::uint64_t bytes_total)>& progress) const {
  std::error_code failed;
  std::filesystem::create_directories(folder_, failed);
  if (failed) throw FileError(folder_, "cannot be made: " + failed.message());
  const File from(checkpoint_->path());
  NamelessFile to(folder_, path_);
  take_space(folder_, to.descriptor(), from.size_bytes(), ranges_, size_bytes_);
  const std::vector<ByteRange> pieces = pieces_of(ranges_);
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<std::uint64_t> done{0};
  for_each_parallel(pieces.size(), std::min(threads, kMostThreads), [&](std::uint64_t i) {
    const std::size_t size = pieces[i].end - pieces[i].first;
    const auto bytes = std::make_unique_for_overwrite<std::byte[]>(size);
    from.read_at(pieces[i].first, {bytes.get(), size});
    write_all_at(to.descriptor(), pieces[i].first,
                 {reinterpret_cast<const char*>(bytes.get()), size}, path_);
    done += size;
    if (progress && std::this_thread::get_id() == caller) progress(done, size_bytes_);
  });
  to.publish();
}

void CheckpointSlice::remove() const {
  if (::unlink(path_.c_str()) != 0 && errno != ENOENT) throw_errno(path_, "remove");
}

}  // namespace penstock::io
