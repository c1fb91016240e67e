#pragma once

#include <functional>
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
  // the first stage. The sampled ids are in stage.sampled() of the last.
  void compute(const model::StepPlan& plan, std::span<const std::byte> in);

  // Waits until all activations are with the next stage.
  void flush();

 private:
  struct OutBuffer {
    std::vector<std::byte> bytes;
    comm::Ticket ticket = 0;
    bool sending = false;
  };
  OutBuffer& free_buffer(const model::StepPlan& plan);

  comm::Endpoint& endpoint_;
  model::Stage& stage_;
  PipelineOptions options_;
  std::function<bool()> pump_;
  Ledger ledger_;
  std::vector<OutBuffer> out_;  // one for each slot: no more steps are ever under way
  std::size_t next_out_ = 0;
};

}  // namespace penstock::jobs
