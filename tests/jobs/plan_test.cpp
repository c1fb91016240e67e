#include "jobs/plan.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>

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

TEST(PlanSize, KvMemoryMustBeThere) {
  PlanInput input =
      job(tests::llama_8b(), parse_virtual_machine("h100-sxm"), 100, {{512, 256, 256}});
  input.kv_memory = std::uint64_t{500} << 30;
  EXPECT_THAT(fit_pipeline(input, 1).reason,
              AllOf(HasSubstr("--kv-memory 537 GB is more than the "), HasSubstr("give less")));
  // As much as there is, but for weights.
  input.kv_memory = std::uint64_t{70} << 30;
  EXPECT_THAT(fit_pipeline(input, 1).reason,
              AllOf(HasSubstr("of the 32 layers"), HasSubstr("beside --kv-memory 75.2 GB")));
  EXPECT_TRUE(fit_pipeline(input, 16).size);
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

PlanInput job_of_70b() {
  return job(tests::llama_70b(), parse_virtual_machine("h100-sxm"), 1000, {{500, 300, 300}});
}

double best_seconds(const PlanInput& input) {
  const Plan plan = make_plan(input, 2);
  return plan.rows[plan.best].prediction.seconds;
}

TEST(Plan, MoreDevicesAreNeverSlower) {
  PlanInput input = job_of_70b();
  double shortest = std::numeric_limits<double>::infinity();
  for (input.devices = 14; input.devices <= 16; ++input.devices) {
    const double seconds = best_seconds(input);
    EXPECT_LT(seconds, 1.021 * shortest) << input.devices;
    shortest = std::min(shortest, seconds);
  }
}

// 18 devices: two pipelines of 9 stages.
TEST(Plan, NoNumberOfStagesIsFasterThanTheBest) {
  PlanInput input = job_of_70b();
  input.devices = 18;
  const double best = best_seconds(input);
  for (const std::uint32_t stages : {6U, 9U, 17U, 18U}) {
    input.stages = stages;
    EXPECT_LT(best, 1.021 * best_seconds(input)) << stages;
  }
}

TEST(Plan, StagesThatMakeNoneFasterAreNotTried) {
  PlanInput input = job_of_70b();
  input.devices = 16;
  std::set<std::uint32_t> stages;
  for (const PlanRow& row : make_plan(input, 2).rows) stages.insert(row.stages());
  // 80 layers and a head: 6 layers on the slowest of 14 stages, and of 15 and 16.
  EXPECT_TRUE(stages.contains(14));
  EXPECT_FALSE(stages.contains(15));
}

TEST(Plan, RowsThatMatter) {
  Plan plan;
  const auto add = [&](std::uint32_t stages, std::uint32_t replicas, double seconds) {
    PlanRow& row = plan.rows.emplace_back();
    row.size.ranks.resize(stages);
    row.replicas = replicas;
    row.prediction.seconds = seconds;
  };
  add(1, 1, 100);
  add(1, 8, 13);
  add(2, 1, 110);  // slower than with one device
  add(2, 4, 12);
  add(4, 1, 25);
  plan.best = 3;
  EXPECT_THAT(rows_that_matter(plan), ElementsAre(0, 4, 3));
  plan.turning = TurningPoint{1, 2, 0.5, Loss::waiting};
  EXPECT_THAT(rows_that_matter(plan), ElementsAre(0, 2, 4, 3));
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

TEST(PlanReport, ReasonsAndHoursOfSmallJobs) {
  PlanInput input = job(tests::llama_70b(), parse_virtual_machine("h100-sxm"), 20, {{512, 20, 20}});
  input.devices = input.stages = 2;
  PlanSource source;
  source.input = "one.jsonl";
  source.records_read = 1;
  source.prompts = token_histogram({512});
  source.answers = token_histogram({20});
  // The KV memory holds all of them.
  const std::string small = format_plan(input, make_plan(input, 1), source);
  EXPECT_THAT(small, AllOf(testing::Not(HasSubstr("KV memory:")), HasSubstr("of 1 record, read"),
                           HasSubstr(", 0.001 device-hours")));
  // Of many it holds few, and the stages are uneven besides.
  input.records = 1000;
  EXPECT_THAT(format_plan(input, make_plan(input, 1), source),
              testing::ContainsRegex("KV memory: [0-9]+ sequences at once; [a-z ]+ [0-9]+ %"));
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
