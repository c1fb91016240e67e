#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/link.hpp"
#include "comm/wait.hpp"
#include "comm/watchdog.hpp"
#include "jobs/flight_recorder.hpp"
#include "jobs/ledger.hpp"
#include "jobs/pipeline.hpp"

namespace penstock::jobs {

// Room for the activations of the largest step, in memory of the stage's device.
std::unique_ptr<model::ActivationBuffer> make_step_buffer(const model::Stage& stage,
                                                          const PipelineOptions& options);

// The part of such a buffer that a step takes. Throws comm::CommError for a step that is too large.
std::span<std::byte> step_bytes(const model::ActivationBuffer& buffer, const model::Stage& stage,
                                const model::StepPlan& plan);

// What a wait is for: a name for messages ("activations of step 88 (slot 5) from rank 5, host a"),
// and who is to bring it.
struct Awaited {
  std::function<std::string()> name;  // only called when the wait fails
  int member = kNobody;
  // How it comes. When all stand still, who waits for its own device is nearest to the cause, then
  // who waits for a neighbour; the last to tell are those whom only a message would wake.
  enum class By { device, link, message };
  By by = By::message;

  static constexpr int kNobody = -1;
};

// What the driver and the other stages do alike: waiting by the ledger, sending activations on.
class StageContext {
 public:
  // `pump` moves messages along and says whether one arrived. It is called from all waits, and
  // between layers. Everything must outlive the context; `recorder` may be null.
  StageContext(comm::Endpoint& endpoint, model::Stage& stage, const PipelineOptions& options,
               std::function<bool()> pump, FlightRecorder* recorder);

  Ledger& ledger() { return ledger_; }
  StageClock& clock() { return options_.clock; }
  Ledger::Time now() const { return options_.clock.now(); }
  // The ledger up to now.
  LedgerTotals totals() const { return ledger_.totals(now()); }
  auto scope(Share share) {
    return LedgerScope(ledger_, share, [this] { return now(); });
  }

  // Waits by pumping until `done`; the time goes to `share`. Throws comm::CommError, which names
  // all there is to know, when the watchdog says that waiting is hopeless.
  void wait(Share share, const std::function<bool()>& done, const Awaited& awaited);

  // What came at `arrival` is here: the time until then goes to `share`. Nothing where time is
  // real.
  void arrived(Share share, Ledger::Time arrival);

  // The same for activations, which carry the time in a rehearsal.
  void activations_arrived(std::span<const std::byte> in);

  // For the flight recorder, if there is one.
  void note(FlightEvent event, std::uint64_t step, std::uint64_t slot, std::uint64_t amount);

  // Computes a step and, unless this is the last stage, sends its activations on. `in` is empty on
  // the first stage; on the others previous->order_compute_after() has been true for it. A GPU may
  // still be at work, or wait for `in`, when this returns.
  void start(const model::StepPlan& plan, std::span<const std::byte> in);

  // Waits for the end of that work; `arrival` is the ticket of `in`, unused on the first stage. The
  // sampled ids are then in stage.sampled() of the last.
  void finish(const model::StepPlan& plan, comm::Ticket arrival = 0);

  // Waits until all activations are with the next stage.
  void flush();

 private:
  struct OutBuffer {
    std::unique_ptr<model::ActivationBuffer> memory;
    comm::Ticket ticket = 0;
    bool sending = false;
  };
  OutBuffer& free_buffer(const model::StepPlan& plan);
  void stamp(std::span<std::byte> out, std::uint32_t rows);
  std::string describe(const comm::Complaint& complaint, const Awaited& awaited,
                       comm::Clock::duration waited) const;

  comm::Endpoint& endpoint_;
  model::Stage& stage_;
  PipelineOptions options_;
  std::function<bool()> pump_;
  FlightRecorder* recorder_;
  comm::Pacer::Pace pace_;
  Ledger ledger_;
  std::vector<OutBuffer> out_;  // one for each slot: no more steps are ever under way
  std::size_t next_out_ = 0;
};

}  // namespace penstock::jobs
