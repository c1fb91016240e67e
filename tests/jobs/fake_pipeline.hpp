#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "comm/local.hpp"
#include "jobs/pipeline.hpp"
#include "model/stage.hpp"

// A pipeline of stages that have no weights: each turns its input into a hash, which shows every
// mistake in what arrives where.
namespace penstock::jobs {

inline constexpr int kLayers = 12;  // divides among 1, 2, 3 and 4 stages

inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a * 0x9e3779b97f4a7c15U + b + 0x632be59bd9b4e019U;
  x ^= x >> 31U;
  x *= 0xbf58476d1ce4e5b9U;
  return x ^ (x >> 27U);
}

class FakeBuffer : public model::ActivationBuffer {
 public:
  explicit FakeBuffer(std::size_t size_bytes) : bytes_(size_bytes) {}
  std::span<std::byte> bytes() const override { return bytes_; }

 private:
  mutable std::vector<std::byte> bytes_;
};

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
  model::LoadReport load_report() const override { return {}; }
  std::uint64_t kv_memory_bytes() const override { return 0; }
  std::unique_ptr<model::ActivationBuffer> make_activations(std::size_t bytes) const override {
    return std::make_unique<FakeBuffer>(bytes);
  }
  bool ready() override { return true; }
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
  void stop_requested(StopRequest request) override { requests.push_back(request); }
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
  std::vector<StopRequest> requests;  // of other stages
  std::uint64_t mark_every = 0;
  std::size_t stages_seen = 0;

 private:
  std::uint64_t records_;
  std::uint64_t longest_;
  std::uint64_t next_ = 0;
  std::uint64_t asked_ = 0;
};

inline model::StepCost any_cost() {
  model::ModelConfig c;
  c.hidden_size = 64;
  c.intermediate_size = 128;
  c.num_layers = 2;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_dim = 16;
  c.vocab_size = 1000;
  c.max_position = 4096;
  return {model::cost_by_limits(c, io::DType::f32, io::DType::f32, {1e9, 1e9}), {0, 2, true, true}};
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
  // Makes a member's stage, and may put other links into its endpoint.
  std::function<std::unique_ptr<FakeStage>(int member, comm::Endpoint& endpoint)> make_stage =
      [this](int member, comm::Endpoint&) { return std::make_unique<FakeStage>(member, stages); };
  std::chrono::milliseconds watchdog{std::chrono::seconds(20)};
  std::function<StopRequest(int member)> stop_request = [](int) { return StopRequest::none; };
  double driver_seconds = 0;          // wall time inside run_driver
  std::vector<std::string> failures;  // of each stage; empty: it ended well

  // All stages on threads of their own. A stage that fails leaves; its message is in `failures`.
  PipelineTotals run(FakeWorkload& workload) {
    std::vector<comm::Endpoint> endpoints = comm::local_endpoints(stages);
    failures.assign(endpoints.size(), "");
    PipelineTotals totals;
    const auto work = [&](std::size_t member) {
      comm::Endpoint endpoint = std::move(endpoints[member]);
      endpoint.watchdog = watchdog;
      try {
        const std::unique_ptr<FakeStage> made = make_stage(static_cast<int>(member), endpoint);
        FakeStage& stage = *made;
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
          const int asked = static_cast<int>(member);
          run_stage(endpoint, stage, options, nullptr,
                    [this, asked] { return stop_request(asked); });
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

inline PipelineOptions options_of(std::uint32_t slots, std::uint32_t step_tokens,
                                  std::uint32_t blocks) {
  PipelineOptions options;
  options.slots = slots;
  options.max_step_tokens = step_tokens;
  options.max_sequences = 16;
  options.kv_blocks = blocks;
  return options;
}

}  // namespace penstock::jobs
