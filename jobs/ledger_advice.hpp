#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/ledger.hpp"

// What a run's ledger says, in words. Pure.
namespace penstock::jobs {

// One pipeline's work.
struct PipelineLedger {
  std::vector<LedgerTotals> stages;  // not empty
  std::uint32_t slots = 1;
  std::uint64_t steps = 0;
  bool is_rehearsal = false;  // of devices that nobody can measure
};

// The part of the stages' time, 0 to 1, that filling and draining the pipeline must leave idle,
// were all steps equally long and all else perfect.
//
// GPipe (Huang et al. 2019, arXiv:1811.06965, section 2.3) gives (P-1) / (M+P-1) for a batch that
// is cut into M micro-batches: the last of P stages waits for P-1 before its first step, the first
// one has nothing to do for P-1 after its last. There the pipeline runs empty after each batch.
// Here it does not: slots go on from step to step, and records replace each other inside them, so M
// is all the steps of the run. That needs as many slots as stages. With S < P a slot's next step
// begins when the last one is through all stages, so S steps take as long as P: the run takes the
// time of (ceil(M/S) - 1) P steps and of a last pass of what is left, P-1 more than its steps.
//
// It counts steps, not records: that the last answers leave slots empty before they end depends on
// the dataset, and stands in the ledger as drain.
double least_bubble(std::size_t stages, std::uint32_t slots, std::uint64_t steps);

// Why stages do not compute, where one cause stands out.
enum class IdleCause {
  none,           // they do
  few_slots,      // fewer than stages
  short_run,      // filling and draining
  drain,          // the dataset's last answers
  uneven_stages,  // one computes longer than the others
  reading,        // stage 0 reads, tokenizes and plans
  communication,
  each_other,  // steps in flight do not cover the way there and back
};
std::string_view to_string(IdleCause cause);  // "none", "few_slots", …

struct Advice {
  IdleCause cause = IdleCause::none;
  double part = 0;   // of the stages' time that it takes, about
  std::string text;  // one line, without a newline
};
Advice advise(const PipelineLedger& run);

// The lines below the ledger's table: bubble, if there were steps, and advice.
std::string format_advice(const PipelineLedger& run);

}  // namespace penstock::jobs
