#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace penstock::io {

// What `path` leads to, link by link, whether it is there or not; `path` itself if it is no link.
// Throws FileError for a circle.
std::string follow_links(const std::string& path);

// A file that appears under its name only when it is whole: written beside it as
// PATH.0123abcd.tmp (a name that nobody has), then synced and renamed by commit(). Destroyed before
// that, it removes what it wrote. Throws FileError with the operating system's words; a `path` that
// is a folder is refused at once, one that is a link stays one: the file it leads to is written.
class OutputFile {
 public:
  explicit OutputFile(std::string path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // What it is called until commit(), for libraries that open files by name.
  const std::string& temporary_path() const { return temporary_path_; }

  // Takes the space for `size_bytes` now, where the file system can, so that a full disk is seen
  // before hours of work and the file lies in one piece.
  void reserve(std::uint64_t size_bytes);

  void append(std::string_view bytes);  // buffered
  void write_at(std::uint64_t offset, std::string_view bytes);
  void commit();

 private:
  void flush();

  std::string path_;
  std::string temporary_path_;
  int descriptor_ = -1;
  bool committed_ = false;
  std::string buffer_;
};

// Puts the name of a file that was made or renamed on the disk: it is there only when its folder
// is. What a file system cannot do here is left out.
void sync_folder_of(const std::string& path);

// All of `bytes` at the end of, or at `offset` in, an open file; interrupted and short writes are
// taken up again. `path` is for messages.
void write_all(int descriptor, std::string_view bytes, const std::string& path);
void write_all_at(int descriptor, std::uint64_t offset, std::string_view bytes,
                  const std::string& path);

}  // namespace penstock::io
