#include "jobs/job_clock.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "tests/support/fake_commands.hpp"

namespace penstock::jobs {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::system_clock;
using testing::HasSubstr;
using testing::ThrowsMessage;
using tests::FakeCommands;
using tests::Variable;

struct Spelling {
  std::string text;
  milliseconds expected;
};

class DurationTest : public testing::TestWithParam<Spelling> {};

TEST_P(DurationTest, IsRead) { EXPECT_EQ(parse_duration(GetParam().text), GetParam().expected); }

INSTANTIATE_TEST_SUITE_P(
    Spellings, DurationTest,
    testing::Values(Spelling{"90", 90s}, Spelling{"0.5", 500ms}, Spelling{"90s", 90s},
                    Spelling{"90m", 90min}, Spelling{"1.5h", 90min}, Spelling{"2d", 48h},
                    Spelling{"0.001", 1ms}, Spelling{"1:30", 90s}, Spelling{"90:00", 90min},
                    Spelling{"1:30:00", 90min}, Spelling{"00:00:05", 5s}, Spelling{"2-00", 48h},
                    Spelling{"2-12:30", 60h + 30min}, Spelling{"2-00:00:00", 48h},
                    Spelling{"1-02:03:04", 26h + 3min + 4s}, Spelling{"3650d", 24h * 3650}));

class NoDurationTest : public testing::TestWithParam<std::string> {};

TEST_P(NoDurationTest, IsRefused) {
  EXPECT_THROW(parse_duration(GetParam()), std::invalid_argument) << GetParam();
}

INSTANTIATE_TEST_SUITE_P(Texts, NoDurationTest,
                         testing::Values("", "s", "-", ":", "-5", "5-", "5x", "5 s", " 5", "1e3",
                                         "nan", "inf", "0", "0s", "0:00", "0.0001", "1:", ":1",
                                         "1::2", "1:2:3:4", "1-2:3:4:5", "1:-2", "1--2", "1-2-3",
                                         "+5", "1.5:00", "3654d", "9999999999:00",
                                         "999999999-00:00:00", "99999999999999999999", "5\n",
                                         "1:2\n", "0x10"));

TEST(Duration, RefusalShowsWhatCanBeWritten) {
  EXPECT_THAT([] { parse_duration("soon"); },
              ThrowsMessage<std::invalid_argument>(
                  testing::AllOf(HasSubstr("'soon'"), HasSubstr("90m"), HasSubstr("1:30:00"))));
  EXPECT_THAT([] { parse_duration("0"); },
              ThrowsMessage<std::invalid_argument>(HasSubstr("out of range")));
}

TEST(JobEnd, IsTurnedToTheSteadyClockOnce) {
  const Clock::time_point now(1000s);
  const system_clock::time_point shown(5'000'000s);
  EXPECT_EQ(to_steady(shown + 90s, shown, now), now + 90s);
  EXPECT_EQ(to_steady(shown - 90s, shown, now), now - 90s);
}

// As Slurm 22.05.8 printed it under SLURM_TIME_FORMAT=%s, shortened.
constexpr const char* kShow =
    "JobId=17 JobName=j.sh UserId=root(0) Requeue=1 Restarts=0 RunTime=00:00:00 TimeLimit=00:05:00 "
    "TimeMin=N/A StartTime=1795454931 EndTime=1795455231 Deadline=N/A SuspendTime=None Power= \n";

TEST(ScontrolEnd, IsRead) {
  EXPECT_EQ(parse_scontrol_end("17", kShow), system_clock::time_point(1795455231s));
}

TEST(ScontrolEnd, OfAnArrayIsTheOwnTasks) {
  const std::string show =
      "JobId=18 ArrayJobId=17 ArrayTaskId=1 EndTime=1700000001 Deadline=N/A\n"
      "JobId=17 ArrayJobId=17 ArrayTaskId=2 EndTime=1700000002 Deadline=N/A\n";
  EXPECT_EQ(parse_scontrol_end("17", show), system_clock::time_point(1700000002s));
  EXPECT_EQ(parse_scontrol_end("18", show), system_clock::time_point(1700000001s));
  EXPECT_FALSE(parse_scontrol_end("1", show));
}

TEST(ScontrolEnd, OfAnythingElseIsUnknown) {
  for (const char* text :
       {"", "\n", "JobId=17", "JobId=17 ", "JobId=17 EndTime=", "JobId=17 EndTime=Unknown X=1",
        "JobId=17 EndTime=2026-11-23T17:33:51 X=1", "JobId=17 EndTime=-5", "JobId=17 EndTime=0",
        "JobId=17 EndTime=99999999999999999999", "JobId=17 EndTime=9999999999999",
        "JobId=17 TheEndTime=1700000000", "slurm_load_jobs error: Invalid job id specified"}) {
    EXPECT_FALSE(parse_scontrol_end("17", text)) << text;
  }
}

TEST(JobEnd, OfTheTimeLimitCountsFromTheStart) {
  const Variable end("SLURM_JOB_END_TIME", "4000000000");
  const Clock::time_point start(1000s);
  const auto found = find_job_end(90s, start);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->end, start + 90s);
  EXPECT_EQ(found->source, "--time-limit");
}

// How far an end is away, as the system's clock has it.
double seconds_left(const std::optional<JobEnd>& end) {
  return end ? std::chrono::duration<double>(end->end - Clock::now()).count() : -1;
}

std::string unix_time_in(std::chrono::seconds ahead) {
  return std::to_string(system_clock::to_time_t(system_clock::now() + ahead));
}

TEST(JobEnd, OfSlurmsEnvironmentIsTaken) {
  const FakeCommands commands;  // no scontrol
  const Variable end("SLURM_JOB_END_TIME", unix_time_in(1h));
  const auto found = find_job_end({}, Clock::now());
  EXPECT_NEAR(seconds_left(found), 3600, 60);
  EXPECT_EQ(found->source, "SLURM_JOB_END_TIME");
}

TEST(JobEnd, IsAskedOfScontrolWhereTheEnvironmentDoesNotSay) {
  const FakeCommands commands;
  commands.add("scontrol", R"([ "$*" = "show job -o 17" ] && [ "$SLURM_TIME_FORMAT" = %s ] || exit 3
echo "JobId=17 JobName=a EndTime=)" +
                               unix_time_in(2h) + R"( Deadline=N/A")");
  const Variable job("SLURM_JOB_ID", "17");
  const Variable none("SLURM_JOB_END_TIME");
  const auto found = find_job_end({}, Clock::now());
  EXPECT_NEAR(seconds_left(found), 7200, 60);
  EXPECT_EQ(found->source, "scontrol show job 17");
  // What was inherited from a job that is over tells nothing.
  const Variable past("SLURM_JOB_END_TIME", unix_time_in(-1h));
  EXPECT_NEAR(seconds_left(find_job_end({}, Clock::now())), 7200, 60);
}

TEST(JobEnd, IsUnknownOutsideSlurmAndWhereScontrolFails) {
  const FakeCommands commands;
  const Variable none("SLURM_JOB_END_TIME");
  {
    commands.add("scontrol", "echo JobId=17 EndTime=4000000000");
    const Variable no_job("SLURM_JOB_ID");
    EXPECT_FALSE(find_job_end({}, Clock::now()));
    const Variable rubbish("SLURM_JOB_ID", "17; true");
    EXPECT_FALSE(find_job_end({}, Clock::now()));
  }
  commands.add("scontrol", "echo JobId=17 EndTime=4000000000; exit 1");
  const Variable job("SLURM_JOB_ID", "17");
  EXPECT_FALSE(find_job_end({}, Clock::now()));
}

// The end is at 1000 s, the margin 60 s.
class DrainClockTest : public testing::Test {
 protected:
  static Clock::time_point at(double seconds) {
    return Clock::time_point(
        std::chrono::duration_cast<nanoseconds>(std::chrono::duration<double>(seconds)));
  }
  static JobEnd end_at(double seconds) { return {at(seconds), "--time-limit"}; }

  DrainClock clock_{end_at(1000), 60s, at(0)};
  DrainClock endless_{std::nullopt, 60s, at(0)};
};

using enum StopRequest;

TEST_F(DrainClockTest, AdmitsWhileWhatIsInFlightFits) {
  EXPECT_EQ(clock_.pace(at(0), none, 0s), Pace::admit);
  EXPECT_EQ(clock_.pace(at(839), none, 100s), Pace::admit);
  EXPECT_EQ(clock_.reason(), "");
  EXPECT_EQ(clock_.pace(at(840), none, 100s), Pace::drain);
  EXPECT_EQ(clock_.reason(), "the time limit comes near (--time-limit)");
  EXPECT_EQ(clock_.pace(at(841), none, 90s), Pace::drain);  // does not change its mind for 9 s
}

TEST_F(DrainClockTest, AdmitsAgainWhereThePredictionWasMuchTooLong) {
  EXPECT_EQ(clock_.pace(at(500), none, 500s), Pace::drain);
  EXPECT_EQ(clock_.pace(at(600), none, 300s), Pace::drain);  // 340 s are left: too close to tell
  EXPECT_EQ(clock_.pace(at(600), none, 200s), Pace::admit);
  EXPECT_EQ(clock_.pace(at(800), none, 150s), Pace::drain);
}

TEST_F(DrainClockTest, StopsAMarginBeforeTheEnd) {
  EXPECT_EQ(clock_.deadline(), at(940));
  EXPECT_EQ(clock_.pace(at(939.9), none, 500s), Pace::drain);
  EXPECT_EQ(clock_.pace(at(940), none, 500s), Pace::stop);
  EXPECT_EQ(clock_.pace(at(941), none, 0s), Pace::stop);
}

TEST_F(DrainClockTest, WithoutAnEndAndARequestAdmitsForEver) {
  EXPECT_EQ(endless_.deadline(), std::nullopt);
  EXPECT_EQ(endless_.pace(at(1e9), none, 1h), Pace::admit);
}

TEST_F(DrainClockTest, HugeAndNegativePredictionsDoNotOverflow) {
  EXPECT_EQ(clock_.pace(at(0), none, nanoseconds::min()), Pace::admit);
  EXPECT_EQ(clock_.pace(at(0), none, nanoseconds::max()), Pace::drain);
  EXPECT_EQ(endless_.pace(at(0), none, nanoseconds::max()), Pace::admit);
}

TEST_F(DrainClockTest, DrainsAtOnceOnRequest) {
  for (const StopRequest request : {drain, terminate}) {
    DrainClock clock(end_at(1000), 60s, at(0));
    EXPECT_EQ(clock.pace(at(10), request, 0s), Pace::drain);
    // The request stays, whatever is asked next.
    EXPECT_EQ(clock.pace(at(11), none, 0s), Pace::drain);
    EXPECT_EQ(clock.pace(at(939), request, 0s), Pace::drain);
    EXPECT_EQ(clock.pace(at(940), request, 0s), Pace::stop);
  }
}

TEST_F(DrainClockTest, RequestWithoutAnEndGivesOneMargin) {
  EXPECT_EQ(endless_.pace(at(100), drain, 1h), Pace::drain);
  EXPECT_EQ(endless_.deadline(), at(160));
  EXPECT_EQ(endless_.pace(at(150), terminate, 1h), Pace::drain);  // does not begin anew
  EXPECT_EQ(endless_.pace(at(160), terminate, 1h), Pace::stop);
}

TEST_F(DrainClockTest, StopsAtOnceWhereThatIsAsked) {
  EXPECT_EQ(clock_.pace(at(10), stop_now, 0s), Pace::stop);
  EXPECT_EQ(endless_.pace(at(10), stop_now, 0s), Pace::stop);
  EXPECT_EQ(endless_.reason(), "a second SIGINT came");
}

TEST_F(DrainClockTest, NamesTheRequest) {
  EXPECT_EQ(clock_.pace(at(10), drain, 0s), Pace::drain);
  EXPECT_EQ(clock_.reason(), "SIGUSR1 or SIGUSR2 came");
  EXPECT_EQ(clock_.pace(at(11), terminate, 0s), Pace::drain);
  EXPECT_EQ(clock_.reason(), "SIGTERM or SIGINT came");
}

TEST_F(DrainClockTest, MarginIsATenthOfAShortLimit) {
  EXPECT_EQ(DrainClock(end_at(100), 60s, at(0)).deadline(), at(90));
  EXPECT_EQ(DrainClock(end_at(600), 60s, at(0)).deadline(), at(540));
  EXPECT_EQ(DrainClock(end_at(100), 60s, at(90)).deadline(), at(99));
  EXPECT_EQ(DrainClock(end_at(100), 0s, at(0)).deadline(), at(100));
}

TEST_F(DrainClockTest, EndInThePastStops) {
  DrainClock clock(end_at(10), 60s, at(20));
  EXPECT_EQ(clock.pace(at(20), none, 0s), Pace::stop);
}

// A clock whose end can be asked for; the test answers.
class AskAgainTest : public DrainClockTest {
 protected:
  void answer(std::optional<JobEnd> end) { promise_.set_value(std::move(end)); }

  int asked_ = 0;
  std::promise<std::optional<JobEnd>> promise_;
  DrainClock clock_{end_at(1000), 60s, at(0), [this] {
                      ++asked_;
                      promise_ = {};
                      return promise_.get_future();
                    }};
};

TEST_F(AskAgainTest, AsksOnceShortlyBeforeTheDrain) {
  EXPECT_EQ(clock_.pace(at(824), none, 100s), Pace::admit);
  EXPECT_EQ(asked_, 0);
  EXPECT_EQ(clock_.pace(at(825), none, 100s), Pace::admit);
  EXPECT_EQ(asked_, 1);
  answer(end_at(1001));  // whole seconds are no news
  EXPECT_EQ(clock_.pace(at(840), none, 100s), Pace::drain);
  EXPECT_EQ(clock_.pace(at(939), none, 1s), Pace::drain);
  EXPECT_EQ(asked_, 1);
  EXPECT_EQ(clock_.deadline(), at(940));
}

TEST_F(AskAgainTest, AnExtendedLimitIsUsed) {
  clock_.pace(at(825), none, 100s);
  answer(end_at(2000));
  EXPECT_EQ(clock_.pace(at(840), none, 100s), Pace::admit);
  EXPECT_EQ(clock_.deadline(), at(1940));
  EXPECT_EQ(clock_.pace(at(1830), none, 100s), Pace::admit);
  EXPECT_EQ(asked_, 2);  // it may move again
  EXPECT_EQ(clock_.pace(at(1840), none, 100s), Pace::drain);
  EXPECT_EQ(clock_.pace(at(1940), none, 100s), Pace::stop);
}

TEST_F(AskAgainTest, ALateAnswerEndsTheDrain) {
  clock_.pace(at(835), none, 100s);
  EXPECT_EQ(clock_.pace(at(840), none, 100s), Pace::drain);
  answer(end_at(2000));
  EXPECT_EQ(clock_.pace(at(841), none, 100s), Pace::admit);
}

TEST_F(AskAgainTest, ButNotOneThatWasRequested) {
  clock_.pace(at(835), none, 100s);
  EXPECT_EQ(clock_.pace(at(840), drain, 100s), Pace::drain);
  answer(end_at(2000));
  EXPECT_EQ(clock_.pace(at(841), none, 100s), Pace::drain);
  EXPECT_EQ(clock_.deadline(), at(1940));  // it has more time
}

TEST_F(AskAgainTest, AShortenedLimitCounts) {
  clock_.pace(at(825), none, 100s);
  answer(end_at(900));
  EXPECT_EQ(clock_.pace(at(826), none, 0s), Pace::admit);
  EXPECT_EQ(clock_.deadline(), at(840));
  EXPECT_EQ(clock_.pace(at(840), none, 0s), Pace::stop);
}

TEST_F(AskAgainTest, NoAnswerLeavesTheEndAsItWas) {
  clock_.pace(at(825), none, 100s);
  answer(std::nullopt);
  EXPECT_EQ(clock_.pace(at(840), none, 100s), Pace::drain);
  EXPECT_EQ(clock_.deadline(), at(940));
  EXPECT_EQ(asked_, 1);
}

TEST(MakeDrainClock, AsksScontrolWhereTheEndIsSlurms) {
  const FakeCommands commands;
  commands.add("scontrol", "echo JobId=17 EndTime=" + unix_time_in(2h));
  const Variable job("SLURM_JOB_ID", "17");
  const Variable end("SLURM_JOB_END_TIME", unix_time_in(1h));
  const Clock::time_point now = Clock::now();
  DrainClock clock = make_drain_clock({}, 60s, now);
  EXPECT_EQ(clock.end()->source, "SLURM_JOB_END_TIME");
  clock.pace(now, none, 1h);
  const Clock::time_point limit = now + 60s;
  while (clock.end()->source != "scontrol show job 17" && Clock::now() < limit) {
    clock.pace(now, none, 0s);
  }
  EXPECT_NEAR(seconds_left(clock.end()), 7200, 60);
  // The user's word is not asked for again.
  DrainClock own = make_drain_clock(1h, 60s, now);
  own.pace(now, none, 1h);
  own.pace(now, none, 0s);
  EXPECT_EQ(own.end()->source, "--time-limit");
  EXPECT_EQ(own.end()->end, now + 1h);
}

}  // namespace
}  // namespace penstock::jobs
