#include "io/file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <limits>
#include <utility>

#include "io/error.hpp"
#include "io/output_file.hpp"

namespace penstock::io {
namespace {

// O_NONBLOCK keeps a FIFO without a writer from hanging the open; regular files ignore it.
int open_to_read(const std::string& path, int more_flags) {
  int descriptor = -1;
  do {
    descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | more_flags);
  } while (descriptor < 0 && errno == EINTR);
  if (descriptor < 0) throw_errno(path, "open");
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

 private:
  int descriptor_;
};

}  // namespace

File::File(std::string path) : path_(std::move(path)) {
  descriptor_ = open_to_read(path_, O_NONBLOCK);
  struct stat status {};
  const int error = ::fstat(descriptor_, &status) == 0 ? 0 : errno;
  if (error == 0 && S_ISREG(status.st_mode)) return;
  ::close(descriptor_);  // the destructor of an object that was never made does not run
  errno = error;
  if (error != 0) throw_errno(path_, "read the file's size");
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
  if (::fstat(descriptor_, &status) != 0) throw_errno(path_, "read the file's size");
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
      throw_errno(path_, fmt::format("read at byte {}", offset));
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
      throw_errno(path, "read");
    }
    if (count == 0) return text;
    if (static_cast<std::uint64_t>(count) > limit_bytes - text.size()) {
      throw FileError(path, fmt::format("is larger than the {} bytes allowed here", limit_bytes));
    }
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

void replace_file(const std::string& path, std::string_view content) {
  OutputFile out(path);
  out.append(content);
  out.commit();
}

}  // namespace penstock::io
