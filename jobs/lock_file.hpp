#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::jobs {

// The file `lock` of a folder: what can be done with it in one step, on network file systems too.
// Which lock is whose, and who may take it, is JobLock's business. The folder is held open, so that
// it may be renamed. Functions throw io::FileError with the operating system's words. Any thread.
class LockFile {
 public:
  explicit LockFile(const std::string& folder);
  ~LockFile();
  LockFile(const LockFile&) = delete;
  LockFile& operator=(const LockFile&) = delete;

  struct Content {
    std::string bytes;          // at most kMaxBytes; longer ones are cut
    std::int64_t mtime_ns = 0;  // by the file server's clock
    std::uint64_t inode = 0;
    bool operator==(const Content&) const = default;
  };
  static constexpr std::size_t kMaxBytes = 16384;

  // What it holds; nothing: there is none. Refuses what is no regular file.
  std::optional<Content> read() const;
  // Makes it with these bytes, whole from the first moment. False: there is one.
  bool create(std::string_view bytes) const;
  // Puts `bytes` over what it holds, in place, if `mine` is true of that. False: it was not, or
  // there is none.
  bool update(std::string_view bytes, const std::function<bool(std::string_view)>& mine) const;
  // Puts another in the place of the one that was `seen`, or takes that away. Of all who have seen
  // the same one, only one is let: it makes a second name of the lock, `lock.INODE.claim`, looks
  // through that name whether it is still the one, and acts. False: another is at it, or it is not
  // there any more; look again. A claim that a killed process left is taken away after a minute.
  bool replace(const Content& seen, std::string_view bytes) const;
  bool remove(const Content& seen) const;
  // What a file written now has for its time: the file server's clock.
  std::int64_t server_time_ns() const;

 private:
  class Claim;
  void remove_abandoned(const std::string& claim) const;

  const std::string folder_path_;
  int folder_ = -1;
};

}  // namespace penstock::jobs
