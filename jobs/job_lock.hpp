#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "comm/clock.hpp"
#include "jobs/lock_file.hpp"
#include "jobs/lock_holder.hpp"

namespace penstock::jobs {

// How long things take; the defaults are what all jobs use, as they must agree.
struct LockTiming {
  std::chrono::milliseconds refresh{10'000};  // how often a holder moves its counter
  std::chrono::milliseconds stale{60'000};    // a counter that has not moved for so long is dead
  std::chrono::milliseconds poll{500};        // how often a newcomer looks
};

// The file `lock` in O.job: one job works on an output at a time. It appears whole and only once,
// on NFS too; a thread moves the counter in it.
//
// A lock that is there is taken over at once where its holder is gone for sure (lock_holder.hpp).
// Otherwise the newcomer looks on: a counter that moves refuses it; a holder that goes, or a
// counter that stands still for LockTiming::stale by this machine's steady clock, makes way. Where
// the file was last written longer ago than that by the file server's clock, one and a half
// refreshes of looking on are enough (and needed, since that clock may have been set).
class JobLock {
 public:
  // Takes the lock of an existing folder. Throws io::FileError: another job holds it, or the folder
  // cannot be written. `tell` is called at most once, when there is a wait, with a whole sentence
  // without a newline; it may be empty. Blocks for LockTiming::stale and some seconds at most.
  JobLock(const std::string& folder, std::function<void(std::string_view)> tell,
          LockTiming timing = {});
  // Removes the file, if it is still this job's.
  ~JobLock();
  JobLock(const JobLock&) = delete;
  JobLock& operator=(const JobLock&) = delete;

  // Whether another job took the lock over, or it was removed, which happens to a process that was
  // stopped for a minute: it must end without touching the output. Any thread, cheap; known within
  // a refresh, and at once by one who asks after having been stopped for two.
  bool lost() const noexcept;
  // Looks now, at the cost of reading the file: throws io::FileError if the lock is lost. For
  // before what cannot be undone, such as the merge. Any thread.
  void check() const;

 private:
  void release() noexcept;
  using Tell = std::function<void(std::string_view)>;

  bool is_mine(std::string_view bytes) const;
  void acquire(const Tell& tell);
  // Returns when the lock `seen` may be removed or is another one; throws if its holder lives.
  void await_end_of(const LockFile::Content& seen, const Tell& tell) const;
  void look() const noexcept;  // under file_mutex_
  void keep() noexcept;

  const std::string path_;  // the folder's, for messages
  const LockTiming timing_;
  const LockFile file_;
  const LockHolder self_;
  const std::string token_;
  mutable std::atomic<bool> lost_{false};
  mutable std::atomic<comm::Clock::rep> looked_{0};  // when, by the steady clock
  mutable std::mutex file_mutex_;                    // looking, or moving the counter
  std::mutex mutex_;
  std::condition_variable wake_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace penstock::jobs
