#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "io/checkpoint.hpp"
#include "model/config.hpp"
#include "model/stage.hpp"
#include "model/stage_plan.hpp"
#include "model/step_plan.hpp"

namespace penstock::tests {

// make_cpu_stage or make_cuda_stage.
using MakeStage = decltype(&model::make_cpu_stage);

// Runs sequences through all stages of a model in a row, as a driver would, in one process and
// one thread. Sampling is greedy unless a sequence says otherwise.
class ModelRunner {
 public:
  // `kv_blocks` for all sequences together; they are handed out in no particular order.
  ModelRunner(const io::CheckpointReader& checkpoint, int stages,
              const model::StageOptions& options, std::uint32_t kv_blocks,
              MakeStage make_stage = model::make_cpu_stage)
      : config_(model::from_attributes(checkpoint.header().config)) {
    for (const model::StageRange& range : model::cut_stages(config_, stages, options.dtype)) {
      stages_.push_back(make_stage(checkpoint, config_, range, options, {}));
      stages_.back()->allocate_kv(kv_blocks);
      edges_.push_back(stages_.back()->make_activations(
          std::max<std::size_t>(1, options.max_rows * stages_.back()->activation_row_bytes())));
    }
    free_blocks_.resize(kv_blocks);
    std::iota(free_blocks_.begin(), free_blocks_.end(), 0u);
    std::shuffle(free_blocks_.begin(), free_blocks_.end(), std::mt19937(kv_blocks));
  }

  const model::ModelConfig& config() const { return config_; }
  const model::Stage& last_stage() const { return *stages_.back(); }

  // A new sequence; its prompt is fed by step().
  std::uint32_t start(std::vector<std::int32_t> prompt,
                      const model::SamplingParams& sampling = {}) {
    Sequence sequence;
    sequence.prompt = std::move(prompt);
    sequence.sampling = sampling;
    sequences_.push_back(std::move(sequence));
    return static_cast<std::uint32_t>(sequences_.size() - 1);
  }

  // The sequence's next tokens, all of which pass through the model.
  struct Feed {
    std::uint32_t sequence = 0;
    std::span<const std::int32_t> tokens;
    bool sample = false;
  };

  // One step. Afterwards logits() and sampled() hold a row for each feed that samples, in order.
  void step(const std::vector<Feed>& feeds) {
    model::StepPlan plan;
    plan.step = steps_++;
    plan.retired = std::move(retired_);
    retired_.clear();
    for (const Feed& feed : feeds) add(plan, feed);
    std::span<const std::byte> in;
    for (std::size_t i = 0; i < stages_.size(); ++i) {
      const bool last = i + 1 == stages_.size();
      const auto out =
          edges_[i]->bytes().first(last ? 0 : plan.rows() * stages_[i]->activation_row_bytes());
      stages_[i]->forward(plan, in, out, [] {});
      while (!stages_[i]->ready()) std::this_thread::yield();
      in = out;
    }
  }

  std::span<const std::int32_t> sampled() const { return last_stage().sampled(); }
  std::span<const float> logits(std::size_t sample) const {
    const auto vocab = static_cast<std::size_t>(config_.vocab_size);
    return last_stage().logits().subspan(sample * vocab, vocab);
  }

  // The sequence's blocks become free; the stages hear of it with the next step.
  void retire(std::uint32_t sequence) {
    std::vector<std::uint32_t>& blocks = sequences_.at(sequence).blocks;
    free_blocks_.insert(free_blocks_.end(), blocks.begin(), blocks.end());
    blocks.clear();
    retired_.push_back(sequence);
  }

 private:
  struct Sequence {
    std::vector<std::int32_t> prompt;
    model::SamplingParams sampling;
    std::vector<std::uint32_t> blocks;
    std::uint32_t position = 0;
    bool admitted = false;
  };

  void add(model::StepPlan& plan, const Feed& feed) {
    Sequence& sequence = sequences_.at(feed.sequence);
    if (!sequence.admitted) {
      const auto prompt_tokens = static_cast<std::uint32_t>(sequence.prompt.size());
      plan.admitted.push_back(
          {feed.sequence, feed.sequence, sequence.sampling, sequence.prompt, prompt_tokens});
      sequence.admitted = true;
    }
    model::SequenceStep step;
    step.sequence = feed.sequence;
    step.first_row = plan.rows();
    step.rows = static_cast<std::uint32_t>(feed.tokens.size());
    step.position = sequence.position;
    step.sample = feed.sample;
    plan.tokens.insert(plan.tokens.end(), feed.tokens.begin(), feed.tokens.end());
    sequence.position += step.rows;
    while (sequence.blocks.size() * model::kKvBlockTokens < sequence.position) {
      if (free_blocks_.empty()) throw std::runtime_error("the test needs more KV blocks");
      sequence.blocks.push_back(free_blocks_.back());
      free_blocks_.pop_back();
    }
    step.first_block = static_cast<std::uint32_t>(plan.block_table.size());
    step.blocks = static_cast<std::uint32_t>(sequence.blocks.size());
    plan.block_table.insert(plan.block_table.end(), sequence.blocks.begin(), sequence.blocks.end());
    plan.sequences.push_back(step);
  }

  model::ModelConfig config_;
  std::vector<std::unique_ptr<model::Stage>> stages_;
  std::vector<std::unique_ptr<model::ActivationBuffer>> edges_;  // behind each stage
  std::vector<Sequence> sequences_;
  std::vector<std::uint32_t> free_blocks_;
  std::vector<std::uint32_t> retired_;
  std::uint64_t steps_ = 0;
};

// Greedy answers of `new_tokens` tokens, or fewer where a token of `stop` ends one. All prompts
// decode together. The prompts are prefilled in steps of at most `max_rows` rows.
inline std::vector<std::vector<std::int32_t>> greedy(
    ModelRunner& runner, const std::vector<std::vector<std::int32_t>>& prompts,
    std::size_t new_tokens, const std::vector<std::int32_t>& stop, std::size_t max_rows) {
  std::vector<std::vector<std::int32_t>> answers(prompts.size());
  std::vector<std::uint32_t> sequences;
  for (const auto& prompt : prompts) sequences.push_back(runner.start(prompt));

  std::vector<std::size_t> fed;  // indices of the prompts in the step
  std::vector<ModelRunner::Feed> feeds;
  std::size_t rows = 0;
  const auto run = [&] {
    if (feeds.empty()) return;
    runner.step(feeds);
    for (std::size_t i = 0; i < fed.size(); ++i) answers[fed[i]].push_back(runner.sampled()[i]);
    fed.clear();
    feeds.clear();
    rows = 0;
  };
  const auto feed = [&](std::size_t i, std::span<const std::int32_t> tokens) {
    if (rows + tokens.size() > max_rows) run();
    feeds.push_back({sequences[i], tokens, true});
    fed.push_back(i);
    rows += tokens.size();
  };

  for (std::size_t i = 0; i < prompts.size(); ++i) feed(i, prompts[i]);
  run();
  for (std::size_t token = 1; token < new_tokens; ++token) {
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      const bool stopped = std::find(stop.begin(), stop.end(), answers[i].back()) != stop.end();
      if (answers[i].size() == token && !stopped) {
        feed(i, std::span(answers[i]).last(1));
      }
    }
    run();
  }
  for (const std::uint32_t sequence : sequences) runner.retire(sequence);
  return answers;
}

}  // namespace penstock::tests
