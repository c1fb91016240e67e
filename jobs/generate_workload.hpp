#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "io/journal.hpp"
#include "jobs/dataset.hpp"
#include "jobs/job_folder.hpp"
#include "jobs/pipeline.hpp"
#include "model/text/tokenizer.hpp"

namespace penstock::jobs {

struct GenerateCounts {
  std::uint64_t answered = 0;
  std::uint64_t failed = 0;
  std::uint64_t tokens_in = 0;  // of admitted prompts
  std::uint64_t tokens_out = 0;
};

// --task generate: requests of a dataset, answers to the journal.
class GenerateWorkload : public Workload {
 public:
  // Everything must outlive the workload. `on_step` is called after each step.
  GenerateWorkload(
      Dataset& dataset, const model::Tokenizer& tokenizer, io::JournalWriter& journal,
      std::function<void(const GenerateCounts&, const std::vector<double>& busy)> on_step);
  ~GenerateWorkload() override;

  std::optional<Work> next() override;
  bool accept(std::uint64_t record, std::int32_t token) override;
  void reject(std::uint64_t record, const std::string& reason) override;
  void step_done(const std::vector<double>& busy) override;

  const GenerateCounts& counts() const { return counts_; }
  // The first few failures, for the summary.
  const std::vector<std::string>& failures() const { return failures_; }

 private:
  struct Active;
  bool take_token(std::uint64_t record, std::int32_t token);
  void finish(std::uint64_t record, Active& active, FinishReason reason);
  void fail(const FailedRecord& failed);

  Dataset& dataset_;
  const model::Tokenizer& tokenizer_;
  io::JournalWriter& journal_;
  std::function<void(const GenerateCounts&, const std::vector<double>& busy)> on_step_;
  std::unordered_map<std::uint64_t, Active> active_;
  GenerateCounts counts_;
  std::vector<std::string> failures_;
};

}  // namespace penstock::jobs
