#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace penstock::io {

// A file opened for reading; move-only, closed by the destructor. Throws FileError with the
// operating system's words. read_at is thread-safe.
class File {
 public:
  File() = default;
  explicit File(std::string path);
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const { return path_; }
  std::uint64_t size_bytes() const;
  // Fills `out` from `offset`; a file that ends before is a FileError.
  void read_at(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  std::string path_;
  int descriptor_ = -1;
};

// The whole file as a string; larger than `limit_bytes` is a FileError.
std::string read_text(const std::string& path, std::uint64_t limit_bytes = 1u << 30);

// Replaces `path` atomically: a temporary file in the same folder, fsync, rename.
void replace_file(const std::string& path, std::string_view content);

}  // namespace penstock::io
