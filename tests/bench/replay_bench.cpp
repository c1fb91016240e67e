// How long a replay takes, and how much memory: Llama-3.1-405B on virtual H100s over NDR, prompts
// and answers of 1,000 tokens.
// usage: replay_bench STAGES REPLICAS RECORDS THREADS    for example 64 8 100000 2
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>

#include "jobs/plan_size.hpp"
#include "jobs/process_use.hpp"
#include "jobs/report.hpp"
#include "model/device_model.hpp"
#include "tests/support/llama_shapes.hpp"

namespace {

using namespace penstock;

constexpr jobs::ReplayRecord kRecord{1000, 1000, 1000};

jobs::ReplayPipeline pipeline_of(const jobs::PlanInput& input, std::uint32_t stages) {
  const jobs::PipelineFit fit = jobs::fit_pipeline(input, stages);
  if (!fit.size) throw std::runtime_error(fit.reason);
  const auto parts =
      model::cost_by_device(input.config, input.dtype, input.kv_dtype, input.machine.device);
  std::vector<jobs::ReplayStage> of_stages;
  for (std::size_t i = 0; i < fit.size->ranks.size(); ++i) {
    const auto rank = static_cast<int>(i);
    of_stages.push_back(
        {model::StepCost(parts, fit.size->ranks[i].layers), input.machine.edge(rank, rank + 1)});
  }
  const model::StepCost planning = of_stages.back().cost;  // the head makes it the slowest
  return {
      std::move(of_stages),
      input.machine.control,
      jobs::activation_row_bytes(input),
      {fit.size->slots, fit.size->max_step_tokens, fit.size->max_sequences, fit.size->kv_blocks},
      planning};
}

std::uint32_t number(const char* text) {
  return static_cast<std::uint32_t>(std::strtoul(text, nullptr, 10));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::cerr << "usage: replay_bench STAGES REPLICAS RECORDS THREADS\n";
    return 1;
  }
  const std::uint32_t replicas = number(argv[2]);
  const std::uint32_t records = number(argv[3]);
  jobs::PlanInput input;
  input.config = tests::llama_405b();
  input.machine = jobs::parse_virtual_machine("h100-sxm,ndr");
  input.context_limit = 2000;
  input.records = records;
  input.lengths = {kRecord};
  const jobs::ReplayPipeline pipeline = pipeline_of(input, number(argv[1]));

  const auto begin = std::chrono::steady_clock::now();
  const auto share = [&](std::uint32_t replica) {
    const std::uint32_t mine = records / replicas + (replica < records % replicas ? 1 : 0);
    return std::make_unique<jobs::ReplayWorkload>(
        [mine, given = 0U]() mutable -> std::optional<jobs::ReplayRecord> {
          if (given++ == mine) return std::nullopt;
          return kRecord;
        });
  };
  double longest = 0;
  std::uint64_t tokens = 0;
  for (const jobs::PipelineTotals& totals :
       jobs::replay_replicas(pipeline, replicas, static_cast<int>(number(argv[4])), share)) {
    longest = std::max(longest, totals.seconds);
    tokens += totals.generated_tokens;
  }
  const double took =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::cout << fmt::format("{} tokens of answers in {}, replayed in {:.1f} s, {} of memory\n",
                           jobs::format_grouped(tokens), jobs::format_duration(longest), took,
                           jobs::format_bytes(jobs::ProcessMeter().use().peak_memory_bytes));
}
