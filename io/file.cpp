#include "io/file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <limits>
#include <random>
#include <system_error>
#include <utility>

#include "io/error.hpp"

namespace penstock::io {
namespace {

std::string system_words(int error) { return std::generic_category().message(error); }

[[noreturn]] void fail(std::string_view path, std::string_view what, int error) {
  throw FileError(path, fmt::format("{}: {}", what, system_words(error)));
}

// O_NONBLOCK keeps a FIFO without a writer from hanging the open; regular files ignore it.
int open_to_read(const std::string& path, int more_flags) {
  int descriptor = -1;
  do {
    descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | more_flags);
  } while (descriptor < 0 && errno == EINTR);
  if (descriptor < 0) fail(path, "cannot open", errno);
  return descriptor;
}

// Closes on every way out of a function.
class Descriptor {
 public:
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  ~Descriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return descriptor_; }
  // Network file systems report a failed write as late as here.
  int close() { return ::close(std::exchange(descriptor_, -1)); }

 private:
  int descriptor_;
};

void write_all(int descriptor, std::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t written = ::write(descriptor, content.data(), content.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      fail(path, "cannot write", errno);
    }
    content.remove_prefix(static_cast<std::size_t>(written));
  }
}

// A rename is on disk only when its folder is. Some file systems cannot sync folders (EINVAL);
// they give what they have.
void sync_folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Descriptor descriptor(open_to_read(folder, O_DIRECTORY));
  if (::fsync(descriptor.get()) != 0 && errno != EINVAL) fail(folder, "cannot sync", errno);
}

void write_then_rename(const std::string& temporary, int open_descriptor, const std::string& path,
                       std::string_view content) {
  Descriptor descriptor(open_descriptor);
  write_all(descriptor.get(), content, path);
  if (::fsync(descriptor.get()) != 0) fail(path, "cannot sync", errno);
  if (descriptor.close() != 0) fail(path, "cannot write", errno);
  if (::rename(temporary.c_str(), path.c_str()) != 0) fail(path, "cannot replace", errno);
}

}  // namespace

File::File(std::string path) : path_(std::move(path)) {
  descriptor_ = open_to_read(path_, O_NONBLOCK);
  struct stat status {};
  const int error = ::fstat(descriptor_, &status) == 0 ? 0 : errno;
  if (error == 0 && S_ISREG(status.st_mode)) return;
  ::close(descriptor_);  // the destructor of an object that was never made does not run
  if (error != 0) fail(path_, "cannot read the file's size", error);
  throw FileError(path_,
                  S_ISDIR(status.st_mode) ? "is a folder, not a file" : "is not a regular file");
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

File::File(File&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

File& File::operator=(File&& other) noexcept {
  if (this != &other) {
    if (descriptor_ >= 0) ::close(descriptor_);
    path_ = std::move(other.path_);
    descriptor_ = std::exchange(other.descriptor_, -1);
  }
  return *this;
}

std::uint64_t File::size_bytes() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) fail(path_, "cannot read the file's size", errno);
  return static_cast<std::uint64_t>(status.st_size);
}

void File::read_at(std::uint64_t offset, std::span<std::byte> out) const {
  constexpr auto kLargestOffset = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());
  while (!out.empty()) {
    // An offset that off_t cannot hold is beyond the end of any file.
    const ssize_t count = offset > kLargestOffset ? 0
                                                  : ::pread(descriptor_, out.data(), out.size(),
                                                            static_cast<off_t>(offset));
    if (count < 0) {
      if (errno == EINTR) continue;
      fail(path_, fmt::format("cannot read at byte {}", offset), errno);
    }
    if (count == 0) {
      throw FileError(path_, fmt::format("ends too early: {} bytes are missing at byte {}",
                                         out.size(), offset));
    }
    offset += static_cast<std::uint64_t>(count);
    out = out.subspan(static_cast<std::size_t>(count));
  }
}

std::string read_text(const std::string& path, std::uint64_t limit_bytes) {
  // Read to the end, not to the size: pipes and files of /proc have none.
  const Descriptor descriptor(open_to_read(path, 0));
  std::string text;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t count = ::read(descriptor.get(), buffer.data(), buffer.size());
    if (count < 0) {
      if (errno == EINTR) continue;
      fail(path, "cannot read", errno);
    }
    if (count == 0) return text;
    if (static_cast<std::uint64_t>(count) > limit_bytes - text.size()) {
      throw FileError(path, fmt::format("is larger than the {} bytes allowed here", limit_bytes));
    }
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

void replace_file(const std::string& path, std::string_view content) {
  // A random suffix, since process ids repeat across the hosts that share a file system.
  std::random_device random;
  std::string temporary;
  int descriptor = -1;
  do {
    temporary = fmt::format("{}.{:08x}.tmp", path, static_cast<unsigned>(random()));
    descriptor = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (descriptor < 0 && (errno == EEXIST || errno == EINTR));
  if (descriptor < 0) fail(path, "cannot write", errno);
  try {
    write_then_rename(temporary, descriptor, path, content);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_folder_of(path);
}

}  // namespace penstock::io
