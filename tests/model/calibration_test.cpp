#include "model/calibration.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "io/error.hpp"
#include "model/error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace penstock::model {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

PartTables tables() {
  PartTables t;
  t.embedding.points = {{1, 0.5}, {101, 1.5}};
  t.layer.points = {{1, 10}, {11, 20}, {21, 50}};
  t.head.points = {{2, 100}, {4, 200}};
  t.attended_seconds = 0.25;
  t.cached_seconds = 0.125;
  t.drawn.points = {{1, 0.5}, {3, 1.5}};
  return t;
}

CalibrationKey key() {
  return {"AMD EPYC (cpu family 26, model 2)", "cpu avx512_bf16", 8, 2, "bf16", "bf16", "llama"};
}

TEST(TimeTable, StraightLinesBetweenPointsAndOnBehindThem) {
  const TimeTable table{{{2, 10}, {12, 20}, {22, 50}}};
  EXPECT_DOUBLE_EQ(table.seconds(0), 10);
  EXPECT_DOUBLE_EQ(table.seconds(1), 10);
  EXPECT_DOUBLE_EQ(table.seconds(2), 10);
  EXPECT_DOUBLE_EQ(table.seconds(7), 15);
  EXPECT_DOUBLE_EQ(table.seconds(12), 20);
  EXPECT_DOUBLE_EQ(table.seconds(13), 23);
  EXPECT_DOUBLE_EQ(table.seconds(32), 80);
  EXPECT_DOUBLE_EQ((TimeTable{{{4, 3}}}.seconds(400)), 3);
}

TEST(MeasuredCost, EachPartByHand) {
  const StepCost first(measured_cost(tables()), {0, 3, true, false});
  // A step 0.5; 51 rows in the embedding 0.5 more; three layers of 50 + 30 rows * 3.
  EXPECT_DOUBLE_EQ(first.seconds({51, 7, 0, 0}), 0.5 + 0.5 + 3 * (50 + 30 * 3));
  EXPECT_DOUBLE_EQ(first.seconds({1, 0, 8, 16}), 0.5 + 3 * (10 + 8 * 0.25 + 16 * 0.125));
  const StepCost last(measured_cost(tables()), {3, 5, false, true});
  EXPECT_DOUBLE_EQ(last.seconds({1, 3, 0, 0}), 0.5 + 2 * 10 + 150);
  EXPECT_DOUBLE_EQ(last.seconds({1, 0, 0, 0}), 0.5 + 2 * 10) << "the head is left out";
}

TEST(MeasuredCost, DrawingTakesTimeForEachToken) {
  const StepCost last(measured_cost(with_drawing(tables())), {3, 5, false, true});
  EXPECT_DOUBLE_EQ(last.seconds({1, 3, 0, 0}), 0.5 + 2 * 10 + 150 + 1.5);
  EXPECT_DOUBLE_EQ(last.seconds({1, 10, 0, 0}), 0.5 + 2 * 10 + 500 + 5);
  EXPECT_DOUBLE_EQ(last.seconds({1, 0, 0, 0}), 0.5 + 2 * 10);
}

// Samples of a machine whose parts are known: 1 + rows / 8 for a layer, 3 for each attended
// position, 5 for each that is read.
TEST(FitTables, FindsWhatTheMachineDoes) {
  std::vector<PartSample> samples;
  const auto add = [&](StepShape shape) {
    const auto rows = static_cast<double>(shape.rows);
    samples.push_back({shape, 2 + rows,
                       1 + rows / 8 + 3 * static_cast<double>(shape.attended) +
                           5 * static_cast<double>(shape.cached),
                       10 + static_cast<double>(shape.sampled)});
  };
  for (const std::uint64_t n : {1, 8, 32}) add({n, n, n * 32, n * 32});
  for (const std::uint64_t n : {8, 32}) add({n, n, n * 512, n * 512});
  add({128, 1, 128 * 129 / 2, 128});
  add({128, 1, 128 * 512 + 128 * 129 / 2, 640});
  const PartTables fit = fit_tables(samples);
  EXPECT_NEAR(fit.attended_seconds, 3, 1e-9);
  EXPECT_NEAR(fit.cached_seconds, 5, 1e-6);
  ASSERT_EQ(fit.layer.points.size(), 4u);
  for (const auto& [rows, seconds] : fit.layer.points) {
    EXPECT_NEAR(seconds, 1 + static_cast<double>(rows) / 8, 0.01) << rows;
  }
  EXPECT_EQ(fit.head.points,
            (std::vector<std::pair<std::uint64_t, double>>{{1, 11}, {8, 18}, {32, 42}}));
  EXPECT_EQ(fit.embedding.points.back(), (std::pair<std::uint64_t, double>{128, 130}));
}

// By what was measured beside it, not by the table, which a disturbed step has changed.
TEST(FitTables, DrawingIsWhatTheHeadTakesLonger) {
  using Points = std::vector<std::pair<std::uint64_t, double>>;
  std::vector<PartSample> samples = {{{4, 4, 128, 128}, 0, 1, 10},
                                     {{8, 8, 256, 256}, 0, 1, 8},
                                     {{32, 32, 1024, 1024}, 0, 1, 32},
                                     {{8, 8, 256, 256}, 0, 1, 11, true},
                                     {{32, 32, 1024, 1024}, 0, 1, 49, true}};
  EXPECT_EQ(fit_tables(samples).drawn.points, (Points{{8, 3}, {32, 17}}));
  EXPECT_EQ(fit_tables(samples).head.points, (Points{{4, 9}, {8, 9}, {32, 32}}));
  samples[3].head = samples[4].head = 0;
  EXPECT_EQ(fit_tables(samples).drawn.points, (Points{{8, 0}, {32, 0}}));
  samples.resize(3);
  EXPECT_EQ(fit_tables(samples).drawn.points, (Points{{1, 0}}));
}

// Decoding behind 480 more positions takes less than 65,536 attended ones say it should: reading
// would have a negative time, so attending has it all. 1000 * 65536 / (65536^2 + 480^2), nearly.
TEST(FitTables, NeitherFactorOfAttentionIsNegative) {
  const std::vector<PartSample> samples = {{{1, 1, 32, 32}, 0, 5, 1},
                                           {{1, 1, 512, 512}, 0, 1, 1},
                                           {{128, 1, 8256, 128}, 0, 50, 1},
                                           {{128, 1, 73792, 640}, 0, 1050, 1}};
  const PartTables fit = fit_tables(samples);
  EXPECT_EQ(fit.cached_seconds, 0);
  EXPECT_NEAR(fit.attended_seconds, 1000.0 / 65536, 1e-5);
}

// What a busy machine measures: fewer rows took longer, more context less.
TEST(FitTables, NoisyTimesNeitherFallNorTurnNegative) {
  const std::vector<PartSample> samples = {{{1, 1, 32, 32}, 0.1, 5, 3},
                                           {{1, 1, 512, 512}, 0.1, 4, 3},
                                           {{2, 2, 64, 64}, 0, 3, 2},
                                           {{4, 4, 128, 128}, 0, 7, 9}};
  const PartTables fit = fit_tables(samples);
  EXPECT_EQ(fit.attended_seconds, 0);
  EXPECT_EQ(fit.cached_seconds, 0);
  EXPECT_EQ(fit.layer.points,
            (std::vector<std::pair<std::uint64_t, double>>{{1, 3.75}, {2, 3.75}, {4, 7}}));
  EXPECT_EQ(fit.head.points,
            (std::vector<std::pair<std::uint64_t, double>>{{1, 2.5}, {2, 2.5}, {4, 9}}));
}

// 9, 5, 4 become 6 each; the 5 behind them falls short of that, so all four are 5.75.
TEST(FitTables, WhatIsAtOddsIsPooled) {
  std::vector<PartSample> samples;
  const double heads[] = {1, 9, 5, 4, 5, 7};
  for (std::uint64_t n = 1; n <= 6; ++n) samples.push_back({{n, n, 0, 0}, 0, 1, heads[n - 1]});
  EXPECT_EQ(fit_tables(samples).head.points,
            (std::vector<std::pair<std::uint64_t, double>>{
                {1, 1}, {2, 5.75}, {3, 5.75}, {4, 5.75}, {5, 5.75}, {6, 7}}));
}

TEST(Calibrations, SeveralMachinesInOneFile) {
  const tests::TemporaryFolder workplace;
  const std::string path = calibration_path(workplace / "model.h5");
  EXPECT_EQ(path, workplace / "model.h5.calibration.json");
  EXPECT_TRUE(read_calibrations(path).empty()) << "no file";
  CalibrationKey other = key();
  other.threads = 4;
  Calibrations all;
  all[key()] = {tables(), "2026-11-23, penstock 0.1.0"};
  all[other] = {tables(), "yesterday"};
  all[other].tables.head.points = {{1, 0.1}};
  write_calibrations(path, all);
  const Calibrations read = read_calibrations(path);
  ASSERT_EQ(read.size(), 2u);
  EXPECT_EQ(read.at(key()).measured, "2026-11-23, penstock 0.1.0");
  EXPECT_EQ(read.at(key()).tables.layer.points, tables().layer.points);
  EXPECT_EQ(read.at(key()).tables.attended_seconds, 0.25);
  EXPECT_EQ(read.at(key()).tables.cached_seconds, 0.125);
  EXPECT_EQ(read.at(key()).tables.drawn.points, tables().drawn.points);
  EXPECT_EQ(read.at(other).tables.head.points, all[other].tables.head.points);
}

// Each of these makes another machine, or another network, of it.
TEST(Calibrations, OfAnotherMachineAreNotFound) {
  Calibrations all;
  all[key()] = {tables(), ""};
  const auto changed = [](auto member, auto value) {
    CalibrationKey other = key();
    other.*member = value;
    return other;
  };
  EXPECT_TRUE(all.contains(key()));
  EXPECT_FALSE(all.contains(changed(&CalibrationKey::device, "Xeon")));
  EXPECT_FALSE(all.contains(changed(&CalibrationKey::numeric_class, "cpu avx2")));
  EXPECT_FALSE(all.contains(changed(&CalibrationKey::threads, 7)));
  EXPECT_FALSE(all.contains(changed(&CalibrationKey::sharers, 1)));
  EXPECT_FALSE(all.contains(changed(&CalibrationKey::dtype, "f32")));
  EXPECT_FALSE(all.contains(changed(&CalibrationKey::kv_dtype, "f32")));
  EXPECT_FALSE(all.contains(changed(&CalibrationKey::network, "llama hidden 576")));
  ModelConfig config;
  config.hidden_size = 576;
  ModelConfig longer = config;
  longer.num_layers = 3;  // other layers, but alike
  EXPECT_EQ(describe_parts(config), describe_parts(longer));
  longer.hidden_size = 577;
  EXPECT_NE(describe_parts(config), describe_parts(longer));
}

// A good file with one thing changed.
TEST(Calibrations, HostileTextIsNamed) {
  Calibrations all;
  all[key()] = {tables(), "now"};
  const json good = json::parse(calibration_text(all));
  const auto expect = [&](const char* pointer, const json& value, const std::string& named) {
    json bad = good;
    bad[json::json_pointer(pointer)] = value;
    SCOPED_TRACE(pointer);
    EXPECT_THAT([&] { parse_calibrations(bad.dump()); },
                ThrowsMessage<ModelError>(HasSubstr(named)));
  };
  EXPECT_EQ(parse_calibrations(good.dump()).size(), 1u);
  expect("/format", "penstock", "no penstock calibration");
  expect("/schema", 1, "schema 1; this program knows 2: remove it");
  expect("/entries", 5, "entries");
  expect("/entries/0", json::array(), "entry 0: is a list");
  expect("/entries/0/device", 5, "device is an integer");
  expect("/entries/0/device", std::string(1000, 'x'), "no short string");
  expect("/entries/0/measured", "\x1b[2J", "control characters");
  expect("/entries/0/threads", -1, "threads is -1");
  expect("/entries/0/threads", 1e300, "threads");
  expect("/entries/0/sharers", 0, "sharers is 0");
  expect("/entries/0/seconds", "fast", "is a string");
  expect("/entries/0/seconds/layer", json::array(), "layer is no list");
  expect("/entries/0/seconds/layer", json(300, json{1, 0.5}), "layer is no list of 1 to 256");
  expect("/entries/0/seconds/layer/0", json{0, 1.0}, "point [rows, seconds]");
  expect("/entries/0/seconds/layer/0", json{-3, 1.0}, "point [rows, seconds]");
  expect("/entries/0/seconds/layer/0", json{1.5, 1.0}, "point [rows, seconds]");
  expect("/entries/0/seconds/layer/0", json{1, -1.0}, "time in seconds");
  expect("/entries/0/seconds/layer/0", json{1, 1e300}, "time in seconds");
  expect("/entries/0/seconds/layer/0", json{1, "1"}, "time in seconds");
  expect("/entries/0/seconds/layer/0", json{1, 0.0}, "a layer takes no time");
  expect("/entries/0/seconds/layer/1", json{1, 20.0}, "does not rise at 1 rows");
  expect("/entries/0/seconds/layer/1", json{11, 9.0}, "does not rise at 11 rows");
  expect("/entries/0/seconds/attended", -1, "attended has -1");
  expect("/entries/0/seconds/cached", nullptr, "cached has null");
  expect("/entries/0/seconds/drawn", 4000, "drawn is no list");
  json less = good;
  less["entries"][0]["seconds"].erase("head");
  EXPECT_THAT([&] { parse_calibrations(less.dump()); },
              ThrowsMessage<ModelError>(HasSubstr("has no head")));
  for (const char* text : {"", "{", "[]", "null", "5", "\"x\"", "{\"format\": NaN}"}) {
    EXPECT_THROW(parse_calibrations(text), ModelError) << text;
  }
  EXPECT_THROW(parse_calibrations(std::string(100000, '[')), ModelError);
}

TEST(Calibrations, ABrokenFileIsNamed) {
  const tests::TemporaryFolder workplace;
  const std::string path = workplace.write("m.calibration.json", "{]");
  EXPECT_THAT([&] { read_calibrations(path); }, ThrowsMessage<io::FileError>(HasSubstr(path)));
  const std::string large = workplace.write("large.json", std::string(5 << 20, ' '));
  EXPECT_THROW(read_calibrations(large), io::FileError);
}

}  // namespace
}  // namespace penstock::model
