#include "jobs/drivers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "comm/error.hpp"
#include "comm/members.hpp"
#include "comm/wait.hpp"
#include "jobs/launch.hpp"
#include "jobs/messages.hpp"

namespace penstock::jobs {
namespace {

// The first byte of what drivers tell each other.
enum class Kind : std::uint8_t { share, status, stop_request, end };

// A look into the network costs more than one at the clock, and nothing here is urgent.
constexpr std::chrono::milliseconds kLookInterval{5};

// When all stand still, those who work tell first.
constexpr std::chrono::seconds kDriversGrace{4};
constexpr std::chrono::seconds kStagesGrace{8};

std::vector<std::byte> with_kind(Kind kind, std::span<const std::byte> content) {
  std::vector<std::byte> message(1 + content.size());
  message[0] = static_cast<std::byte>(kind);
  std::copy(content.begin(), content.end(), message.begin() + 1);
  return message;
}

double seconds(comm::Clock::duration time) { return std::chrono::duration<double>(time).count(); }

// The units of work that the members of a channel did, without `except`.
std::uint64_t progress_of(const comm::Control& control, int except) {
  std::uint64_t sum = 0;
  for (int i = 0; i < control.size(); ++i) {
    if (i != except) sum += control.pulse(i).progress;
  }
  return sum;
}

}  // namespace

void Drivers::send_share(int replica, const ShareMessage& share) {
  endpoint_.firsts->send(replica, with_kind(Kind::share, share_message(share)));
}

ShareMessage Drivers::receive_share() {
  comm::Wait wait([this] { return "share of the records from " + endpoint_.firsts->describe(0); },
                  endpoint_.watchdog);
  while (!share_) {
    endpoint_.beat(0);
    if (const auto message = endpoint_.firsts->try_receive()) {
      take(*message);
    } else {
      wait.pause();
    }
  }
  return *std::exchange(share_, std::nullopt);
}

void Drivers::poll() {
  if (replicas() == 1) return;
  const comm::Clock::time_point now = comm::Clock::now();
  if (now < next_look_) return;
  next_look_ = now + kLookInterval;
  beat(now);
  while (const auto message = endpoint_.firsts->try_receive()) take(*message);
  endpoint_.firsts->progress();
  pass_request();
  look(now);
}

// Who works tells the other drivers that its pipeline moves; who waits tells its stages that the
// other drivers do.
void Drivers::beat(comm::Clock::time_point now) {
  if (!watchdog_) {
    watchdog_.emplace(*endpoint_.firsts, endpoint_.watchdog, kDriversGrace, now);
  }
  comm::Control& heard = waiting_ ? *endpoint_.firsts : *endpoint_.control;
  comm::Control& told = waiting_ ? *endpoint_.control : *endpoint_.firsts;
  const std::uint64_t progress = progress_of(heard, waiting_ ? heard.member() : -1);
  told.beat(progress == seen_progress_ ? 0 : 1);
  if (waiting_) heard.beat(0);  // else the pipeline does it
  seen_progress_ = progress;
}

void Drivers::take(const comm::ControlMessage& message) {
  const std::span<const std::byte> bytes(message.bytes);
  if (bytes.empty() || bytes[0] > static_cast<std::byte>(Kind::end)) {
    throw comm::CommError(fmt::format("{} sent a message that no driver sends",
                                      endpoint_.firsts->describe(message.from)));
  }
  const auto content = bytes.subspan(1);
  switch (static_cast<Kind>(bytes[0])) {
    case Kind::share:
      share_ = parse_share(content);
      break;
    case Kind::status:
      statuses_.at(static_cast<std::size_t>(message.from)) = parse_status(content);
      break;
    case Kind::stop_request: {
      const StopRequest request = parse_stop_request(content);
      requested_ = std::max(requested_, request);
      if (!is_first()) passed_ = std::max(passed_, request);  // the first knows it
      break;
    }
    case Kind::end:
      ended_ = true;
      break;
  }
}

StopRequest Drivers::request() const { return std::max(signals_.request(), requested_); }

void Drivers::take_request(StopRequest request) { requested_ = std::max(requested_, request); }

// To the first, which tells all the others.
void Drivers::pass_request() {
  const StopRequest now = request();
  if (now <= passed_) return;
  passed_ = now;
  const std::vector<std::byte> message = with_kind(Kind::stop_request, stop_request_message(now));
  if (!is_first()) endpoint_.firsts->send(0, message);
  for (int other = 1; is_first() && other < replicas(); ++other) {
    endpoint_.firsts->send(other, message);
  }
}

// A standstill is its own pipeline's business as long as a driver works.
void Drivers::look(comm::Clock::time_point now) {
  const std::optional<comm::Complaint> complaint = watchdog_->look(now);
  if (!complaint) return;
  if (complaint->kind == comm::Complaint::Kind::silent || waiting_) complain(*complaint);
}

void Drivers::complain(const comm::Complaint& complaint) const {
  const comm::Control& firsts = *endpoint_.firsts;
  const int member = complaint.member;
  throw comm::CommError(fmt::format(
      "{}: {} for {:.1f} s; {} is the driver of replica {}, {}", stage_name(endpoint_),
      complaint.kind == comm::Complaint::Kind::silent
          ? "no word of another replica"
          : "all other drivers are alive, but none has made progress",
      seconds(complaint.age), firsts.describe(member), member, comm::last_word(firsts, member)));
}

void Drivers::tell(const ReplicaStatus& status) {
  if (is_first()) return;
  endpoint_.firsts->send(0, with_kind(Kind::status, to_bytes(status)));
}

// Only requests come from them now.
void Drivers::pump_stages() {
  while (const auto message = endpoint_.control->try_receive()) {
    if (kind_of(message->bytes) == MessageKind::stop_request) {
      take_request(parse_stop_request(message->bytes));
    }
  }
  endpoint_.control->progress();
}

void Drivers::wait(const std::function<bool()>& done, const std::function<void()>& meanwhile) {
  waiting_ = true;
  seen_progress_ = 0;
  const comm::Clock::time_point start = comm::Clock::now();
  comm::Watchdog stages(*endpoint_.control, endpoint_.watchdog, kDriversGrace, start);
  comm::Pacer pacer(comm::Pacer::Pace::patient, start);
  while (!done()) {
    poll();
    pump_stages();
    meanwhile();
    const comm::Clock::time_point now = comm::Clock::now();
    const std::optional<comm::Complaint> complaint = stages.look(now);
    if (complaint && complaint->kind == comm::Complaint::Kind::silent) {
      throw comm::CommError(fmt::format("{}: waiting for the other replicas; {} is silent: {}",
                                        stage_name(endpoint_),
                                        endpoint_.control->describe(complaint->member),
                                        comm::last_word(*endpoint_.control, complaint->member)));
    }
    pacer.pause(now);
  }
}

void Drivers::wait_for_others(const std::function<void()>& meanwhile) {
  if (replicas() == 1) return;
  wait(
      [this] {
        return std::all_of(statuses_.begin() + 1, statuses_.end(),
                           [](const ReplicaStatus& status) { return status.done; });
      },
      meanwhile);
}

void Drivers::end() {
  for (int other = 1; other < replicas(); ++other) {
    endpoint_.firsts->send(other, with_kind(Kind::end, {}));
  }
}

void Drivers::wait_for_end() {
  wait([this] { return ended_; }, [] {});
}

void Drivers::dismiss_stages() {
  if (replicas() == 1) return;
  for (int stage = 1; stage < endpoint_.control->size(); ++stage) {
    endpoint_.control->send(stage, signal_message(MessageKind::all_over));
  }
}

void wait_for_end(comm::Endpoint& endpoint, const std::function<StopRequest()>& stop_request) {
  if (endpoint.pipelines == 1) return;
  comm::Control& control = *endpoint.control;
  const comm::Clock::time_point start = comm::Clock::now();
  comm::Watchdog watchdog(control, endpoint.watchdog, kStagesGrace, start);
  comm::Pacer pacer(comm::Pacer::Pace::patient, start);
  StopRequest passed = StopRequest::none;
  for (;;) {
    if (const auto message = control.try_receive()) {
      if (kind_of(message->bytes) == MessageKind::all_over) return;
      throw comm::CommError(
          fmt::format("{} sent a message where all is over", control.describe(message->from)));
    }
    control.beat(0);
    control.progress();
    if (const StopRequest now = stop_request(); now > passed) {
      passed = now;
      control.send(0, stop_request_message(now));
    }
    const comm::Clock::time_point now = comm::Clock::now();
    if (const auto complaint = watchdog.look(now)) {
      throw comm::CommError(fmt::format(
          "{}: no word of the other replicas' end from {} for {:.1f} s; {}", stage_name(endpoint),
          control.describe(0), seconds(complaint->age), comm::last_word(control, 0)));
    }
    pacer.pause(now);
  }
}

}  // namespace penstock::jobs
