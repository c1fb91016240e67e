#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "comm/link.hpp"
#include "comm/watchdog.hpp"
#include "jobs/replica_share.hpp"
#include "jobs/replica_status.hpp"
#include "jobs/stop_signals.hpp"

// The replicas of one job, each a pipeline of its own, share no collective while they work: their
// drivers tell each other by messages what there is to tell, and go on without waiting for it.
namespace penstock::jobs {

// One driver among those of all replicas; where there is one replica it is alone, and all this does
// nothing. Used by the driver's thread.
class Drivers {
 public:
  // `signals` is asked for what this process was told. Both must outlive the object.
  Drivers(comm::Endpoint& endpoint, const StopSignals& signals)
      : endpoint_(endpoint), signals_(signals), statuses_(static_cast<std::size_t>(replicas())) {}

  int replica() const { return endpoint_.pipeline; }
  int replicas() const { return endpoint_.pipelines; }
  bool is_first() const { return replica() == 0; }

  // The first tells another what to work on, which waits for it.
  void send_share(int replica, const ShareMessage& share);
  ShareMessage receive_share();

  // From here on to be called at least as often as heartbeats are due: takes in what others tell,
  // lets them know that this replica lives, and passes on who wants the job to stop. Throws
  // comm::CommError when another driver has been silent for endpoint.watchdog.
  void poll();

  // The most urgent request of all ranks of all replicas, as far as it came here.
  StopRequest request() const;
  void take_request(StopRequest request);  // of a stage of this pipeline

  // Tells the first, if this is not the first.
  void tell(const ReplicaStatus& status);
  // What the first knows of replica 1 and so on; that of replica 0 is never set.
  std::vector<ReplicaStatus>& statuses() { return statuses_; }

  // The first waits until all others are done; `meanwhile` is called all the time.
  void wait_for_others(const std::function<void()>& meanwhile);
  // The first: all is over. The others wait for that word.
  void end();
  void wait_for_end();
  // Any: tells the other stages of its pipeline, which wait in wait_for_end(endpoint, …).
  void dismiss_stages();

 private:
  void take(const comm::ControlMessage& message);
  void beat(comm::Clock::time_point now);
  void pass_request();
  void look(comm::Clock::time_point now);
  void pump_stages();
  void wait(const std::function<bool()>& done, const std::function<void()>& meanwhile);
  [[noreturn]] void complain(const comm::Complaint& complaint) const;

  comm::Endpoint& endpoint_;
  const StopSignals& signals_;
  std::vector<ReplicaStatus> statuses_;  // [replicas]; the first's
  std::optional<ShareMessage> share_;    // that has come
  StopRequest requested_ = StopRequest::none;
  StopRequest passed_ = StopRequest::none;
  std::optional<comm::Watchdog> watchdog_;  // since the first poll()
  comm::Clock::time_point next_look_{};
  std::uint64_t seen_progress_ = 0;  // of this pipeline's stages, or of the other drivers
  bool waiting_ = false;             // has nothing more to do itself
  bool ended_ = false;
};

// What stages other than the driver do when their pipeline has nothing more to do: they wait until
// the other replicas are done, and pass on what `stop_request` says meanwhile.
void wait_for_end(comm::Endpoint& endpoint, const std::function<StopRequest()>& stop_request);

}  // namespace penstock::jobs
