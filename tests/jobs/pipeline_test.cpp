// The pipeline loop with stages that have no weights: each turns its input into a hash, which shows
// every mistake in what arrives where. Endpoints are those of threads.

#include "jobs/pipeline.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <exception>
#include <map>
#include <random>
#include <stdexcept>
#include <thread>

#include "comm/error.hpp"
#include "comm/local.hpp"
#include "jobs/launch.hpp"

namespace penstock::jobs {
namespace {

using testing::HasSubstr;

constexpr int kLayers = 12;  // divides among 1, 2, 3 and 4 stages

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a * 0x9e3779b97f4a7c15U + b + 0x632be59bd9b4e019U;
  x ^= x >> 31U;
  x *= 0xbf58476d1ce4e5b9U;
  return x ^ (x >> 27U);
}

// A model whose state after each layer is a number for each position, which depends on all
// positions before it as the cache holds them. So a block that is overwritten, a row that is
// swapped, or a step out of order changes the answer.
class FakeStage : public model::Stage {
 public:
  FakeStage(int stage, int stages) : first_(stage == 0), last_(stage + 1 == stages) {
    begin_ = stage * kLayers / stages;
    end_ = (stage + 1) * kLayers / stages;
  }

  std::size_t activation_row_bytes() const override { return sizeof(std::uint64_t); }
  std::uint64_t weight_bytes() const override { return 0; }
  std::uint64_t kv_block_bytes() const override { return 1; }
  std::string numeric_class() const override { return "fake"; }
  std::span<const std::int32_t> sampled() const override { return sampled_; }
  std::span<const float> logits() const override { return {}; }
  void allocate_kv(std::uint32_t blocks) override {
    cache_.assign(static_cast<std::size_t>(kLayers) * blocks * model::kKvBlockTokens, 0);
    blocks_ = blocks;
  }

  void begin_run() override {
    admitted_.clear();
    next_step_ = 0;
  }

  void forward(const model::StepPlan& plan, std::span<const std::byte> in, std::span<std::byte> out,
               const std::function<void()>& progress) override {
    if (plan.step == throw_at) throw std::runtime_error("the fake stage broke");
    if (plan.step != next_step_++) throw std::logic_error("a step out of order");
    for (const model::Admission& a : plan.admitted) admitted_[a.sequence] = a;
    std::vector<std::uint64_t> rows(plan.rows());
    if (in.size() != (first_ ? 0 : rows.size() * sizeof(std::uint64_t)) ||
        out.size() != (last_ ? 0 : rows.size() * sizeof(std::uint64_t))) {
      throw std::logic_error("buffers of the wrong size");
    }
    if (first_) {
      for (std::size_t i = 0; i < rows.size(); ++i) {
        rows[i] = static_cast<std::uint64_t>(plan.tokens[i]);
      }
    } else {
      std::memcpy(rows.data(), in.data(), in.size());
    }
    for (int layer = begin_; layer < end_; ++layer) {
      for (const model::SequenceStep& s : plan.sequences) compute(plan, s, layer, rows);
      if (delay_us > 0) {
        std::this_thread::sleep_for(std::chrono::microseconds(
            std::uniform_int_distribution<int>(0, delay_us)(random) / (end_ - begin_)));
      }
      progress();
    }
    if (!last_) std::memcpy(out.data(), rows.data(), out.size());
    sampled_.clear();
    for (const model::SequenceStep& s : plan.sequences) {
      if (!s.sample || !last_) continue;
      const model::Admission& a = admitted_.at(s.sequence);  // a stage must know who it samples for
      const std::uint64_t state = rows[s.first_row + s.rows - 1];
      sampled_.push_back(static_cast<std::int32_t>(mix(state, a.record) % 1000));
    }
    for (const std::uint32_t handle : plan.retired) admitted_.erase(handle);
  }

  std::uint64_t throw_at = UINT64_MAX;  // this step
  int delay_us = 0;                     // at most, in each step
  std::mt19937 random;

 private:
  void compute(const model::StepPlan& plan, const model::SequenceStep& s, int layer,
               std::vector<std::uint64_t>& rows) {
    const auto cached = [&](std::uint32_t position) -> std::uint64_t& {
      const std::uint32_t block =
          plan.block_table.at(s.first_block + position / model::kKvBlockTokens);
      return cache_.at((static_cast<std::size_t>(layer) * blocks_ + block) * model::kKvBlockTokens +
                       position % model::kKvBlockTokens);
    };
    for (std::uint32_t i = 0; i < s.rows; ++i) {
      cached(s.position + i) = rows[s.first_row + i];
      std::uint64_t state = static_cast<std::uint64_t>(layer);
      for (std::uint32_t position = 0; position <= s.position + i; ++position) {
        state = mix(state, cached(position));
      }
      rows[s.first_row + i] = state;
    }
  }

  bool first_;
  bool last_;
  int begin_ = 0;
  int end_ = 0;
  std::uint32_t blocks_ = 0;
  std::vector<std::uint64_t> cache_;
  std::map<std::uint32_t, model::Admission> admitted_;
  std::vector<std::int32_t> sampled_;
  std::uint64_t next_step_ = 0;
};

class FakeWorkload : public Workload {
 public:
  FakeWorkload(std::uint64_t records, std::uint64_t longest)
      : records_(records), longest_(longest) {}

  static std::uint32_t answer_tokens(std::uint64_t record) {
    return static_cast<std::uint32_t>(1 + mix(record, 3) % 20);
  }
  std::size_t prompt_tokens(std::uint64_t record) const { return 1 + mix(record, 7) % longest_; }

  std::optional<Work> next() override {
    if (next_ == records_) return std::nullopt;
    Work work;
    work.record = next_++;
    for (std::size_t i = 0; i < prompt_tokens(work.record); ++i) {
      work.prompt.push_back(static_cast<std::int32_t>(mix(work.record, i) % 1000));
    }
    // Some stop before their limit.
    work.max_tokens = answer_tokens(work.record) + (work.record % 3 == 0 ? 30 : 0);
    return work;
  }
  bool accept(std::uint64_t record, std::int32_t token) override {
    std::vector<std::int32_t>& answer = answers[record];
    answer.push_back(token);
    return answer.size() == answer_tokens(record);
  }
  void reject(std::uint64_t record, const std::string& reason) override {
    EXPECT_TRUE(rejected.emplace(record, reason).second) << "rejected twice";
  }
  bool mark_due() override { return mark_every > 0 && ++asked_ % mark_every == 0; }
  void step_done(const std::vector<double>& busy) override {
    stages_seen = busy.size();
    for (const double share : busy) {
      EXPECT_GE(share, 0);
      EXPECT_LE(share, 1);
    }
  }

  std::map<std::uint64_t, std::vector<std::int32_t>> answers;
  std::map<std::uint64_t, std::string> rejected;
  std::uint64_t mark_every = 0;
  std::size_t stages_seen = 0;

 private:
  std::uint64_t records_;
  std::uint64_t longest_;
  std::uint64_t next_ = 0;
  std::uint64_t asked_ = 0;
};

model::StepCost any_cost() {
  model::ModelConfig c;
  c.hidden_size = 64;
  c.intermediate_size = 128;
  c.num_layers = 2;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_dim = 16;
  c.vocab_size = 1000;
  c.max_position = 4096;
  return {c, {0, 2, true, true}, io::DType::f32, io::DType::f32, {1e9, 1e9}};
}

struct Pipeline {
  Pipeline(int stage_count, const PipelineOptions& pipeline_options)
      : stages(stage_count), options(pipeline_options) {}

  int stages;
  PipelineOptions options;
  std::uint64_t seed = 0;
  int delay_us = 0;
  int broken_stage = -1;
  std::uint64_t broken_step = 5;
  double driver_seconds = 0;          // wall time inside run_driver
  std::vector<std::string> failures;  // of each stage; empty: it ended well

  // All stages on threads of their own. A stage that fails leaves; its message is in `failures`.
  PipelineTotals run(FakeWorkload& workload) {
    options.peer_timeout = std::chrono::seconds(20);
    std::vector<comm::Endpoint> endpoints = comm::local_endpoints(stages);
    failures.assign(endpoints.size(), "");
    PipelineTotals totals;
    const auto work = [&](std::size_t member) {
      comm::Endpoint endpoint = std::move(endpoints[member]);
      try {
        FakeStage stage(static_cast<int>(member), stages);
        stage.delay_us = delay_us;
        stage.random.seed(static_cast<unsigned>(mix(seed, member)));
        if (static_cast<int>(member) == broken_stage) stage.throw_at = broken_step;
        stage.allocate_kv(options.kv_blocks);
        if (member == 0) {
          const auto start = std::chrono::steady_clock::now();
          totals = run_driver(endpoint, stage, options, any_cost(), workload);
          driver_seconds =
              std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        } else {
          run_stage(endpoint, stage, options);
        }
        endpoint.control->all_gather("", "the end", std::chrono::seconds(20));
      } catch (const std::exception& e) {
        failures[member] = e.what();
      }
    };
    {
      std::vector<std::jthread> threads;
      for (std::size_t member = 1; member < endpoints.size(); ++member) {
        threads.emplace_back(work, member);
      }
      work(0);
    }
    return totals;
  }

  void expect_no_failures() const {
    for (const std::string& failure : failures) EXPECT_EQ(failure, "");
  }
};

PipelineOptions options_of(std::uint32_t slots, std::uint32_t step_tokens, std::uint32_t blocks) {
  PipelineOptions options;
  options.slots = slots;
  options.max_step_tokens = step_tokens;
  options.max_sequences = 16;
  options.kv_blocks = blocks;
  return options;
}

TEST(Pipeline, TokensAreEqualForAllLayouts) {
  constexpr std::uint64_t kRecords = 60;
  constexpr std::uint64_t kLongest = 90;  // and 20 more: 4 blocks
  FakeWorkload reference(kRecords, kLongest);
  Pipeline simple{1, options_of(1, 512, 1000)};
  simple.run(reference);
  simple.expect_no_failures();
  ASSERT_EQ(reference.answers.size(), kRecords);
  std::uint64_t tokens = 0;
  std::uint64_t prompts = 0;
  for (const auto& [record, answer] : reference.answers) {
    EXPECT_EQ(answer.size(), FakeWorkload::answer_tokens(record));
    tokens += answer.size();
    prompts += reference.prompt_tokens(record);
  }

  std::uint64_t evictions = 0;
  for (const int stages : {1, 2, 3, 4}) {
    for (const std::uint32_t slots : {1U, 2U, 5U}) {
      for (const std::uint32_t step_tokens : {7U, 64U, 512U}) {
        for (const std::uint32_t blocks : {4U, 9U, 1000U}) {
          SCOPED_TRACE(testing::Message()
                       << stages << " stages, " << slots << " slots, " << step_tokens
                       << " tokens a step, " << blocks << " blocks");
          FakeWorkload workload(kRecords, kLongest);
          Pipeline pipeline{stages, options_of(slots, step_tokens, blocks)};
          const PipelineTotals totals = pipeline.run(workload);
          pipeline.expect_no_failures();
          ASSERT_EQ(workload.answers, reference.answers);
          EXPECT_THAT(workload.rejected, testing::IsEmpty());
          EXPECT_EQ(workload.stages_seen, static_cast<std::size_t>(stages));
          EXPECT_EQ(totals.generated_tokens, tokens);
          EXPECT_EQ(totals.stages.size(), static_cast<std::size_t>(stages));
          evictions += totals.evictions;
          if (blocks == 1000) {
            EXPECT_EQ(totals.evictions, 0U);
            EXPECT_EQ(totals.prompt_tokens, prompts);
          } else {
            EXPECT_GE(totals.prompt_tokens, prompts);
          }
        }
      }
    }
  }
  EXPECT_GT(evictions, 10U);
}

TEST(Pipeline, EmptyDatasetEnds) {
  for (const int stages : {1, 3}) {
    FakeWorkload workload(0, 10);
    Pipeline pipeline{stages, options_of(2, 64, 10)};
    const PipelineTotals totals = pipeline.run(workload);
    pipeline.expect_no_failures();
    EXPECT_EQ(totals.steps, 0U);
  }
}

TEST(Pipeline, RecordsThatCannotFitAreRejectedAndTheOthersAnswered) {
  FakeWorkload reference(40, 90);
  Pipeline{1, options_of(1, 512, 1000)}.run(reference);
  for (const int stages : {1, 3}) {
    FakeWorkload workload(40, 90);
    // Two blocks: 64 tokens.
    Pipeline pipeline{stages, options_of(3, 50, 2)};
    pipeline.run(workload);
    pipeline.expect_no_failures();
    std::size_t prompts = 0;
    std::size_t growing = 0;
    for (std::uint64_t record = 0; record < 40; ++record) {
      SCOPED_TRACE(record);
      const std::size_t prompt = workload.prompt_tokens(record);
      // The last token of an answer needs no place in the cache.
      const std::size_t needed = prompt + FakeWorkload::answer_tokens(record) - 1;
      if (needed <= 64 && prompt < 64) {
        EXPECT_EQ(workload.answers[record], reference.answers[record]);
        EXPECT_FALSE(workload.rejected.contains(record));
        continue;
      }
      ASSERT_TRUE(workload.rejected.contains(record));
      EXPECT_THAT(workload.rejected[record], HasSubstr("64"));
      EXPECT_THAT(workload.rejected[record], HasSubstr("--kv-memory"));
      ++(prompt >= 64 ? prompts : growing);
    }
    EXPECT_GT(prompts, 0U);
    EXPECT_GT(growing, 0U);
  }
}

TEST(Pipeline, StageThatThrowsEndsAllThreads) {
  for (const int stages : {1, 2, 4}) {
    for (int broken = 0; broken < stages; ++broken) {
      for (const std::uint64_t step : {0U, 1U, 9U}) {
        SCOPED_TRACE(testing::Message()
                     << "stage " << broken << " of " << stages << ", step " << step);
        FakeWorkload workload(60, 90);
        Pipeline pipeline{stages, options_of(3, 64, 50)};
        pipeline.broken_stage = broken;
        pipeline.broken_step = step;
        const auto start = std::chrono::steady_clock::now();
        pipeline.run(workload);
        // The waits of the others end because it left, not by their time-out.
        EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(15));
        for (int member = 0; member < stages; ++member) {
          const std::string& failure = pipeline.failures[static_cast<std::size_t>(member)];
          if (member == broken) {
            EXPECT_EQ(failure, "the fake stage broke");
          } else {
            EXPECT_THAT(failure, HasSubstr("has left"));
          }
        }
      }
    }
  }
}

TEST(Pipeline, MarksAreNotedByAllStagesAndTotalsAreTheWallTime) {
  for (const int stages : {1, 2, 4}) {
    SCOPED_TRACE(stages);
    FakeWorkload workload(40, 60);
    workload.mark_every = 7;
    Pipeline pipeline{stages, options_of(3, 64, 100)};
    pipeline.delay_us = 500;
    const auto start = std::chrono::steady_clock::now();
    const PipelineTotals totals = pipeline.run(workload);
    const double wall =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    pipeline.expect_no_failures();
    ASSERT_GT(totals.steps, 14U);
    for (const StageTimes& times : totals.stages) {
      EXPECT_EQ(times.marks.size(), totals.steps / 7);
      double before = 0;
      for (const LedgerTotals& mark : times.marks) {
        EXPECT_GE(mark.total(), before);
        before = mark.total();
      }
      EXPECT_GE(times.totals.total(), before);
      EXPECT_LE(times.totals.total(), wall);
      EXPECT_GT(times.totals[Share::compute], 0);
      for (const double seconds : times.totals.seconds) EXPECT_GE(seconds, 0);
    }
    // The driver's ledger runs from before the first step to the farewell of the last stage: all
    // of its time but what making and destroying it takes.
    EXPECT_LE(totals.stages[0].totals.total(), pipeline.driver_seconds);
    EXPECT_GT(totals.stages[0].totals.total(), 0.8 * pipeline.driver_seconds);
  }
}

TEST(Pipeline, NeverDeadlocksWhateverTheOrder) {
  constexpr std::uint64_t kRecords = 10;
  constexpr std::uint64_t kLongest = 50;
  FakeWorkload reference(kRecords, kLongest);
  Pipeline{1, options_of(1, 512, 1000)}.run(reference);
  for (std::uint64_t round = 0; round < 200; ++round) {
    std::mt19937 random(static_cast<unsigned>(round));
    const auto below = [&](unsigned bound) { return static_cast<std::uint32_t>(random() % bound); };
    const int stages = static_cast<int>(1 + below(4));
    const std::uint32_t slots = 1 + below(6);
    const std::uint32_t step_tokens = 3 + below(60);
    Pipeline pipeline{stages, options_of(slots, step_tokens, 3 + below(10))};
    pipeline.options.max_sequences = 1 + below(8);
    pipeline.seed = round;
    pipeline.delay_us = 200;
    SCOPED_TRACE(testing::Message()
                 << "round " << round << ": " << pipeline.stages << " stages, "
                 << pipeline.options.slots << " slots, " << pipeline.options.max_step_tokens
                 << " tokens a step, " << pipeline.options.kv_blocks << " blocks");
    FakeWorkload workload(kRecords, kLongest);
    pipeline.run(workload);
    pipeline.expect_no_failures();
    ASSERT_EQ(workload.answers, reference.answers);
  }
}

}  // namespace
}  // namespace penstock::jobs
