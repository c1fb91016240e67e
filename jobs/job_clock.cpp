#include "jobs/job_clock.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <stdexcept>
#include <utility>
#include <vector>

#include "jobs/command.hpp"

namespace penstock::jobs {
namespace {

// A drain ends when a prediction was too long by at least this part, so that it does not change its
// mind with every step.
constexpr int kRoomToAdmit = 4;

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr std::int64_t kSecondMs = 1000;
constexpr std::int64_t kMinuteMs = 60 * kSecondMs;
constexpr std::int64_t kHourMs = 60 * kMinuteMs;
constexpr std::int64_t kDayMs = 24 * kHourMs;
constexpr std::int64_t kMaxMs = 3653 * kDayMs;
constexpr milliseconds kCommandLimit{10'000};
// How long before a drain Slurm is asked, so that its answer is there in time.
constexpr std::chrono::seconds kAskAhead{15};
// Slurm speaks in whole seconds, so an end that has not moved may seem to.
constexpr std::chrono::seconds kSameEnd{2};

// A whole number of up to nine digits, so that no sum of them overflows.
std::optional<std::int64_t> parse_count(std::string_view text) {
  std::int64_t value = 0;
  if (text.empty() || text.size() > 9 || text.front() == '-') return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Slurm's forms: [days-]hours[:minutes[:seconds]] after days, else [hours:]minutes:seconds.
std::optional<std::int64_t> parse_slurm_form(std::string_view text) {
  std::int64_t total = 0;
  const std::size_t dash = text.find('-');
  if (dash != std::string_view::npos) {
    const auto days = parse_count(text.substr(0, dash));
    if (!days) return std::nullopt;
    total = *days * kDayMs;
    text.remove_prefix(dash + 1);
  }
  std::vector<std::int64_t> parts;
  for (bool more = true; more;) {
    const std::size_t colon = text.find(':');
    const auto part = parse_count(text.substr(0, colon));
    if (!part || parts.size() == 3) return std::nullopt;
    parts.push_back(*part);
    more = colon != std::string_view::npos;
    if (more) text.remove_prefix(colon + 1);
  }
  const bool from_hours = dash != std::string_view::npos || parts.size() == 3;
  std::int64_t unit = from_hours ? kHourMs : kMinuteMs;
  for (const std::int64_t part : parts) {
    total += part * unit;
    unit /= 60;
  }
  return total;
}

std::optional<std::int64_t> parse_with_unit(std::string_view text) {
  std::int64_t unit = kSecondMs;
  if (!text.empty()) {
    constexpr std::array<std::pair<char, std::int64_t>, 4> kUnits{
        {{'s', kSecondMs}, {'m', kMinuteMs}, {'h', kHourMs}, {'d', kDayMs}}};
    for (const auto& [letter, unit_ms] : kUnits) {
      if (text.back() != letter) continue;
      unit = unit_ms;
      text.remove_suffix(1);
      break;
    }
  }
  double value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  const double total = value * static_cast<double>(unit);
  if (!(total >= 0)) return std::nullopt;  // negative, or no number
  if (total > static_cast<double>(kMaxMs)) return kMaxMs + 1;
  return std::llround(total);
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

std::optional<std::chrono::system_clock::time_point> parse_unix_time(std::string_view text) {
  std::int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  // The bound is the year 2262, where the clock's nanoseconds end.
  if (error != std::errc() || end != text.data() + text.size() || seconds <= 0 ||
      seconds > 9'200'000'000) {
    return std::nullopt;
  }
  return std::chrono::system_clock::time_point(std::chrono::seconds(seconds));
}

Clock::time_point to_steady_now(std::chrono::system_clock::time_point moment) {
  return to_steady(moment, std::chrono::system_clock::now(), Clock::now());
}

}  // namespace

milliseconds parse_duration(std::string_view text) {
  const std::optional<std::int64_t> total = text.find_first_of("-:", 1) != std::string_view::npos
                                                ? parse_slurm_form(text)
                                                : parse_with_unit(text);
  if (!total) {
    throw std::invalid_argument(
        fmt::format("'{}' is no duration; give seconds (90), a number with its unit (90s, 90m, "
                    "1.5h, 2d), or one of Slurm's forms (1:30:00, 2-00:00:00)",
                    text.substr(0, 40)));
  }
  if (*total < 1 || *total > kMaxMs) {
    throw std::invalid_argument(
        fmt::format("'{}' is out of range: a millisecond to ten years", text.substr(0, 40)));
  }
  return milliseconds(*total);
}

Clock::time_point to_steady(std::chrono::system_clock::time_point moment,
                            std::chrono::system_clock::time_point system_now,
                            Clock::time_point now) {
  return now + std::chrono::duration_cast<Clock::duration>(moment - system_now);
}

std::optional<std::chrono::system_clock::time_point> parse_scontrol_end(std::string_view id,
                                                                        std::string_view text) {
  const std::string head = fmt::format("JobId={} ", id);
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (!line.starts_with(head)) continue;
    constexpr std::string_view kKey = " EndTime=";
    const std::size_t key = line.find(kKey);
    if (key == std::string_view::npos) return std::nullopt;
    const std::string_view value = line.substr(key + kKey.size());
    return parse_unix_time(value.substr(0, value.find(' ')));
  }
  return std::nullopt;
}

std::optional<JobEnd> ask_slurm_for_end() {
  const std::string id = variable("SLURM_JOB_ID");
  if (!parse_count(id)) return std::nullopt;
  const auto answer =
      run_command({"scontrol", "show", "job", "-o", id}, kCommandLimit, {"SLURM_TIME_FORMAT=%s"});
  if (!answer || answer->exit_status != 0) return std::nullopt;
  const auto end = parse_scontrol_end(id, answer->out);
  if (!end) return std::nullopt;
  return JobEnd{to_steady_now(*end), "scontrol show job " + id};
}

std::optional<JobEnd> find_job_end(std::optional<milliseconds> time_limit,
                                   Clock::time_point start) {
  if (time_limit) return JobEnd{start + *time_limit, "--time-limit"};
  // 22.05 does not set it, later versions do. One that is past was inherited from another job.
  const auto end = parse_unix_time(variable("SLURM_JOB_END_TIME"));
  if (end && *end > std::chrono::system_clock::now()) {
    return JobEnd{to_steady_now(*end), "SLURM_JOB_END_TIME"};
  }
  return ask_slurm_for_end();
}

DrainClock::DrainClock(std::optional<JobEnd> end, milliseconds margin, Clock::time_point start,
                       AskAgain ask_again)
    : asked_margin_(std::max(margin, milliseconds(0))),
      start_(start),
      ask_again_(std::move(ask_again)) {
  set_end(std::move(end));
}

void DrainClock::set_end(std::optional<JobEnd> end) {
  end_ = std::move(end);
  margin_ = asked_margin_;
  if (!end_) return;
  const nanoseconds given = std::max(nanoseconds(end_->end - start_), nanoseconds(0));
  margin_ = std::min(margin_, given / 10);
}

std::optional<Clock::time_point> DrainClock::deadline() const {
  if (end_) return end_->end - margin_;
  if (requested_) return *requested_ + margin_;
  return std::nullopt;
}

void DrainClock::take_answer() {
  if (!answer_.valid() || answer_.wait_for(nanoseconds(0)) != std::future_status::ready) return;
  std::optional<JobEnd> answer = answer_.get();
  if (!answer || !end_) return;
  if (std::chrono::abs(answer->end - end_->end) <= kSameEnd) return;
  set_end(std::move(answer));
  asked_ = false;
  if (pace_ == Pace::drain) pace_ = Pace::admit;  // pace() looks again
}

Pace DrainClock::pace(Clock::time_point now, StopRequest request, nanoseconds predicted) {
  take_answer();
  request_ = std::max(request_, request);
  if (request_ != StopRequest::none && !requested_) requested_ = now;
  if (pace_ == Pace::stop) return pace_;

  // What is predicted may be anything; the sums are not to overflow.
  const nanoseconds need = std::clamp(predicted, nanoseconds(0), nanoseconds(milliseconds(kMaxMs)));
  const std::optional<Clock::time_point> last = deadline();
  if (request_ == StopRequest::stop_now || (last && now >= *last)) {
    pace_ = Pace::stop;
  } else if (requested_ || (last && now + need >= *last)) {
    pace_ = Pace::drain;
  } else if (last && now + need + need / kRoomToAdmit < *last) {
    pace_ = Pace::admit;
  }
  if (end_ && !requested_ && !asked_ && ask_again_ && pace_ != Pace::stop &&
      now + need + kAskAhead >= *last) {
    asked_ = true;
    answer_ = ask_again_();
  }
  return pace_;
}

std::string DrainClock::reason() const {
  if (pace_ == Pace::admit) return "";
  if (request_ == StopRequest::stop_now) return "a second SIGINT came";
  if (request_ == StopRequest::terminate) return "SIGTERM or SIGINT came";
  if (request_ == StopRequest::drain) return "SIGUSR1 or SIGUSR2 came";
  return fmt::format("the time limit comes near ({})", end_ ? end_->source : "");
}

DrainClock make_drain_clock(std::optional<milliseconds> time_limit, milliseconds margin,
                            Clock::time_point start) {
  DrainClock::AskAgain ask;
  if (!time_limit) ask = [] { return std::async(std::launch::async, ask_slurm_for_end); };
  return DrainClock(find_job_end(time_limit, start), margin, start, std::move(ask));
}

}  // namespace penstock::jobs
