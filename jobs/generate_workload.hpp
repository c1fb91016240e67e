#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "io/journal.hpp"
#include "jobs/dataset.hpp"
#include "jobs/job_folder.hpp"
#include "jobs/pipeline.hpp"
#include "model/text/tokenizer.hpp"

namespace penstock::jobs {

// Of the records of one driver, or of all of them; all runs so far.
struct GenerateCounts {
  std::uint64_t answered = 0;
  std::uint64_t failed = 0;
  std::uint64_t partial_tokens = 0;  // journalled of answers that are not complete
};

// What earlier runs of the job left in its journal.
struct EarlierWork {
  std::uint64_t answered = 0;
  std::uint64_t failed = 0;
  std::unordered_map<std::uint64_t, std::vector<std::int32_t>> partial;  // by record
  std::uint64_t damaged_lines = 0;  // of the journal, which count for nothing
};

// What the workload asks of the job around it; all may be empty.
struct GenerateHooks {
  std::function<void(const std::vector<double>& busy)> step_done;
  std::function<Pace(const std::function<double()>& needed_seconds)> pace;
  std::function<void(StopRequest)> stop_requested;
  std::function<void()> poll;
};

// --task generate: requests of a dataset, answers to the journal.
class GenerateWorkload : public Workload {
 public:
  // Everything must outlive the workload.
  GenerateWorkload(Dataset& dataset, const model::Tokenizer& tokenizer, io::JournalWriter& journal,
                   EarlierWork earlier, GenerateHooks hooks);
  ~GenerateWorkload() override;

  std::optional<Work> next() override;
  bool accept(std::uint64_t record, std::int32_t token) override;
  void reject(std::uint64_t record, const std::string& reason) override;
  Pace pace(const std::function<double()>& needed_seconds) override;
  void stop_requested(StopRequest request) override;
  void poll() override;
  void step_done(const std::vector<double>& busy) override;

  // Journals what the records in flight have so far, so that a later run goes on there.
  void journal_partial();

  const GenerateCounts& counts() const { return counts_; }
  // Of this run: of admitted prompts, and generated.
  std::uint64_t tokens_in() const { return tokens_in_; }
  std::uint64_t tokens_out() const { return tokens_out_; }
  // The first few failures, for the summary.
  const std::vector<std::string>& failures() const { return failures_; }

 private:
  struct Active;
  void replay(std::uint64_t record, Active& active, std::vector<std::int32_t>& generated);
  bool take_token(std::uint64_t record, std::int32_t token);
  // Whether the answer is complete with `token`, and why.
  std::optional<FinishReason> extend(Active& active, std::int32_t token);
  void finish(std::uint64_t record, Active& active, FinishReason reason);
  void fail(const FailedRecord& failed);
  void forget(std::uint64_t record);

  Dataset& dataset_;
  const model::Tokenizer& tokenizer_;
  io::JournalWriter& journal_;
  EarlierWork earlier_;
  GenerateHooks hooks_;
  std::unordered_map<std::uint64_t, Active> active_;
  GenerateCounts counts_;
  std::uint64_t tokens_in_ = 0;
  std::uint64_t tokens_out_ = 0;
  std::vector<std::string> failures_;
};

}  // namespace penstock::jobs
