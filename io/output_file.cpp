#include "io/output_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <random>
#include <system_error>
#include <utility>

#include "io/error.hpp"

namespace penstock::io {
namespace {

constexpr std::size_t kBufferBytes = 1u << 20;

}  // namespace

// Some file systems cannot sync folders (EINVAL), and some folders may be written but not read
// (EACCES).
void sync_folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0 && errno == EACCES) return;
  if (descriptor < 0) throw_errno(folder, "open the folder");
  const int error = ::fsync(descriptor) == 0 ? 0 : errno;
  ::close(descriptor);
  if (error == 0 || error == EINVAL) return;
  errno = error;
  throw_errno(folder, "sync the folder");
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

std::string follow_links(const std::string& path) {
  namespace fs = std::filesystem;
  constexpr int kMostLinks = 40;  // as Linux
  fs::path file = path;
  std::error_code error;
  for (int links = 0; fs::is_symlink(fs::symlink_status(file, error)); ++links) {
    if (links == kMostLinks) throw FileError(path, "is a link that leads round in a circle");
    const fs::path target = fs::read_symlink(file, error);
    if (error) throw FileError(path, "is a link that cannot be read: " + error.message());
    file = file.parent_path() / target;  // an absolute target replaces the folder
  }
  return file.string();
}

OutputFile::OutputFile(std::string path) : path_(follow_links(path)) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path_, ignored)) {
    throw FileError(path_, "is a folder, not a file");
  }
  // A random name, since process ids repeat across the hosts that share a file system.
  std::random_device random;
  do {
    temporary_path_ = fmt::format("{}.{:08x}.tmp", path_, random());
    descriptor_ = ::open(temporary_path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (descriptor_ < 0 && (errno == EEXIST || errno == EINTR));
  if (descriptor_ < 0) throw_errno(path_, "create");
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!committed_) ::unlink(temporary_path_.c_str());
}

void OutputFile::reserve(std::uint64_t size_bytes) {
  if (::fallocate(descriptor_, 0, 0, static_cast<off_t>(size_bytes)) == 0) return;
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) {
    throw_errno(path_, fmt::format("take {} bytes", size_bytes));
  }
}

void OutputFile::flush() {
  write_all(descriptor_, buffer_, path_);
  buffer_.clear();
}

void OutputFile::append(std::string_view bytes) {
  if (buffer_.size() + bytes.size() > kBufferBytes) flush();
  if (bytes.size() >= kBufferBytes) {
    write_all(descriptor_, bytes, path_);
  } else {
    buffer_.append(bytes);
  }
}

void OutputFile::write_at(std::uint64_t offset, std::string_view bytes) {
  flush();
  write_all_at(descriptor_, offset, bytes, path_);
}

void OutputFile::commit() {
  flush();
  if (::fsync(descriptor_) != 0) throw_errno(path_, "sync");
  // Network file systems may tell of a failed write only here.
  if (::close(std::exchange(descriptor_, -1)) != 0) throw_errno(path_, "write");
  if (::rename(temporary_path_.c_str(), path_.c_str()) != 0) throw_errno(path_, "replace");
  committed_ = true;
  sync_folder_of(path_);
}

}  // namespace penstock::io
