// penstock bench --calibrate, and what run and bench make of it. No time is judged.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class Calibrate : public testing::Test {
 protected:
  Calibrate() { std::filesystem::copy_file(kEmbeddedModel, model_); }

  Arguments bench(const Arguments& options) const {
    return Arguments{"bench",      model_, "--batch",     "4",  "--prompt",  "8",
                     "--generate", "8",    "--kv-memory", "8M", "--threads", "1"} +
           options;
  }
  json calibrate(int ranks) const {
    const Finished finished = penstock_ranks(ranks, {"bench", model_, "--calibrate", "--threads",
                                                     "1", "--max-step-tokens", "32", "--json"});
    EXPECT_EQ(finished.code, 0) << finished;
    return json::parse(finished.out);
  }
  json file() const { return json::parse(read_bytes(file_)); }

  TemporaryFolder workplace_;
  std::string model_ = workplace_ / "model.h5";
  std::string file_ = model_ + ".calibration.json";
};

TEST_F(Calibrate, TwoRanksMeasureAndAreCutByIt) {
  const json measured = calibrate(2);
  EXPECT_EQ(file(), measured);
  ASSERT_EQ(measured.at("entries").size(), 1u);
  const json& entry = measured.at("entries")[0];
  EXPECT_EQ(entry.at("threads"), 1);
  EXPECT_EQ(entry.at("sharers"), 2);
  for (const char* part : {"embedding", "layer", "head"}) {
    std::vector<int> rows;
    for (const json& point : entry.at("seconds").at(part)) rows.push_back(point[0]);
    EXPECT_THAT(rows, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 20, 21,
                                  24, 25, 28, 29, 32))
        << part;
  }
  std::vector<int> drawn;
  for (const json& point : entry.at("seconds").at("drawn")) drawn.push_back(point[0]);
  EXPECT_THAT(drawn, ElementsAre(1, 8, 32));
  const Finished cut = penstock_ranks(2, bench({"--json"}));
  ASSERT_EQ(cut.code, 0) << cut;
  EXPECT_THAT(json::parse(cut.out).at("cut"),
              AllOf(HasSubstr("by measurement"), HasSubstr(entry.at("measured"))));
  EXPECT_EQ(json::parse(cut.out).at("rows")[0].at("decode_step_predicted_s").size(), 2u);

  // Alone on the node it is another machine.
  const Finished alone = penstock(bench({"--json"}));
  ASSERT_EQ(alone.code, 0) << alone;
  EXPECT_THAT(json::parse(alone.out).at("cut"),
              AllOf(HasSubstr("by weights and arithmetic"), HasSubstr("1 rank a node")));

  // The other machine's entry joins the first.
  EXPECT_EQ(calibrate(1).at("entries").size(), 1u);
  EXPECT_EQ(file().at("entries").size(), 2u);
}

TEST_F(Calibrate, TheHeaderOfARunSaysWhatItIsCutBy) {
  const std::string input = workplace_.write("in.jsonl", R"({"prompt": "Mr. Darcy"})");
  const auto run = [&] {
    return penstock_ranks(2, {"run", model_, "--input", input, "--output", workplace_ / "out",
                              "--max-tokens", "3", "--threads", "1", "--fresh"});
  };
  const Finished before = run();
  ASSERT_EQ(before.code, 0) << before;
  EXPECT_THAT(before.err,
              AllOf(HasSubstr("cut by weights and arithmetic"),
                    HasSubstr("ms of computing on each stage"), Not(HasSubstr("predicted"))));
  calibrate(2);
  const std::string answers = read_bytes(workplace_ / "out");
  const Finished after = run();
  ASSERT_EQ(after.code, 0) << after;
  EXPECT_THAT(after.err, AllOf(HasSubstr("cut by measurement"), HasSubstr("; predicted ")));
  EXPECT_EQ(read_bytes(workplace_ / "out"), answers);

  workplace_.write("model.h5.calibration.json", R"({"format": "shopping list"})");
  const Finished broken = run();
  EXPECT_EQ(broken.code, 0) << broken;
  EXPECT_THAT(broken.err,
              AllOf(HasSubstr("warning: " + file_), HasSubstr("cut by weights and arithmetic")));
}

// Six layers of a second each; drawing takes four more, so the last stage gets one.
TEST_F(Calibrate, ARunThatDrawsTokensIsCutForThat) {
  json measured = calibrate(2);
  json& seconds = measured["entries"][0]["seconds"];
  for (const char* part : {"embedding", "head"}) seconds[part] = {{1, 0.0}};
  seconds["layer"] = {{1, 1.0}};
  seconds["attended"] = seconds["cached"] = 0;
  seconds["drawn"] = {{1, 4.0}};
  workplace_.write("model.h5.calibration.json", measured.dump());
  const std::string input = workplace_.write("in.jsonl", R"({"prompt": "Mr. Darcy"})");
  const auto header = [&](const Arguments& options) {
    const Finished finished =
        penstock_ranks(2, Arguments{"run", model_, "--input", input, "--output", workplace_ / "out",
                                    "--max-tokens", "3", "--threads", "1", "--fresh"} +
                              options);
    EXPECT_EQ(finished.code, 0) << finished;
    return finished.err;
  };
  EXPECT_THAT(header({"--temperature", "0"}), HasSubstr("predicted 3000.00 3000.00"));
  EXPECT_THAT(header({"--temperature", "0.8"}), HasSubstr("predicted 5000.00 5000.00"));
}

TEST_F(Calibrate, AnotherFileOfThatNameIsKept) {
  workplace_.write("model.h5.calibration.json", "a shopping list\n");
  const Finished refused = penstock({"bench", model_, "--calibrate", "--threads", "1"});
  EXPECT_EQ(refused.code, 1) << refused;
  EXPECT_THAT(refused.errors(), ElementsAre(HasSubstr(file_)));
  EXPECT_EQ(read_bytes(file_), "a shopping list\n");
}

TEST_F(Calibrate, LayersOfEachStageAsTheUserSays) {
  const Finished two = penstock_ranks(2, bench({"--layers", "5,1", "--json"}));
  ASSERT_EQ(two.code, 0) << two;
  EXPECT_EQ(json::parse(two.out).at("layers"), json({5, 1}));
  EXPECT_EQ(json::parse(two.out).at("cut"), "by --layers");
  for (const auto& [layers, named] : std::vector<std::pair<std::string, std::string>>{
           {"3", "has 1 numbers, but there are 2 stages"},
           {"3,4", "7 layers together; the model has 6"},
           {"6,0", "--layers '6,0'"},
           {"3,3,", "--layers '3,3,'"},
           {"3,three", "--layers '3,three'"}}) {
    const Finished refused = penstock_ranks(2, bench({"--layers", layers}));
    EXPECT_EQ(refused.code, 1) << refused;
    EXPECT_THAT(refused.errors(), ElementsAre(HasSubstr(named))) << layers;
  }
}

}  // namespace
}  // namespace penstock::tests
