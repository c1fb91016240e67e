#pragma once

#include <csignal>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace penstock::jobs {

// What somebody wants of a job that is under way, in the order of urgency.
enum class StopRequest : std::uint8_t {
  none,
  drain,      // SIGUSR1, SIGUSR2: admit no more, finish what fits
  terminate,  // SIGTERM, SIGINT: the same, but the end may come at any moment
  stop_now,   // a second SIGINT: journal what is there and end
};

// The signals by which users and schedulers stop a job. SIGUSR1 and SIGUSR2 are taken from the
// constructor on; SIGTERM and SIGINT only after take_end_signals(), since before the job has begun
// there is nothing to lose. A third SIGINT ends the process as if nobody had taken it.
//
// The handlers set an atomic and write a byte to a pipe; a thread reads it and calls the callback.
// One object a process (std::logic_error for a second one), destroyed by the thread that made it;
// the handlers that were there before come back with its end. Throws std::system_error.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // Any thread, any number of times. A SIGINT that was ignored, as shells do for jobs in the
  // background, stays so.
  void take_end_signals();

  // The most urgent request so far. Any thread; cheap.
  StopRequest request() const noexcept;

  // Called on the thread of this object, soon after a request became more urgent, or soon if there
  // is one already. It must not throw, nor call on_request. Once on_request has returned, the
  // callback before is neither running nor called again; an empty one calls nobody.
  void on_request(std::function<void(StopRequest)> callback);

 private:
  void take(int signal);
  void watch();
  void end() noexcept;

  std::mutex mutex_;  // of what follows; held while the callback runs
  std::vector<std::pair<int, struct sigaction>> old_;  // what was taken
  std::function<void(StopRequest)> callback_;
  StopRequest told_ = StopRequest::none;
  bool ending_ = false;
  int pipe_read_ = -1;
  std::thread thread_;
};

}  // namespace penstock::jobs
