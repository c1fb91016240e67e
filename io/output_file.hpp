#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace penstock::io {

// A file that appears under its name only when it is whole: written as `path`.part in the same
// folder, then synced and renamed by commit(). Destroyed before that, it removes what it wrote.
// Buffered. Throws FileError with the operating system's words.
class OutputFile {
 public:
  explicit OutputFile(std::string path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void append(std::string_view bytes);
  // Overwrites bytes that were appended before.
  void rewrite(std::uint64_t offset, std::string_view bytes);
  void commit();

 private:
  void flush();

  std::string path_;
  std::string part_path_;
  int descriptor_ = -1;
  std::string buffer_;
};

// All of `bytes` at the end of, or at `offset` in, an open file; interrupted and short writes are
// taken up again. `path` is for messages.
void write_all(int descriptor, std::string_view bytes, const std::string& path);
void write_all_at(int descriptor, std::uint64_t offset, std::string_view bytes,
                  const std::string& path);

// Makes a rename or a new name in the folder of `path` durable.
void sync_folder_of(const std::string& path);

// "disk full" words for errno: the operating system's text.
[[noreturn]] void throw_errno(const std::string& path, std::string_view action);

}  // namespace penstock::io
