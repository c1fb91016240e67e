#include "jobs/replica_share.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "comm/error.hpp"
#include "jobs/replica_status.hpp"

namespace penstock::jobs {
namespace {

using testing::ElementsAre;
using testing::Pair;
using testing::UnorderedElementsAre;

io::RecordSet finished_of(const RecordRange& range, const std::vector<std::uint64_t>& records) {
  io::RecordSet set(range.first, range.end);
  for (const std::uint64_t record : records) set.insert(record);
  return set;
}

// The shares' ranges, as text: "10-14 14-20".
std::string ranges_of(const std::vector<ReplicaShare>& shares) {
  std::string text;
  for (const ReplicaShare& share : shares) {
    text += (text.empty() ? "" : " ") + std::to_string(share.range.first) + "-" +
            std::to_string(share.range.end);
  }
  return text;
}

TEST(SplitJob, EqualSharesOfANewJob) {
  const auto ranges = [](const RecordRange& range, int replicas) {
    return ranges_of(split_job(range, finished_of(range, {}), {}, replicas));
  };
  EXPECT_EQ(ranges({0, 12}, 1), "0-12");
  EXPECT_EQ(ranges({0, 12}, 3), "0-4 4-8 8-12");
  EXPECT_EQ(ranges({100, 110}, 4), "100-102 102-105 105-107 107-110");
  EXPECT_EQ(ranges({0, 2}, 4), "0-0 0-1 1-1 1-2");  // some have nothing to do
  EXPECT_EQ(ranges({7, 7}, 2), "7-7 7-7");
}

TEST(SplitJob, EqualSharesOfWhatIsLeft) {
  const RecordRange range{0, 12};
  // Left: 0, 7, 8, 9, 10, 11.
  const auto shares = split_job(range, finished_of(range, {1, 2, 3, 4, 5, 6}), {}, 2);
  EXPECT_EQ(ranges_of(shares), "0-9 9-12");
  EXPECT_EQ(shares[0].finished.size(), 6U);
  EXPECT_EQ(shares[1].finished.size(), 0U);
  EXPECT_TRUE(shares[0].finished.contains(6));
  EXPECT_FALSE(shares[0].finished.contains(7));
}

TEST(SplitJob, EachRecordHasOneOwner) {
  const RecordRange range{5, 205};
  for (const int replicas : {1, 2, 3, 7, 64, 300}) {
    std::vector<std::uint64_t> done;
    for (std::uint64_t record = 5; record < 205; record += 1 + record % 3) done.push_back(record);
    const auto shares = split_job(range, finished_of(range, done), {}, replicas);
    ASSERT_EQ(shares.size(), static_cast<std::size_t>(replicas));
    std::uint64_t next = 5;
    std::uint64_t most = 0;
    std::uint64_t least = 200;
    std::uint64_t finished = 0;
    for (const ReplicaShare& share : shares) {
      EXPECT_EQ(share.range.first, next);
      next = share.range.end;
      finished += share.finished.size();
      most = std::max(most, share.range.size() - share.finished.size());
      least = std::min(least, share.range.size() - share.finished.size());
    }
    EXPECT_EQ(next, 205U);
    EXPECT_EQ(finished, done.size());
    EXPECT_LE(most - least, 1U) << replicas;
  }
}

TEST(SplitJob, PartialAnswersGoToTheOwnerAndCountsToTheFirst) {
  const RecordRange range{0, 10};
  EarlierWork earlier;
  earlier.answered = 3;
  earlier.failed = 1;
  earlier.partial = {{1, {5, 6}}, {5, {7}}, {9, {8, 9, 10}}};
  const auto shares = split_job(range, finished_of(range, {0, 2, 3, 4}), std::move(earlier), 3);
  EXPECT_EQ(ranges_of(shares), "0-6 6-8 8-10");
  EXPECT_THAT(shares[0].earlier.partial,
              UnorderedElementsAre(Pair(1, ElementsAre(5, 6)), Pair(5, ElementsAre(7))));
  EXPECT_THAT(shares[1].earlier.partial, testing::IsEmpty());
  EXPECT_THAT(shares[2].earlier.partial, ElementsAre(Pair(9, ElementsAre(8, 9, 10))));
  EXPECT_EQ(shares[0].earlier.answered, 3U);
  EXPECT_EQ(shares[0].earlier.failed, 1U);
  EXPECT_EQ(shares[1].earlier.answered + shares[2].earlier.answered, 0U);
}

ShareMessage sample_share() {
  ShareMessage message;
  message.share.range = {100, 119};
  message.share.finished = finished_of(message.share.range, {100, 107, 108, 118});
  message.share.earlier.failed = 2;
  message.share.earlier.partial = {{101, {1, 2, 3}}, {117, {70'000}}, {110, {}}};
  message.index_xxh3 = "aa00";
  message.format = io::InputFormat::text;
  message.parameters = {{"temperature", 0.7}, {"stop", {"a", "b"}}};
  return message;
}

TEST(ShareMessage, ArrivesAsItWasSent) {
  const ShareMessage sent = sample_share();
  const ShareMessage came = parse_share(share_message(sent));
  EXPECT_EQ(came.share.range.first, 100U);
  EXPECT_EQ(came.share.range.end, 119U);
  EXPECT_EQ(came.share.finished.size(), 4U);
  for (const std::uint64_t record : {100, 107, 108, 118}) {
    EXPECT_TRUE(came.share.finished.contains(record)) << record;
  }
  EXPECT_EQ(came.share.earlier.partial, sent.share.earlier.partial);
  EXPECT_EQ(came.share.earlier.failed, 2U);
  EXPECT_EQ(came.index_xxh3, "aa00");
  EXPECT_EQ(came.format, io::InputFormat::text);
  EXPECT_EQ(came.parameters, sent.parameters);
}

TEST(ShareMessage, OneThatIsCutAnywhereIsRefused) {
  const std::vector<std::byte> whole = share_message(sample_share());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(parse_share(std::span(whole).first(size)), comm::CommError) << size;
  }
}

TEST(ReplicaStatus, ArrivesAsItWasSent) {
  ReplicaStatus sent;
  sent.counts = {10, 2, 33};
  sent.tokens_in = 1000;
  sent.tokens_out = 500;
  sent.busy = {0.5, 0.25};
  sent.done = true;
  sent.reason = "SIGUSR1 or SIGUSR2 came";
  sent.failures = {"record 7", "bad \xff bytes"};
  sent.totals = {{5, 6, 7, 8}, 9.5, {}, {}, {{LedgerTotals{{1, 2, 3, 4, 5, 6}}, {}, {7, 8, 9.5}}}};
  const ReplicaStatus came = parse_status(to_bytes(sent));
  EXPECT_EQ(came.counts.answered, 10U);
  EXPECT_EQ(came.counts.failed, 2U);
  EXPECT_EQ(came.counts.partial_tokens, 33U);
  EXPECT_EQ(came.tokens_in, 1000U);
  EXPECT_EQ(came.tokens_out, 500U);
  EXPECT_EQ(came.busy, sent.busy);
  EXPECT_TRUE(came.done);
  EXPECT_EQ(came.reason, sent.reason);
  EXPECT_THAT(came.failures, ElementsAre("record 7", "bad \xEF\xBF\xBD bytes"));
  EXPECT_EQ(came.totals.steps, 5U);
  EXPECT_EQ(came.totals.prompt_tokens, 6U);
  EXPECT_EQ(came.totals.generated_tokens, 7U);
  EXPECT_EQ(came.totals.evictions, 8U);
  EXPECT_EQ(came.totals.seconds, 9.5);
  ASSERT_EQ(came.totals.stages.size(), 1U);
  EXPECT_EQ(came.totals.stages[0].totals.seconds, sent.totals.stages[0].totals.seconds);
  EXPECT_EQ(came.totals.stages[0].process.peak_memory_bytes, 7U);
  EXPECT_EQ(came.totals.stages[0].process.open_files, 8U);
  EXPECT_EQ(came.totals.stages[0].process.thread_seconds, 9.5);
  const std::string broken = "{\"done\": 1}";
  EXPECT_THROW(parse_status(std::as_bytes(std::span(broken))), comm::CommError);
}

}  // namespace
}  // namespace penstock::jobs
