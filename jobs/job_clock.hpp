#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <optional>
#include <string>
#include <string_view>

#include "comm/clock.hpp"
#include "jobs/stop_signals.hpp"

namespace penstock::jobs {

using comm::Clock;  // steady: a jump of the system's clock changes nothing

// A duration as people write it: "90" and "90s" (seconds), "90m", "1.5h", "2d", and the forms with
// colons and days of Slurm's --time: "1:30" (minutes:seconds), "1:30:00", "2-12", "2-12:30",
// "2-00:00:00". A number alone is seconds here, minutes to Slurm. At least a millisecond, at most
// ten years. Throws std::invalid_argument, ready for the user, without the option's name.
std::chrono::milliseconds parse_duration(std::string_view text);

// When the job will be ended, and who says so.
struct JobEnd {
  Clock::time_point end;
  std::string source;  // "--time-limit", "SLURM_JOB_END_TIME", "scontrol show job 123"
};

// When this job ends: `time_limit` after `start` (when the program was started), else the end of
// the Slurm job in whose environment this process is, else nothing. Asks scontrol, for up to ten
// seconds, where Slurm's environment does not say. Does not throw for what Slurm says; unknown is
// nothing.
std::optional<JobEnd> find_job_end(std::optional<std::chrono::milliseconds> time_limit,
                                   Clock::time_point start);

// The end as scontrol says it now (`scontrol update TimeLimit=…` moves it); nothing outside Slurm.
std::optional<JobEnd> ask_slurm_for_end();

// A moment of the system's clock in terms of the steady one, given what both show now.
Clock::time_point to_steady(std::chrono::system_clock::time_point moment,
                            std::chrono::system_clock::time_point system_now,
                            Clock::time_point now);

// The end in what `scontrol show job -o ID` prints under SLURM_TIME_FORMAT=%s: the seconds of
// "EndTime=1763918634" in the line of that job (it prints all tasks of an array); nothing for
// "Unknown" and for anything else.
std::optional<std::chrono::system_clock::time_point> parse_scontrol_end(std::string_view id,
                                                                        std::string_view text);

enum class Pace : std::uint8_t {
  admit,
  drain,  // admit no more, go on with what is in flight
  stop,   // journal what is in flight as partial, now
};

// Decides how the driver goes on. Pure: time and requests are given. One thread.
class DrainClock {
 public:
  // Asks for the end anew without waiting; the answer is taken when it is ready.
  using AskAgain = std::function<std::future<std::optional<JobEnd>>()>;

  // `margin`: how long before the end everything must be on disk; at most a tenth of the time from
  // `start` (now) to the end is used. `ask_again`, which may be empty, is called shortly before a
  // drain for the end's sake, once for each end: if the end has moved, the new one counts.
  DrainClock(std::optional<JobEnd> end, std::chrono::milliseconds margin, Clock::time_point start,
             AskAgain ask_again = {});

  // `predicted`: how long the records in flight, and one that is begun now, still need. Never goes
  // back from stop, nor from a drain that was requested; from another to admit where the end has
  // moved, or where the prediction was too long by a quarter or more.
  Pace pace(Clock::time_point now, StopRequest request, std::chrono::nanoseconds predicted);

  const std::optional<JobEnd>& end() const { return end_; }
  // When everything must be on disk: margin before the end, or margin after the first request
  // where no end is known; nothing before there is either.
  std::optional<Clock::time_point> deadline() const;
  // Why the pace is not admit, for a message: "SIGUSR1 or SIGUSR2 came", "the time limit comes
  // near (--time-limit)"; empty under admit.
  std::string reason() const;

 private:
  void set_end(std::optional<JobEnd> end);
  void take_answer();

  std::optional<JobEnd> end_;
  std::chrono::milliseconds asked_margin_;
  Clock::time_point start_;
  AskAgain ask_again_;
  std::chrono::nanoseconds margin_{0};  // as used
  std::future<std::optional<JobEnd>> answer_;
  bool asked_ = false;  // for this end
  std::optional<Clock::time_point> requested_;
  StopRequest request_ = StopRequest::none;
  Pace pace_ = Pace::admit;
};

// The clock of this process: find_job_end(), and where that is Slurm's, scontrol on a thread of its
// own when the end comes near. Destroying it may wait for scontrol, for ten seconds at most.
DrainClock make_drain_clock(std::optional<std::chrono::milliseconds> time_limit,
                            std::chrono::milliseconds margin, Clock::time_point start);

}  // namespace penstock::jobs
