#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/link.hpp"
#include "comm/wait.hpp"
#include "jobs/ledger.hpp"
#include "jobs/pipeline.hpp"

namespace penstock::jobs {

inline Ledger::Time steady_now() {
  return std::chrono::duration_cast<Ledger::Time>(
      std::chrono::steady_clock::now().time_since_epoch());
}

// Room for the activations of the largest step, in memory of the stage's device.
std::unique_ptr<model::ActivationBuffer> make_step_buffer(const model::Stage& stage,
                                                          const PipelineOptions& options);

// The part of such a buffer that a step takes. Throws comm::CommError for a step that is too large.
std::span<std::byte> step_bytes(const model::ActivationBuffer& buffer, const model::Stage& stage,
                                const model::StepPlan& plan);

// What the driver and the other stages do alike: waiting by the ledger, sending activations on.
class StageContext {
 public:
  // `pump` moves messages along and says whether one arrived. It is called from all waits, and
  // between layers. Everything must outlive the context.
  StageContext(comm::Endpoint& endpoint, model::Stage& stage, const PipelineOptions& options,
               std::function<bool()> pump);

  Ledger& ledger() { return ledger_; }

  // Waits by pumping until `done`; the time goes to `share`. Each arriving message restarts the
  // deadline. Throws comm::CommError "no NAME for 600 s".
  void wait(Share share, const std::function<bool()>& done, std::function<std::string()> name);

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

  comm::Endpoint& endpoint_;
  model::Stage& stage_;
  PipelineOptions options_;
  std::function<bool()> pump_;
  comm::Wait::Pace pace_;
  Ledger ledger_;
  std::vector<OutBuffer> out_;  // one for each slot: no more steps are ever under way
  std::size_t next_out_ = 0;
};

}  // namespace penstock::jobs
