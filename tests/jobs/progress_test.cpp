#include "jobs/progress.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace penstock::jobs {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

ProgressView sample_view() {
  ProgressView view;
  view.counts.records_done = 412;
  view.counts.records_failed = 2;
  view.counts.records_total = 1000;
  view.counts.busy = {0.97, 0.951, 0.94};
  view.elapsed_s = 65;
  view.in_per_s = 5432.4;
  view.out_per_s = 9.94;
  view.eta_s = 3725;
  return view;
}

TEST(Progress, Modes) {
  EXPECT_EQ(parse_progress_mode("auto"), ProgressMode::automatic);
  EXPECT_EQ(parse_progress_mode("bar"), ProgressMode::bar);
  EXPECT_EQ(parse_progress_mode("lines"), ProgressMode::lines);
  EXPECT_EQ(parse_progress_mode("none"), ProgressMode::none);
  EXPECT_EQ(parse_progress_mode("Bar"), std::nullopt);
  EXPECT_EQ(resolve(ProgressMode::automatic, true), ProgressMode::bar);
  EXPECT_EQ(resolve(ProgressMode::automatic, false), ProgressMode::lines);
  EXPECT_EQ(resolve(ProgressMode::none, true), ProgressMode::none);
}

TEST(Progress, Bar) {
  EXPECT_EQ(format_bar(sample_view(), 120),
            "412/1000  [############...................]  41 %  2 failed  out 9.9 tok/s  "
            "in 5,432 tok/s  ETA 1:02:05  busy 97|95|94 %");
  EXPECT_EQ(format_bar(sample_view(), 79),
            "412/1000  [#########..............]  41 %  2 failed  out 9.9 tok/s  ETA 1:02:05");
}

TEST(Progress, BarOfAnyWidth) {
  EXPECT_EQ(format_bar(sample_view(), 60),
            "412/1000  [#######............]  41 %  2 failed  ETA 1:02:05");
  EXPECT_EQ(format_bar(sample_view(), 24), "412/1000  41 %  2 failed");
  EXPECT_EQ(format_bar(sample_view(), 23), "412/1000  41 %");
  EXPECT_EQ(format_bar(sample_view(), 10), "412/1000");
  EXPECT_EQ(format_bar(sample_view(), 5), "412/1");
  EXPECT_EQ(format_bar(sample_view(), 0), "");
  EXPECT_EQ(format_bar(sample_view(), -3), "");
  for (int width = 0; width < 200; ++width) {
    EXPECT_LE(format_bar(sample_view(), width).size(), static_cast<std::size_t>(width));
  }
}

TEST(Progress, PercentIsFullOnlyAtTheEnd) {
  ProgressView view;
  view.counts.records_done = 99999;
  view.counts.records_total = 100000;
  EXPECT_THAT(format_bar(view, 30), HasSubstr("99 %"));
  EXPECT_THAT(format_line(view), HasSubstr("(99.9 %)"));
  view.counts.records_done = 100000;
  EXPECT_THAT(format_bar(view, 30), HasSubstr("100 %"));
  EXPECT_THAT(format_line(view), HasSubstr("(100.0 %)"));
  EXPECT_THAT(format_bar(ProgressView(), 30), HasSubstr("]  100 %"));
}

TEST(Progress, ManyStagesAreSummedUp) {
  ProgressView view = sample_view();
  view.counts.busy = std::vector<double>(9, 0.9);
  view.counts.busy[4] = 0.5;
  view.counts.busy[7] = 1.01;
  EXPECT_THAT(format_line(view), HasSubstr("busy 50-100 %"));
}

TEST(Progress, Line) {
  EXPECT_EQ(format_line(sample_view()),
            "412 of 1,000 records (41.2 %), 2 failed, in 5,432 tok/s, out 9.9 tok/s, 1:05, "
            "ETA 1:02:05, busy 97|95|94 %");
  ProgressView view;
  view.counts.records_total = 1234567;
  EXPECT_EQ(format_line(view),
            "0 of 1,234,567 records (0.0 %), in 0.0 tok/s, out 0.0 tok/s, 0.0 s");
}

class ProgressShown : public ::testing::Test {
 protected:
  Progress make(ProgressMode mode) {
    return Progress(
        mode, seconds(100), [this](std::string_view text) { shown_ += text; },
        [this] { return width_; });
  }
  ProgressCounts counts(std::uint64_t done) const {
    ProgressCounts counts;
    counts.records_done = done;
    counts.records_total = 100;
    counts.tokens_in = done * 1000;
    counts.tokens_out = done * 10;
    return counts;
  }
  std::string take() { return std::exchange(shown_, ""); }

  std::string shown_;
  int width_ = 31;
};

TEST_F(ProgressShown, LinesComeSoonAndThenRarely) {
  Progress progress = make(ProgressMode::lines);
  for (int ms = 0; ms < 5000; ms += 100)
    progress.update(counts(1), seconds(100) + milliseconds(ms));
  EXPECT_EQ(take(), "");
  EXPECT_FALSE(progress.due(milliseconds(104999)));
  EXPECT_TRUE(progress.due(seconds(105)));
  progress.update(counts(2), seconds(105));
  EXPECT_EQ(take(), "2 of 100 records (2.0 %), in 400 tok/s, out 4.0 tok/s, 5.0 s, ETA 4:05\n");
  progress.update(counts(9), seconds(134));
  EXPECT_EQ(take(), "");
  // The rates are those since the last line.
  progress.update(counts(32), seconds(135));
  EXPECT_EQ(take(), "32 of 100 records (32.0 %), in 1,000 tok/s, out 10 tok/s, 35 s, ETA 1:14\n");
  // The last one shows the whole run.
  progress.finish(counts(100), seconds(150));
  EXPECT_EQ(take(), "100 of 100 records (100.0 %), in 2,000 tok/s, out 20 tok/s, 50 s\n");
}

TEST_F(ProgressShown, BarIsRedrawnInPlace) {
  Progress progress = make(ProgressMode::bar);
  progress.update(counts(0), seconds(100));
  EXPECT_EQ(take(), "\r0/100  [................]  0 %\x1b[K");
  progress.update(counts(5), seconds(100) + milliseconds(199));
  EXPECT_EQ(take(), "");
  width_ = 16;
  progress.update(counts(50), seconds(102));
  EXPECT_EQ(take(), "\r50/100  50 %\x1b[K");
  progress.finish(counts(100), seconds(103));
  EXPECT_EQ(take(), "\r100/100  100 %\x1b[K\n");
}

TEST_F(ProgressShown, RatesForgetTheOldPast) {
  Progress progress = make(ProgressMode::bar);
  width_ = 120;
  std::uint64_t done = 0;
  for (int s = 101; s <= 140; ++s) {
    if (s > 120) ++done;  // one record a second from second 120 on
    progress.update(counts(done), seconds(s));
  }
  EXPECT_THAT(shown_.substr(shown_.rfind('\r')), HasSubstr("in 1,000 tok/s"));
}

// They were not done in this run's time.
TEST_F(ProgressShown, RecordsOfEarlierRunsDoNotMakeItFaster) {
  Progress progress = make(ProgressMode::lines);
  ProgressCounts now = counts(60);
  now.records_before = 60;
  progress.update(now, seconds(105));
  EXPECT_EQ(take().find("ETA"), std::string::npos);
  now.records_done = 70;  // ten in 50 s, and thirty are left
  progress.update(now, seconds(150));
  EXPECT_THAT(take(), HasSubstr("70 of 100 records (70.0 %)"));
  now.records_done = 80;
  progress.update(now, seconds(200));
  EXPECT_THAT(take(), HasSubstr("ETA 1:40"));  // twenty in 100 s, and twenty are left
}

TEST_F(ProgressShown, NoneIsSilent) {
  Progress progress = make(ProgressMode::none);
  EXPECT_FALSE(progress.due(seconds(9999)));
  progress.update(counts(1), seconds(9999));
  progress.finish(counts(1), seconds(9999));
  EXPECT_EQ(take(), "");
}

}  // namespace
}  // namespace penstock::jobs
