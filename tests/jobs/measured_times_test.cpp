#include "jobs/measured_times.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/error.hpp"
#include "jobs/launch.hpp"
#include "model/calibration.hpp"
#include "tests/support/llama_shapes.hpp"
#include "tests/support/temporary_folder.hpp"

namespace penstock::jobs {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::ThrowsMessage;

class MeasuredTimesTest : public testing::Test {
 protected:
  // A layer takes so long.
  void know(const std::string& device, int sharers, double layer_seconds,
            const std::string& kv_dtype = "bf16",
            const std::string& network = model::describe_parts(tests::llama_8b())) {
    model::PartTables tables;
    tables.embedding.points = {{1, 0}};
    tables.layer.points = {{1, layer_seconds}};
    tables.head.points = {{1, 0}};
    tables.drawn.points = {{1, 2}};
    known_[{device, "class", threads_, sharers, "bf16", kv_dtype, network}] = {tables, "yesterday"};
    model::write_calibrations(checkpoint_ + ".calibration.json", known_);
  }
  MeasuredTimes find(const std::string& device) const {
    PlanInput plan;
    plan.config = tests::llama_8b();
    plan.machine.gpus = plan_for_gpus_;
    return measured_times(checkpoint_, plan, device, drawn_);
  }
  void expect_refused(const std::string& device, const testing::Matcher<std::string>& words) const {
    EXPECT_THAT([&] { find(device); }, ThrowsMessage<UsageError>(words)) << device;
  }

  const tests::TemporaryFolder folder_;
  const std::string checkpoint_ = folder_ / "model.h5";
  model::Calibrations known_;
  int threads_ = 8;  // of what is known; 0: a GPU
  bool plan_for_gpus_ = false;
  bool drawn_ = false;
};

TEST_F(MeasuredTimesTest, TheOnlyOneForThePlansNumbers) {
  know("CPU", 2, 0.5);
  know("CPU", 2, 0.25, "f32");
  know("CPU", 2, 0.125, "bf16", "another");
  const MeasuredTimes times = find("");
  EXPECT_DOUBLE_EQ(times.parts->layer({1, 1, 0, 0}), 0.5);
  EXPECT_EQ(times.text,
            "CPU, 8 threads, 2 ranks a node, bf16, KV bf16, class (yesterday), greedy answers");
  expect_refused("GPU", AllOf(HasSubstr("--measured-on GPU: "),
                              HasSubstr("has only: CPU, 8 threads"), Not(HasSubstr("f32"))));
}

TEST_F(MeasuredTimesTest, WithWhatDrawingTakesWhereAnswersAreDrawn) {
  know("CPU", 2, 0.5);
  EXPECT_DOUBLE_EQ(find("").parts->head({1, 1, 0, 0}), 0);
  drawn_ = true;
  EXPECT_DOUBLE_EQ(find("").parts->head({1, 1, 0, 0}), 2);
  EXPECT_THAT(find("").text, HasSubstr("tokens drawn at random"));
}

TEST_F(MeasuredTimesTest, OfSeveralOneIsNamed) {
  know("CPU", 1, 0.5);
  know("CPU", 2, 0.25);
  know("other CPU", 2, 0.125);
  EXPECT_DOUBLE_EQ(find("1 rank a").parts->layer({1, 1, 0, 0}), 0.5);
  EXPECT_DOUBLE_EQ(find("other").parts->layer({1, 1, 0, 0}), 0.125);
  expect_refused("",
                 AllOf(HasSubstr("has several: CPU, 8 threads, 1 rank a node"),
                       HasSubstr("; CPU, 8 threads, 2 ranks a node"), HasSubstr("; other CPU"),
                       HasSubstr("--measured-on 'CPU, 8 threads, 1 rank a node, bf16, KV bf16")));
  expect_refused("2 ranks", AllOf(HasSubstr("several"), Not(HasSubstr("1 rank a node"))));
}

TEST_F(MeasuredTimesTest, GpusAndCpusAreNotTakenForEachOther) {
  know("CPU", 1, 0.5);
  threads_ = 0;
  know("GPU", 1, 0.25);
  EXPECT_DOUBLE_EQ(find("").parts->layer({1, 1, 0, 0}), 0.5);
  plan_for_gpus_ = true;
  EXPECT_DOUBLE_EQ(find("").parts->layer({1, 1, 0, 0}), 0.25);
  expect_refused("CPU", HasSubstr("has only: GPU, 1 rank a GPU"));
}

TEST_F(MeasuredTimesTest, WhatIsMissingIsNamed) {
  expect_refused("", AllOf(HasSubstr("model.h5.calibration.json holds nothing"),
                           HasSubstr("bench CKPT --calibrate")));
  know("CPU", 2, 0.25, "f32");
  know("GPU", 1, 0.25, "bf16", "another");
  expect_refused("", AllOf(HasSubstr("nothing for bf16, KV bf16, on CPUs, but: CPU, "),
                           HasSubstr("KV bf16, class, of another network")));
  folder_.write("model.h5.calibration.json", "nonsense");
  EXPECT_THROW(find(""), io::FileError);
}

}  // namespace
}  // namespace penstock::jobs
