#include "jobs/messages.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "comm/error.hpp"
#include "model/error.hpp"

namespace penstock::jobs {
namespace {

using Bytes = std::vector<std::byte>;

Bytes first_bytes(const Bytes& bytes, std::size_t size) {
  return {bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size)};
}

StageTimes some_times(std::size_t marks) {
  StageTimes times;
  double value = 0.1;  // no short binary fraction
  const auto fill = [&](LedgerTotals& totals) {
    for (double& seconds : totals.seconds) seconds = value *= 3.7;
  };
  fill(times.totals);
  times.marks.resize(marks);
  for (LedgerTotals& mark : times.marks) fill(mark);
  times.process = {1ull << 40, 1000, value *= 3.7};
  return times;
}

TEST(Messages, EachHasItsKind) {
  EXPECT_EQ(kind_of(plan_message({}, {})), MessageKind::plan);
  EXPECT_EQ(kind_of(tokens_message(0, {}, {})), MessageKind::tokens);
  EXPECT_EQ(kind_of(signal_message(MessageKind::mark)), MessageKind::mark);
  EXPECT_EQ(kind_of(signal_message(MessageKind::stop)), MessageKind::stop);
  EXPECT_EQ(kind_of(signal_message(MessageKind::all_over)), MessageKind::all_over);
  EXPECT_EQ(kind_of(times_message(MessageKind::status, {})), MessageKind::status);
  EXPECT_EQ(kind_of(times_message(MessageKind::stopped, {})), MessageKind::stopped);
}

TEST(Messages, EmptyAndUnknownAreRefused) {
  EXPECT_THROW(kind_of({}), comm::CommError);
  for (int kind = 8; kind < 256; ++kind) {
    EXPECT_THROW(kind_of(Bytes{static_cast<std::byte>(kind), std::byte{0}}), comm::CommError);
  }
}

TEST(Messages, PlansComeBack) {
  model::StepPlan plan;
  plan.step = 1ull << 40;
  plan.slot = 3;
  plan.tokens = {1, 2, 3};
  plan.sequences = {{9, 0, 3, 30, 0, 2, true}};
  plan.block_table = {7, 8};
  plan.retired = {4};
  plan.draining = true;
  plan.admitted = {{9, 1ull << 35, {}, {1, 2, 3, 4}, 4}};
  const Bytes message = plan_message(plan, Ledger::Time(77));
  const PlanMessage parsed = parse_plan(message);
  EXPECT_EQ(parsed.arrival, Ledger::Time(77));
  const model::StepPlan& back = parsed.plan;
  EXPECT_EQ(back.step, plan.step);
  EXPECT_EQ(back.tokens, plan.tokens);
  EXPECT_EQ(back.retired, plan.retired);
  EXPECT_TRUE(back.draining);
  ASSERT_EQ(back.sequences.size(), 1u);
  EXPECT_EQ(back.sequences[0].position, 30u);
  ASSERT_EQ(back.admitted.size(), 1u);
  EXPECT_EQ(back.admitted[0].record, 1ull << 35);
  for (std::size_t size = 1; size < message.size(); ++size) {
    EXPECT_THROW(parse_plan(first_bytes(message, size)), model::ModelError) << size;
  }
}

TEST(Messages, TokensComeBack) {
  constexpr std::int32_t kMost = std::numeric_limits<std::int32_t>::max();
  for (const std::vector<std::int32_t>& ids :
       {std::vector<std::int32_t>{}, {5}, {0, 1, kMost, 128255}}) {
    const Bytes message = tokens_message(0xfedcba9876543210ull, Ledger::Time(1234567890123), ids);
    const Tokens back = parse_tokens(message);
    EXPECT_EQ(back.step, 0xfedcba9876543210ull);
    EXPECT_EQ(back.ids, ids);
    // A cut between two ids cannot be seen here: the driver compares the number with the plan's.
    for (std::size_t size = 1; size < message.size(); ++size) {
      const Bytes cut = first_bytes(message, size);
      if (size >= 17 && (size - 17) % 4 == 0) {
        EXPECT_EQ(parse_tokens(cut).ids.size(), (size - 17) / 4);
      } else {
        EXPECT_THROW(parse_tokens(cut), comm::CommError) << size;
      }
    }
  }
}

TEST(Messages, TimesComeBackToTheLastBit) {
  for (const std::size_t marks : {0u, 1u, 2u}) {
    const StageTimes times = some_times(marks);
    for (const MessageKind kind : {MessageKind::status, MessageKind::stopped}) {
      const Bytes message = times_message(kind, times);
      const StageTimes back = parse_times(message);
      EXPECT_EQ(back.totals.seconds, times.totals.seconds);
      ASSERT_EQ(back.marks.size(), marks);
      for (std::size_t i = 0; i < marks; ++i) {
        EXPECT_EQ(back.marks[i].seconds, times.marks[i].seconds);
      }
      EXPECT_EQ(back.process.peak_memory_bytes, times.process.peak_memory_bytes);
      EXPECT_EQ(back.process.open_files, times.process.open_files);
      EXPECT_EQ(back.process.thread_seconds, times.process.thread_seconds);
      for (std::size_t size = 1; size < message.size(); ++size) {
        EXPECT_THROW(parse_times(first_bytes(message, size)), comm::CommError) << size;
      }
    }
  }
}

TEST(Messages, BrokenTimesAreRefused) {
  for (const std::string_view text :
       {"", "[]", "{}", "{\"totals\":{},\"marks\":[]}", "{\"totals\":null,\"marks\":[]}",
        "{\"totals\":{},\"marks\":[],\"process\":{}}", "\xff"}) {
    Bytes message = signal_message(MessageKind::status);
    for (const char c : text) message.push_back(static_cast<std::byte>(c));
    EXPECT_THROW(parse_times(message), comm::CommError) << text;
  }
}

TEST(Messages, StopRequestsComeBack) {
  for (const StopRequest request :
       {StopRequest::none, StopRequest::drain, StopRequest::terminate, StopRequest::stop_now}) {
    const Bytes message = stop_request_message(request);
    EXPECT_EQ(kind_of(message), MessageKind::stop_request);
    EXPECT_EQ(parse_stop_request(message), request);
  }
}

TEST(Messages, BrokenStopRequestsAreRefused) {
  Bytes message = stop_request_message(StopRequest::stop_now);
  EXPECT_THROW(parse_stop_request(first_bytes(message, 1)), comm::CommError);
  message[1] = static_cast<std::byte>(4);  // there are four, from 0
  EXPECT_THROW(parse_stop_request(message), comm::CommError);
  message[1] = static_cast<std::byte>(1);
  message.push_back(static_cast<std::byte>(1));
  EXPECT_THROW(parse_stop_request(message), comm::CommError);
  EXPECT_THROW(parse_stop_request(signal_message(MessageKind::stop)), comm::CommError);
}

TEST(Messages, AnotherKindIsRefused) {
  const Bytes stop = signal_message(MessageKind::stop);
  const Bytes plan = plan_message({}, {});
  EXPECT_THROW(parse_plan(stop), comm::CommError);
  EXPECT_THROW(parse_plan({}), comm::CommError);
  EXPECT_THROW(parse_tokens(plan), comm::CommError);
  EXPECT_THROW(parse_tokens({}), comm::CommError);
  EXPECT_THROW(parse_times(tokens_message(1, {}, {})), comm::CommError);
  EXPECT_THROW(parse_times({}), comm::CommError);
}

}  // namespace
}  // namespace penstock::jobs
