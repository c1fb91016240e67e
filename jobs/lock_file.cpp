#include "jobs/lock_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <random>

#include "io/error.hpp"
#include "io/output_file.hpp"

namespace penstock::jobs {
namespace {

constexpr const char* kName = "lock";
// A claim is held for some calls of the file system.
constexpr std::int64_t kClaimTimeNs = 60'000'000'000;

class Descriptor {
 public:
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  ~Descriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  explicit operator bool() const { return descriptor_ >= 0; }
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

// As io::OutputFile names what is not whole yet, so that JobFolder knows it for our own.
std::string temporary_name() {
  std::random_device random;
  return fmt::format("{}.{:08x}.tmp", kName, random());
}

std::int64_t time_ns(const timespec& time) {
  // A file may be given any time; nanoseconds end in the year 2262.
  return std::clamp<std::int64_t>(time.tv_sec, 0, 9'000'000'000) * 1'000'000'000 + time.tv_nsec;
}

std::string read_bytes(int descriptor, const std::string& path) {
  std::string bytes(LockFile::kMaxBytes, '\0');
  std::size_t size = 0;
  while (size < bytes.size()) {
    const ssize_t got =
        ::pread(descriptor, bytes.data() + size, bytes.size() - size, static_cast<off_t>(size));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) io::throw_errno(path, "read");
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  bytes.resize(size);
  return bytes;
}

// Opened anew for each look: that is when NFS shows what others wrote. Nothing: it is not there.
// Neither a link nor a pipe is followed or waited for.
int open_lock(int folder, const char* name, int flags, const std::string& path) {
  const int opened = ::openat(folder, name, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (opened >= 0) {
    struct stat status {};
    if (::fstat(opened, &status) == 0 && S_ISREG(status.st_mode)) return opened;
    ::close(opened);
  } else if (errno == ENOENT || errno == ESTALE) {
    return -1;
  } else if (errno != ELOOP && errno != ENXIO && errno != EISDIR) {
    io::throw_errno(path, "open");
  }
  throw io::FileError(path, "is no regular file, so no lock of a run of penstock; remove it");
}

// A file of our own in the folder, removed at the end.
class Temporary {
 public:
  Temporary(int folder, std::string_view bytes, const std::string& folder_path)
      : folder_(folder),
        name_(temporary_name()),
        file_(::openat(folder, name_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) {
    const std::string path = folder_path + "/" + name_;
    if (!file_) io::throw_errno(path, "create");
    try {
      io::write_all(file_.get(), bytes, path);
      // A network file system now knows all of it, and has given it its time.
      if (::fsync(file_.get()) != 0) io::throw_errno(path, "write");
    } catch (...) {
      ::unlinkat(folder_, name_.c_str(), 0);
      throw;
    }
  }
  ~Temporary() { ::unlinkat(folder_, name_.c_str(), 0); }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;

  const char* name() const { return name_.c_str(); }
  struct stat status() const {
    struct stat status {};
    ::fstat(file_.get(), &status);
    return status;
  }

 private:
  int folder_;
  std::string name_;
  Descriptor file_;
};

}  // namespace

LockFile::LockFile(const std::string& folder)
    : folder_path_(folder), folder_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (folder_ < 0) io::throw_errno(folder, "open");
}

LockFile::~LockFile() { ::close(folder_); }

std::optional<LockFile::Content> LockFile::read() const {
  const std::string path = folder_path_ + "/" + kName;
  const Descriptor file(open_lock(folder_, kName, O_RDONLY, path));
  if (!file) return std::nullopt;
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) io::throw_errno(path, "look at");
  return Content{read_bytes(file.get(), path), time_ns(status.st_mtim), status.st_ino};
}

bool LockFile::create(std::string_view bytes) const {
  const Temporary made(folder_, bytes, folder_path_);
  const int linked = ::linkat(folder_, made.name(), folder_, kName, 0);
  const int error = errno;
  if (linked == 0 || made.status().st_nlink == 2) return true;  // NFS may repeat what it has done
  if (error == EEXIST) return false;
  errno = error;
  io::throw_errno(folder_path_ + "/" + kName, "create (as a hard link, so that it appears whole)");
}

bool LockFile::update(std::string_view bytes,
                      const std::function<bool(std::string_view)>& mine) const {
  const std::string path = folder_path_ + "/" + kName;
  const Descriptor file(open_lock(folder_, kName, O_RDWR, path));
  // What is written goes into the file that was looked at, whatever its name is by then.
  if (!file || !mine(read_bytes(file.get(), path))) return false;
  io::write_all_at(file.get(), 0, bytes, path);
  return true;
}

class LockFile::Claim {
 public:
  Claim(const LockFile& lock, const Content& seen)
      : folder_(lock.folder_), name_(fmt::format("{}.{}.claim", kName, seen.inode)) {
    const std::string path = lock.folder_path_ + "/" + name_;
    if (::linkat(folder_, kName, folder_, name_.c_str(), 0) != 0) {
      if (errno == EEXIST) {
        lock.remove_abandoned(name_);
      } else if (errno != ENOENT && errno != ESTALE) {
        io::throw_errno(path, "create (a hard link)");
      }
      return;
    }
    const Descriptor file(open_lock(folder_, name_.c_str(), O_RDONLY, path));
    held_ = file && read_bytes(file.get(), path) == seen.bytes;
    if (!held_) ::unlinkat(folder_, name_.c_str(), 0);
  }
  ~Claim() {
    if (held_) ::unlinkat(folder_, name_.c_str(), 0);
  }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;
  explicit operator bool() const { return held_; }

 private:
  int folder_;
  std::string name_;
  bool held_ = false;
};

bool LockFile::replace(const Content& seen, std::string_view bytes) const {
  const Claim claim(*this, seen);
  if (!claim) return false;
  const Temporary made(folder_, bytes, folder_path_);
  if (::renameat(folder_, made.name(), folder_, kName) != 0) {
    io::throw_errno(folder_path_ + "/" + kName, "replace");
  }
  return true;
}

bool LockFile::remove(const Content& seen) const {
  const Claim claim(*this, seen);
  if (!claim) return false;
  if (::unlinkat(folder_, kName, 0) != 0 && errno != ENOENT) {
    io::throw_errno(folder_path_ + "/" + kName, "remove");
  }
  return true;
}

// Making a name of a file sets its time of change; nothing else happens to one whose holder is
// gone.
void LockFile::remove_abandoned(const std::string& claim) const {
  struct stat status {};
  if (::fstatat(folder_, claim.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return;
  if (server_time_ns() - time_ns(status.st_ctim) > kClaimTimeNs) {
    ::unlinkat(folder_, claim.c_str(), 0);
  }
}

std::int64_t LockFile::server_time_ns() const {
  const Temporary probe(folder_, "", folder_path_);
  return time_ns(probe.status().st_mtim);
}

}  // namespace penstock::jobs
