// Threads stand for ranks; each says what machine it is.

#include "jobs/stage_cut.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>

#include "comm/error.hpp"
#include "jobs/launch.hpp"
#include "tests/support/temporary_folder.hpp"

namespace penstock::jobs {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

model::ModelConfig config() {
  model::ModelConfig c;
  c.hidden_size = 64;
  c.intermediate_size = 96;
  c.num_layers = 12;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_dim = 16;
  c.vocab_size = 1000;
  c.max_position = 512;
  return c;
}

model::CalibrationKey machine(const std::string& name) {
  return {name, "cpu avx2", 4, 1, "bf16", "bf16", model::describe_parts(config())};
}

// A layer of so many seconds, whatever the step; the head as `head`, the embedding nothing.
model::PartTables tables(double layer, double head) {
  model::PartTables t;
  t.embedding.points = {{1, 0}};
  t.layer.points = {{1, layer}};
  t.head.points = {{1, head}};
  t.drawn.points = {{1, 0}};
  return t;
}

class StageCutTest : public testing::Test {
 protected:
  CutInput input() const {
    CutInput mine;
    mine.config = config();
    mine.memory_bytes = std::uint64_t{1} << 40;
    mine.kv_tokens = 512;
    mine.calibration = path_;
    mine.step = model::decode_step(16, 100);
    mine.modelled =
        model::cost_by_limits(config(), io::DType::bf16, io::DType::bf16, {100e9, 10e9});
    return mine;
  }

  // What each of the ranks, which are these machines, has after the cut.
  std::vector<StageCut> cut(const std::vector<std::string>& machines,
                            const std::function<void(int, CutInput&)>& change = {}) const {
    std::vector<StageCut> cuts(machines.size());
    run_threads(static_cast<int>(machines.size()), 1, [&](comm::Endpoint& endpoint) {
      const int member = endpoint.control->member();
      CutInput mine = input();
      mine.key = machine(machines[static_cast<std::size_t>(member)]);
      if (change) change(member, mine);
      cuts[static_cast<std::size_t>(member)] = agree_on_cut(endpoint, mine);
      return 0;
    });
    return cuts;
  }

  static std::vector<std::int64_t> layers(const StageCut& cut) {
    std::vector<std::int64_t> layers;
    for (const model::StageRange& range : cut.ranges) layers.push_back(range.layers());
    return layers;
  }

  tests::TemporaryFolder workplace_;
  std::string path_ = workplace_ / "model.h5.calibration.json";
};

TEST_F(StageCutTest, WithoutAFileByWeightsAndArithmetic) {
  for (const StageCut& each : cut({"A", "A"})) {
    EXPECT_FALSE(each.in_seconds);
    EXPECT_THAT(each.source, HasSubstr("by weights and arithmetic"));
    EXPECT_THAT(each.warnings, IsEmpty());
    // In microseconds a layer takes 6.20 for its 61952 bytes, 9.83 for 16 rows of 61440 flops,
    // 4.14 and 20.68 for 1616 positions; the head 12.83 and 20.48, 0.82 layers.
    EXPECT_THAT(layers(each), ElementsAre(6, 6));
    EXPECT_THAT(format_predicted(each), ElementsAre("88 %", "100 %"));
  }
}

TEST_F(StageCutTest, ByWhatWasMeasuredOnEachKind) {
  model::write_calibrations(path_, {{machine("A"), {tables(0.001, 0.003), "Monday"}},
                                    {machine("B"), {tables(0.003, 0.009), "Tuesday"}},
                                    {machine("C"), {tables(1, 1), "Sunday"}}});
  for (const StageCut& each : cut({"A", "A"})) {
    EXPECT_TRUE(each.in_seconds);
    EXPECT_EQ(each.source, "by measurement (Monday)");
    EXPECT_THAT(layers(each), ElementsAre(7, 5));  // 7 and 5 + 3; as good as 8 and 4 + 3
    EXPECT_THAT(format_predicted(each), ElementsAre("7.0 ms", "8.0 ms"));
  }
  for (const StageCut& each : cut({"B", "A"})) {
    EXPECT_EQ(each.source, "by measurement (Monday; Tuesday)");
    EXPECT_THAT(layers(each), ElementsAre(3, 9));  // 3 * 3 and 9 + 3, rather than 3 * 4
    EXPECT_DOUBLE_EQ(each.slowest().seconds(each.step), 0.012);
  }
}

// A layer of 1 ms, the head 3 ms; to draw the 16 tokens 4 ms more.
TEST_F(StageCutTest, DrawingTokensIsWorkOfTheLastStage) {
  model::PartTables measured = tables(0.001, 0.003);
  measured.drawn.points = {{1, 0.004}};
  model::write_calibrations(path_, {{machine("A"), {measured, "Monday"}}});
  const auto cuts = cut({"A", "A"}, [](int member, CutInput& mine) { mine.drawn = member == 0; });
  for (const StageCut& each : cuts) {
    EXPECT_THAT(layers(each), ElementsAre(9, 3));  // 9 and 3 + 3 + 4, or 10 and 9
    EXPECT_THAT(format_predicted(each), ElementsAre("9.0 ms", "10.0 ms"));
  }
}

TEST_F(StageCutTest, AMachineThatWasNotMeasuredIsNamedAndNothingIsUsed) {
  model::write_calibrations(path_, {{machine("A"), {tables(0.001, 0.1), "Monday"}}});
  for (const StageCut& each : cut({"A", "D"})) {
    EXPECT_FALSE(each.in_seconds);
    EXPECT_THAT(layers(each), ElementsAre(6, 6));
    EXPECT_THAT(each.source, HasSubstr("has nothing for stage 1: D, 4 threads"));
  }
}

TEST_F(StageCutTest, ABrokenFileIsAWarningOfStage0) {
  workplace_.write("model.h5.calibration.json", "{]");
  const auto cuts = cut({"A", "A"});
  EXPECT_THAT(layers(cuts[0]), ElementsAre(6, 6));
  EXPECT_THAT(cuts[0].warnings, ElementsAre(HasSubstr(path_)));
}

// Rank 1 sees another file, and has other ideas of the step.
TEST_F(StageCutTest, AllTakeStage0sCut) {
  model::write_calibrations(path_, {{machine("A"), {tables(0.001, 0.003), "Monday"}}});
  const auto cuts = cut({"A", "A"}, [](int member, CutInput& mine) {
    if (member == 0) return;
    mine.calibration = "/does/not/exist";
    mine.step = model::decode_step(1, 1);
  });
  EXPECT_THAT(layers(cuts[1]), ElementsAre(7, 5));
  EXPECT_TRUE(cuts[1].in_seconds);
  EXPECT_EQ(cuts[1].step.rows, 16u);
}

// 12 layers of 62 kB: 30720 elements and two norms, and a block of cache of 32 * 128 bytes.
TEST_F(StageCutTest, MemoryCountsWithCacheOrAtLeastABlock) {
  const auto limited = [&](std::uint64_t bytes) {
    return cut({"A", "A"}, [&](int member, CutInput& mine) {
      if (member == 0) mine.memory_bytes = bytes;
    });
  };
  const auto bytes = model::part_bytes(config(), io::DType::bf16, io::DType::bf16, 512);
  EXPECT_THAT(layers(limited(bytes.embedding + 3 * bytes.layer)[1]), ElementsAre(3, 9));
  const auto least = model::part_bytes(config(), io::DType::bf16, io::DType::bf16, 32);
  EXPECT_THAT(layers(limited(least.embedding + least.layer)[1]), ElementsAre(1, 11));
  try {
    limited(1000);
    ADD_FAILURE() << "took it";
  } catch (const comm::AgreeError& error) {
    EXPECT_THAT(error.what(), HasSubstr("stage 0 has 0.00 GB of memory"));
  }
}

TEST_F(StageCutTest, LayersAsTheUserSays) {
  model::write_calibrations(path_, {{machine("A"), {tables(0.001, 0.003), "Monday"}}});
  for (const StageCut& each : cut({"A", "A", "A"}, [](int, CutInput& mine) {
         mine.layers = {1, 10, 1};
       })) {
    EXPECT_THAT(layers(each), ElementsAre(1, 10, 1));
    EXPECT_EQ(each.source, "by --layers");
    EXPECT_THAT(format_predicted(each), ElementsAre("1.0 ms", "10.0 ms", "4.0 ms"));
  }
}

// Ten steps in which the stages computed for 0.02 and 0.03 s, of the shape of one.
TEST_F(StageCutTest, StepTimesAreMeans) {
  // Two kinds of steps: a layer takes 1 ms of the first and 2 ms of the second.
  model::PartTables stair = tables(0.001, 0.003);
  stair.layer.points = {{1, 0.001}, {10, 0.001}, {11, 0.002}};
  const std::vector<model::StepShape> shapes = {{1, 1, 0, 0}, {11, 11, 0, 0}};
  model::write_calibrations(path_, {{machine("A"), {stair, "Monday"}}});
  const StageCut measured = cut({"A", "A"}, [](int, CutInput& mine) { mine.layers = {7, 5}; })[0];
  std::vector<LedgerTotals> ledgers(2);
  ledgers[0][Share::compute] = 0.02;
  ledgers[1][Share::compute] = 0.03;
  ledgers[1][Share::starved] = 7;
  const StepTimes times = step_times(measured, ledgers, shapes, 10);
  EXPECT_THAT(times.measured_seconds,
              ElementsAre(testing::DoubleEq(0.002), testing::DoubleEq(0.003)));
  EXPECT_THAT(times.predicted_seconds,
              ElementsAre(testing::DoubleEq(7 * 0.0015), testing::DoubleEq(5 * 0.0015 + 0.003)));
  EXPECT_THAT(step_times(measured, ledgers, {}, 0).measured_seconds, IsEmpty());
}

// Layers of 1 s, a head of 2.5 s, nothing else.
class LayersAndHead : public model::PartCost {
 public:
  double step() const override { return 0; }
  double embedding(const model::StepShape&) const override { return 0; }
  double layer(const model::StepShape&) const override { return 1; }
  double head(const model::StepShape&) const override { return 2.5; }
};

TEST(BestCutPart, ByHand) {
  const auto part = [](std::int64_t layers_of_first) {
    StageCut cut;
    cut.ranges = {{0, layers_of_first, true, false}, {layers_of_first, 12, false, true}};
    for (const model::StageRange& range : cut.ranges) {
      cut.costs.emplace_back(std::make_shared<LayersAndHead>(), range);
    }
    return best_cut_part(cut, {1, 1, 1, 1});
  };
  // 7 s and 5 + 2.5 s is best: 8 and 6.5, or 6 and 8.5, are slower.
  EXPECT_DOUBLE_EQ(part(7), 1);
  EXPECT_DOUBLE_EQ(part(8), 7.5 / 8);
  EXPECT_DOUBLE_EQ(part(6), 7.5 / 8.5);
  EXPECT_DOUBLE_EQ(part(1), 7.5 / 13.5);
}

}  // namespace
}  // namespace penstock::jobs
