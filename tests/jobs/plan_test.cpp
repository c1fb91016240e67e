#include "jobs/plan.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "jobs/launch.hpp"
#include "jobs/plan_report.hpp"
#include "jobs/report.hpp"
#include "model/calibration.hpp"
#include "tests/support/llama_shapes.hpp"

namespace penstock::jobs {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

// Every step takes 10 ms on every stage, whatever it computes.
VirtualMachine steps_of_10_ms() {
  VirtualMachine machine;
  machine.device.name = "clock";
  machine.device.bf16_flops_per_second = 1e20;
  machine.device.f32_flops_per_second = 1e20;
  machine.device.memory_bytes_per_second = 1e20;
  machine.device.memory_bytes = std::uint64_t{1} << 36;
  machine.device.step_seconds = 0.01;
  machine.text = "clock";
  return machine;
}

PlanInput job(const model::ModelConfig& config, const VirtualMachine& machine,
              std::uint64_t records, std::vector<ReplayRecord> lengths) {
  PlanInput input;
  input.config = config;
  input.machine = machine;
  input.context_limit = static_cast<std::uint32_t>(config.max_position);
  input.records = records;
  input.lengths = std::move(lengths);
  return input;
}

// Shapes, times two bytes for matrices and four for norms:
//   a layer     q and o 4096 x 4096, k and v 1024 x 4096, gate, up and down 14336 x 4096,
//               two norms of 4096: 2 x 218,103,808 + 32,768 = 436,240,384
//   embedding   128256 x 4096: 1,050,673,152
//   head        the same, and a norm of 4096: 1,050,689,536
TEST(PlanSize, MemoryOfLlama8bOnTwoStagesByHand) {
  PlanInput input =
      job(tests::llama_8b(), parse_virtual_machine("h100-sxm"), 100, {{512, 256, 256}});
  constexpr std::uint64_t kLayer = 436'240'384;
  const std::vector<RankMemory> ranks = fit_pipeline(input, 2).size.value().ranks;
  ASSERT_EQ(ranks.size(), 2u);
  const auto first = static_cast<std::uint64_t>(ranks[0].layers.layers());
  const std::uint64_t last = 32 - first;
  EXPECT_GT(first, last);  // the head is work, too
  EXPECT_EQ(ranks[0].weight_bytes, first * kLayer + 1'050'673'152);
  EXPECT_EQ(ranks[1].weight_bytes, last * kLayer + 1'050'689'536);

  // 30 blocks of the first stage: 32 tokens, keys and values, 8 heads of 128, two bytes. The second
  // stage would have room for more, but the tables are those of all stages.
  constexpr std::uint64_t kLayerBlock = 32 * 2 * 8 * 128 * 2;
  input.kv_memory = 30 * first * kLayerBlock + 1000;
  const PipelineSize size = fit_pipeline(input, 2).size.value();
  EXPECT_EQ(size.kv_tokens(), 30u * 32);
  EXPECT_EQ(size.ranks[0].kv_bytes, 30 * first * kLayerBlock);
  EXPECT_EQ(size.ranks[1].kv_bytes, 30 * last * kLayerBlock);
}

TEST(PlanSize, TheLongestRecordMustFitTheKvCache) {
  PlanInput input = job(tests::llama_8b(), parse_virtual_machine("h100-sxm"), 100,
                        {{512, 256, 256}, {5000, 200, 200}});
  constexpr std::uint64_t kLayerBlock = 32 * 2 * 8 * 128 * 2;
  // 5200 tokens are 163 blocks, the last not full.
  input.kv_memory = 163 * 32 * kLayerBlock;
  EXPECT_TRUE(fit_pipeline(input, 1).size);
  input.kv_memory = 162 * 32 * kLayerBlock;
  EXPECT_THAT(fit_pipeline(input, 1).reason, AllOf(HasSubstr("--kv-memory"), HasSubstr("5,200")));
}

TEST(PlanSize, WeightsThatDoNotFitAreNamed) {
  PlanInput input =
      job(tests::llama_8b(), parse_virtual_machine("h100-sxm"), 100, {{512, 256, 256}});
  input.machine.device.memory_bytes = std::uint64_t{12} << 30;
  // All is 32 x 436,240,384 + 2 x 1,050,673,152 + 16,384 = 16.1e9 bytes.
  EXPECT_THAT(fit_pipeline(input, 1).reason,
              AllOf(HasSubstr("with 1 stage: "), HasSubstr("of the 32 layers")));
  EXPECT_TRUE(fit_pipeline(input, 2).size);
  input.devices = 4;
  const Plan plan = make_plan(input, 1);
  EXPECT_EQ(plan.rows.front().devices(), 2u);
  EXPECT_THAT(plan.too_few, HasSubstr("with 1 stage: "));
  input.devices = 1;
  EXPECT_THAT(
      [&] { make_plan(input, 1); },
      ThrowsMessage<UsageError>(AllOf(HasSubstr("1 device "), HasSubstr("of the 32 layers"))));
}

TEST(PlanSize, TheFarthestReplicaCrossesMostNodes) {
  VirtualMachine machine;
  machine.devices_per_node = 4;
  // Ranks 0 to 2 lie on one node, 3 to 5 on two.
  EXPECT_EQ(first_rank_of_farthest(machine, 3, 1), 0);
  EXPECT_EQ(first_rank_of_farthest(machine, 3, 2), 3);
  EXPECT_EQ(first_rank_of_farthest(machine, 4, 8), 0);
}

TEST(Plan, TimesOfASmallJobByHand) {
  // All three prompts fit one step, whose tokens are the first of the answers: five steps.
  PlanInput input = job(tests::tiny_llama(), steps_of_10_ms(), 3, {{4, 5, 5}});
  input.devices = 1;
  const Plan plan = make_plan(input, 1);
  ASSERT_EQ(plan.rows.size(), 1u);
  const PlanRow& row = plan.rows[0];
  EXPECT_FALSE(row.prediction.is_sample);
  EXPECT_NEAR(row.prediction.seconds, 0.05, 1e-4);
  EXPECT_NEAR(row.answer_tokens_per_second, 15 / 0.05, 1);
  EXPECT_NEAR(row.prompt_tokens_per_second, 12 / 0.05, 1);
  EXPECT_NEAR(row.device_hours(), 0.05 / 3600, 1e-7);
  EXPECT_NEAR(row.prediction.waiting + row.prediction.drain, 0, 1e-3);
  EXPECT_NEAR(row.prediction.busy_seconds, 0.05 / 15, 1e-5);
}

// A step 20 ms, a layer 10 ms, the head 30 ms, whatever they compute.
std::shared_ptr<const model::PartCost> measured() {
  model::PartTables tables;
  tables.embedding.points = {{1, 0.02}};
  tables.layer.points = {{1, 0.01}};
  tables.head.points = {{1, 0.03}};
  return model::measured_cost(tables);
}

TEST(Plan, TimesAsMeasuredByHand) {
  PlanInput input = job(tests::tiny_llama(), steps_of_10_ms(), 3, {{4, 5, 5}});
  input.measured = measured();
  input.devices = 1;
  // Five steps, each 20 + 4 x 10 + 30 ms.
  EXPECT_NEAR(make_plan(input, 1).rows.at(0).prediction.seconds, 5 * 0.09, 1e-4);

  input.devices = input.stages = 2;
  input.machine.control.latency_seconds = 0.1;
  input.records = 1;
  const Plan plan = make_plan(input, 1);
  const PlanRow& row = plan.rows.at(0);
  // The head weighs as much as three layers: 30 beside 10 + 30 ms.
  EXPECT_EQ(row.size.ranks[0].layers.layers(), 3);
  EXPECT_EQ(row.size.ranks[1].layers.layers(), 1);
  // Tokens are under way for two steps of the slower stage, 60 ms.
  EXPECT_EQ(row.size.slots, 2u + 2);
  // Five times: the plan is with the second stage after 100 ms, the first one's 50 are over then;
  // the second one's step; the way back.
  EXPECT_NEAR(row.prediction.seconds, 5 * (0.1 + 0.06 + 0.1), 1e-4);
  EXPECT_NEAR(row.prediction.evenness, (0.05 + 0.06) / (2 * 0.06), 1e-3);
}

TEST(Plan, ReplicasShareTheRecords) {
  // One slot of 256 sequences: 1024 records are four generations of ten steps, 512 are two.
  PlanInput input = job(tests::tiny_llama(), steps_of_10_ms(), 1024, {{4, 10, 10}});
  input.devices = 2;
  input.stages = 1;
  const Plan plan = make_plan(input, 2);
  ASSERT_EQ(plan.rows.size(), 2u);
  EXPECT_EQ(plan.rows[1].replicas, 2u);
  EXPECT_EQ(plan.best, 1u);
  EXPECT_NEAR(plan.rows[1].prediction.seconds / plan.rows[0].prediction.seconds, 0.5, 0.02);
}

// The sample's time is that of all records, which is known here by replaying them.
TEST(Plan, ASampleStandsForAllRecords) {
  std::vector<ReplayRecord> lengths;
  for (std::uint32_t i = 0; i < 97; ++i) lengths.push_back({10 + i, 5 + i * i % 31, 40});
  PlanInput input =
      job(tests::tiny_llama(), parse_virtual_machine("h100-sxm,25gbe"), 19400, lengths);
  input.devices = 2;
  input.stages = 2;
  const Plan plan = make_plan(input, 1);
  const PlanRow& row = plan.rows[0];
  ASSERT_TRUE(row.prediction.is_sample);
  ASSERT_LT(row.prediction.replayed_records, 19400u / 2);

  const auto parts =
      model::cost_by_device(input.config, input.dtype, input.kv_dtype, input.machine.device);
  ReplayPipeline pipeline{
      {},
      input.machine.control,
      activation_row_bytes(input),
      {row.size.slots, row.size.max_step_tokens, row.size.max_sequences, row.size.kv_blocks},
      model::StepCost(parts, row.size.ranks[0].layers)};
  for (const RankMemory& rank : row.size.ranks) {
    pipeline.stages.push_back({model::StepCost(parts, rank.layers), input.machine.between_nodes});
  }
  const std::vector<ReplayRecord> all = draw_records(lengths, 19400, 0);
  ReplayWorkload workload([&, next = std::size_t{0}]() mutable {
    return next < all.size() ? std::optional(all[next++]) : std::nullopt;
  });
  const double seconds = replay(pipeline, workload).seconds;
  EXPECT_NEAR(row.prediction.seconds / seconds, 1, 0.03);
}

TEST(Plan, StagesThatBringNothingAreTold) {
  // A step takes as long on half of the layers, so two stages need twice the time of devices.
  PlanInput input = job(tests::tiny_llama(), steps_of_10_ms(), 2000, {{4, 10, 10}});
  input.devices = 2;
  const Plan plan = make_plan(input, 2);
  ASSERT_TRUE(plan.turning);
  EXPECT_EQ(plan.turning->stages, 1u);
  EXPECT_EQ(plan.turning->beyond, 2u);
  EXPECT_EQ(plan.turning->why, Loss::small_steps);
  EXPECT_EQ(plan.rows[plan.best].replicas, 2u);
  EXPECT_EQ(plan.rows[plan.best].stages(), 1u);
}

TEST(Plan, OnlyTheStagesAndReplicasAskedFor) {
  PlanInput input = job(tests::tiny_llama(), steps_of_10_ms(), 10, {{4, 5, 5}});
  input.stages = 2;
  input.replicas = 3;
  const Plan plan = make_plan(input, 1);
  ASSERT_EQ(plan.rows.size(), 1u);
  EXPECT_EQ(plan.rows[0].devices(), 6u);
  input.devices = 5;
  EXPECT_THAT([&] { make_plan(input, 1); }, ThrowsMessage<UsageError>(HasSubstr("6 are needed")));
}

TEST(Plan, TheFirstRowHasTheFewestDevices) {
  PlanInput input = job(tests::tiny_llama(), steps_of_10_ms(), 10, {{4, 5, 5}});
  input.devices = 9;
  const Plan plan = make_plan(input, 1);
  std::vector<std::uint32_t> devices;
  for (const PlanRow& row : plan.rows) devices.push_back(row.devices());
  ASSERT_GT(devices.size(), 2u);
  EXPECT_EQ(devices.front(), *std::min_element(devices.begin(), devices.end()));
}

TEST(Plan, TheFactorThatDiffersMostIsTheReason) {
  PlanRow better;
  better.prediction.busy_seconds = 1;
  better.kv_share = 0.5;
  PlanRow worse = better;
  worse.prediction.evenness = 0.9;
  worse.prediction.waiting = 0.05;
  EXPECT_EQ(main_loss(better, worse), Loss::uneven_stages);
  worse.prediction.waiting = 0.2;
  EXPECT_EQ(main_loss(better, worse), Loss::waiting);
  worse.prediction.drain = 0.3;
  EXPECT_EQ(main_loss(better, worse), Loss::drain);
  worse.prediction.busy_seconds = 2;
  EXPECT_EQ(main_loss(better, worse), Loss::small_steps);
  worse.kv_share = 0.4;
  EXPECT_EQ(main_loss(better, worse), Loss::kv_memory);
}

TEST(Plan, ARunIsToldTheLayout) {
  PlanRow row;
  row.size.max_step_tokens = 2048;
  row.size.ranks = {{{0, 2, true, true}}};
  EXPECT_THAT(layout_arguments(row), ElementsAre("--stages", "1", "--max-step-tokens", "2048"));
  row.replicas = 3;
  row.size.ranks = {{{0, 2, true, false}}, {{2, 3, false, true}}};
  EXPECT_THAT(layout_arguments(row), ElementsAre("--stages", "2", "--replicas", "3", "--layers",
                                                 "2,1", "--max-step-tokens", "2048"));
}

TEST(DrawRecords, EachAsOftenAsTheOthers) {
  std::vector<ReplayRecord> lengths;
  for (std::uint32_t i = 1; i <= 10; ++i) lengths.push_back({i, 1, 1});
  const auto counts = [&](std::uint64_t records) {
    std::vector<int> of(11);
    for (const ReplayRecord& record : draw_records(lengths, records, 0)) ++of[record.prompt_tokens];
    return std::vector<int>(of.begin() + 1, of.end());
  };
  EXPECT_THAT(counts(10), testing::Each(1));
  EXPECT_THAT(counts(30), testing::Each(3));
  // Part of them: some of the short and of the long ones.
  const std::vector<int> half = counts(5);
  EXPECT_EQ(std::accumulate(half.begin(), half.begin() + 5, 0), 3) << testing::PrintToString(half);
}

TEST(DrawRecords, TheLastAreLongestFirst) {
  const std::vector<ReplayRecord> lengths = {{1, 1, 7}, {2, 1, 9}, {3, 1, 8}, {9, 1, 8}};
  const std::vector<ReplayRecord> drawn = draw_records(lengths, 4, 4);
  std::vector<std::uint32_t> prompts;
  for (const ReplayRecord& record : drawn) prompts.push_back(record.prompt_tokens);
  EXPECT_THAT(prompts, ElementsAre(2, 9, 3, 1));
}

TEST(PlanReport, SaysWhatWasFound) {
  PlanInput input = job(tests::llama_8b(), parse_virtual_machine("h100-sxm"), 50, {{512, 20, 20}});
  input.machine.device.memory_bytes = std::uint64_t{12} << 30;
  input.devices = 2;
  const Plan plan = make_plan(input, 2);
  PlanSource source;
  source.version = "penstock 1";
  source.model = "llama";
  source.prompts = token_histogram({512});
  source.answers = token_histogram({20});
  const std::string text = format_plan(input, plan, source);
  EXPECT_THAT(text, HasSubstr("\nsmallest   1 replica of 2 stages: 2 devices on 1 node, "));
  EXPECT_THAT(text, HasSubstr("           with 1 stage: "));
  EXPECT_THAT(text, HasSubstr("most is lost to"));
  const nlohmann::json json = to_json(input, plan, source);
  EXPECT_EQ(json.at("rows").size(), plan.rows.size());
  const RankMemory& rank = plan.rows[0].size.ranks[0];
  EXPECT_THAT(text, HasSubstr(fmt::format(
                        "      0    {:>6}  {:>9}  {:>9}", fmt::format("0-{}", rank.layers.end - 1),
                        format_bytes(rank.weight_bytes), format_bytes(rank.kv_bytes))));
  EXPECT_EQ(json.at("rows")[0].at("ranks")[0].at("weight_bytes"), rank.weight_bytes);
  EXPECT_EQ(json.at("rows")[0].at("devices"), 2);
  EXPECT_EQ(json.at("prompts").at("longest"), 512);
  EXPECT_EQ(json.at("measured"), "");
  EXPECT_THAT(text, HasSubstr("\n           of devices and links as the machine is described\n"));
  source.measured = "a machine (today)";
  EXPECT_THAT(format_plan(input, plan, source),
              HasSubstr("\n           steps as measured on a machine (today);\n"));
  EXPECT_EQ(to_json(input, plan, source).at("measured"), "a machine (today)");
}

}  // namespace
}  // namespace penstock::jobs
