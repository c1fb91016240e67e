#include "model/gpu_samplers.hpp"

#include <fmt/format.h>

#include <cstring>
#include <map>
#include <utility>

#include "model/error.hpp"

namespace penstock::model {

std::vector<std::byte> make_penalty_table(const Admission& admission, std::size_t vocab_size,
                                          std::uint32_t capacity) {
  std::map<std::int32_t, std::uint32_t> generated;
  for (std::size_t i = 0; i < admission.tokens.size(); ++i) {
    const std::int32_t id = admission.tokens[i];
    if (id < 0 || static_cast<std::size_t>(id) >= vocab_size) continue;
    std::uint32_t& count = generated[id];
    if (i >= admission.prompt_tokens) ++count;
  }
  if (generated.size() > capacity) {
    throw ModelError(
        fmt::format("sequence {} has {} different tokens, its penalties have room "
                    "for {}: it is longer than the context",
                    admission.sequence, generated.size(), capacity));
  }
  const PenaltyTable header{static_cast<std::uint32_t>(generated.size()), capacity};
  std::vector<std::byte> bytes(penalty_table_bytes(generated.size()));
  std::memcpy(bytes.data(), &header, sizeof(header));
  std::byte* to = bytes.data() + sizeof(header);
  for (const auto& [id, count] : generated) {
    const PenaltyEntry entry{id, count};
    std::memcpy(to, &entry, sizeof(entry));
    to += sizeof(entry);
  }
  return bytes;
}

GpuSamplers::GpuSamplers(std::vector<PenaltyTable*> tables, std::size_t vocab_size,
                         std::uint32_t capacity)
    : tables_(std::move(tables)), vocab_size_(vocab_size), capacity_(capacity) {
  clear();
}

void GpuSamplers::clear() {
  sequences_.clear();
  free_ = tables_;
}

void GpuSamplers::update(const StepPlan& plan, const Upload& upload) {
  for (const std::uint32_t sequence : plan.retired) {
    const auto found = sequences_.find(sequence);
    if (found == sequences_.end()) continue;
    if (found->second.penalties != nullptr) free_.push_back(found->second.penalties);
    sequences_.erase(found);
  }
  for (const Admission& admission : plan.admitted) {
    if (admission.prompt_tokens > admission.tokens.size()) {
      throw ModelError(fmt::format(
          "step {}: sequence {} is admitted with {} tokens, {} of them its prompt", plan.step,
          admission.sequence, admission.tokens.size(), admission.prompt_tokens));
    }
    if (sequences_.contains(admission.sequence)) {
      throw ModelError(
          fmt::format("step {}: sequence {} is admitted twice", plan.step, admission.sequence));
    }
    SampleRow row;
    row.params = admission.sampling;
    row.record = admission.record;
    row.position = static_cast<std::uint32_t>(admission.tokens.size() - admission.prompt_tokens);
    if (row.params.has_penalty()) {
      if (free_.empty()) {
        throw ModelError(fmt::format("step {}: more than {} sequences with penalties are alive",
                                     plan.step, tables_.size()));
      }
      std::vector<std::byte> table = make_penalty_table(admission, vocab_size_, capacity_);
      row.penalties = free_.back();
      free_.pop_back();
      upload(row.penalties, std::move(table));
    }
    sequences_.emplace(admission.sequence, row);
  }
}

void GpuSamplers::rows(const StepPlan& plan, std::vector<SampleRow>& rows) {
  rows.clear();
  for (const SequenceStep& sequence : plan.sequences) {
    if (!sequence.sample) continue;
    const auto found = sequences_.find(sequence.sequence);
    if (found == sequences_.end()) {
      throw ModelError(fmt::format("step {}: sequence {} samples but was never admitted", plan.step,
                                   sequence.sequence));
    }
    rows.push_back(found->second);
    ++found->second.position;
  }
}

}  // namespace penstock::model
