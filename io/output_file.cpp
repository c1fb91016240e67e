#include "io/output_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "io/error.hpp"

namespace penstock::io {
namespace {

constexpr std::size_t kBufferBytes = 1u << 20;

}  // namespace

void throw_errno(const std::string& path, std::string_view action) {
  const int error = errno;
  throw FileError(path, fmt::format("cannot {}: {}", action, std::strerror(error)));
}

void write_all(int descriptor, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_errno(path, "write");
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

void write_all_at(int descriptor, std::uint64_t offset, std::string_view bytes,
                  const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t count =
        ::pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_errno(path, "write");
    bytes.remove_prefix(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
}

void sync_folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) throw_errno(folder, "open the folder");
  const int result = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  // Some network file systems cannot sync folders; they say so with EINVAL.
  if (result != 0 && error != EINVAL) {
    errno = error;
    throw_errno(folder, "sync the folder");
  }
}

OutputFile::OutputFile(std::string path) : path_(std::move(path)), part_path_(path_ + ".part") {
  descriptor_ = ::open(part_path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw_errno(part_path_, "create");
  buffer_.reserve(kBufferBytes);
}

OutputFile::~OutputFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(part_path_.c_str());
}

void OutputFile::flush() {
  write_all(descriptor_, buffer_, part_path_);
  buffer_.clear();
}

void OutputFile::append(std::string_view bytes) {
  if (buffer_.size() + bytes.size() > kBufferBytes) flush();
  if (bytes.size() >= kBufferBytes) {
    write_all(descriptor_, bytes, part_path_);
  } else {
    buffer_.append(bytes);
  }
}

void OutputFile::rewrite(std::uint64_t offset, std::string_view bytes) {
  flush();
  write_all_at(descriptor_, offset, bytes, part_path_);
}

void OutputFile::commit() {
  flush();
  if (::fsync(descriptor_) != 0) throw_errno(part_path_, "sync");
  // Network file systems may tell of a failed write only here.
  const int descriptor = std::exchange(descriptor_, -1);
  if (::close(descriptor) != 0 || ::rename(part_path_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    ::unlink(part_path_.c_str());
    errno = error;
    throw_errno(path_, "finish");
  }
  sync_folder_of(path_);
}

}  // namespace penstock::io
