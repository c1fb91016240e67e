#include "jobs/record_order.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/support/uniform.hpp"

namespace penstock::jobs {
namespace {

using tests::Uniform;

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Lt;

constexpr std::uint32_t kMost = 100;  // tokens of any answer

std::vector<std::uint32_t> rest(RecordOrder& order) {
  std::vector<std::uint32_t> positions;
  while (const auto next = order.next()) positions.push_back(next->position);
  return positions;
}

std::vector<std::uint32_t> order_of(const std::vector<RecordFacts>& window) {
  RecordOrder order;
  order.begin(window);
  return rest(order);
}

TEST(RecordOrder, LongestLinesFirst) {
  EXPECT_THAT(order_of({{5, kMost, 1}, {9, kMost, 2}, {7, kMost, 3}}), ElementsAre(1, 2, 0));
  EXPECT_THAT(order_of({}), IsEmpty());
}

TEST(RecordOrder, TiesInInputOrder) {
  EXPECT_THAT(order_of({{5, kMost, 9}, {5, kMost, 3}, {5, kMost, 7}}), ElementsAre(0, 1, 2));
}

TEST(RecordOrder, EqualPrefixesTogether) {
  // The group of prefix 4 is placed by its longest record, 8.
  EXPECT_THAT(order_of({{3, kMost, 4}, {7, kMost, 5}, {8, kMost, 4}, {9, kMost, 6}, {1, kMost, 4}}),
              ElementsAre(3, 2, 0, 4, 1));
}

TEST(RecordOrder, GroupsOfEqualLengthDoNotMix) {
  EXPECT_THAT(order_of({{8, kMost, 2}, {8, kMost, 1}, {3, kMost, 1}, {3, kMost, 2}, {8, kMost, 2}}),
              ElementsAre(0, 4, 3, 1, 2));
}

// A token of an answer takes as long as 512 bytes of a prompt.
TEST(RecordOrder, LongestAnswersFirst) {
  EXPECT_THAT(order_of({{50, 10, 1}, {50, 300, 2}, {5000, 20, 3}, {50, 20, 4}}),
              ElementsAre(1, 2, 3, 0));
  EXPECT_THAT(order_of({{1024, 10, 1}, {513, 11, 2}}), ElementsAre(1, 0));
  EXPECT_THAT(order_of({{1024, 10, 1}, {511, 11, 2}}), ElementsAre(0, 1));
}

TEST(RecordOrder, LongestAnswersFirstInAGroup) {
  EXPECT_THAT(order_of({{60, 10, 1}, {50, 300, 1}, {40, 20, 1}, {90, 200, 2}}),
              ElementsAre(1, 2, 0, 3));
}

TEST(RecordOrder, WindowsOneByOne) {
  RecordOrder order;
  order.begin({{1, kMost, 1}, {2, kMost, 2}});
  EXPECT_THAT(rest(order), ElementsAre(1, 0));
  EXPECT_EQ(order.next(), std::nullopt);
  order.begin({{1, kMost, 1}, {2, kMost, 1}, {3, kMost, 1}});
  EXPECT_THAT(rest(order), ElementsAre(2, 1, 0));
}

// Three groups that begin equally long. Answers of the first are short, of the second nothing is
// known, the third's are long.
class Learning : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kGroup = 200;  // records
  std::vector<RecordFacts> window() const {
    std::vector<RecordFacts> records;
    for (std::uint32_t prefix = 0; prefix < 3; ++prefix) {
      for (std::uint32_t i = 0; i < kGroup; ++i) records.push_back({40, kMost, prefix});
    }
    return records;
  }
  static std::vector<std::uint32_t> groups(const std::vector<std::uint32_t>& positions) {
    std::vector<std::uint32_t> order;
    for (const std::uint32_t position : positions) {
      if (order.empty() || order.back() != position / kGroup) order.push_back(position / kGroup);
    }
    return order;
  }
  RecordOrder order_;
};

TEST_F(Learning, OfALaterWindow) {
  order_.begin(window());
  std::map<std::uint32_t, RecordKind> kinds;
  while (const auto next = order_.next()) kinds[next->position / kGroup] = next->kind;
  for (int i = 0; i < 50; ++i) {
    order_.learn(kinds[0], kMost, 5, true);
    order_.learn(kinds[2], kMost, 80, true);
  }
  order_.begin(window());
  EXPECT_THAT(groups(rest(order_)), ElementsAre(1, 2, 0));
}

TEST_F(Learning, OfTheRestOfTheWindow) {
  order_.begin(window());
  for (int i = 0; i < 10; ++i) {
    const RecordOrder::Next next = *order_.next();
    EXPECT_LT(next.position, kGroup);
    order_.learn(next.kind, kMost, 5, true);
  }
  // All others first, then what is left of the short ones.
  const std::vector<std::uint32_t> positions = rest(order_);
  EXPECT_EQ(positions.size(), 3 * kGroup - 10);
  EXPECT_THAT(groups(positions), ElementsAre(0, 1, 2, 0));
  EXPECT_THAT(std::count_if(positions.begin(), positions.begin() + 100,
                            [](std::uint32_t position) { return position < kGroup; }),
              Lt(100));
}

// Those that are complete are the short ones: what is under way counts as well.
TEST_F(Learning, OfAnswersUnderWay) {
  order_.begin(window());
  std::map<std::uint32_t, RecordKind> kinds;
  while (const auto next = order_.next()) kinds[next->position / kGroup] = next->kind;
  for (const std::uint32_t group : {0, 1, 2}) order_.learn(kinds[group], kMost, 5, true);
  for (int i = 0; i < 20; ++i) order_.learn(kinds[1], kMost, 60, false);
  for (int i = 0; i < 20; ++i) order_.learn(kinds[2], kMost, 2, false);
  order_.begin(window());
  EXPECT_THAT(groups(rest(order_)), ElementsAre(1, 2, 0));
}

TEST(RecordOrder, RecordsWithoutAGroupAreToldApartBySize) {
  // Long prompts have short answers here.
  std::vector<RecordFacts> window;
  for (std::uint32_t i = 0; i < 100; ++i) window.push_back({i % 2 == 0 ? 40U : 4000U, kMost, i});
  RecordOrder order;
  order.begin(window);
  EXPECT_EQ(order.next()->position, 1U);
  while (const auto next = order.next()) {
    for (int i = 0; i < 20; ++i) order.learn(next->kind, kMost, next->position % 2 ? 2 : 90, true);
  }
  order.begin(window);
  const std::vector<std::uint32_t> positions = rest(order);
  EXPECT_TRUE(std::all_of(positions.begin(), positions.begin() + 50,
                          [](std::uint32_t position) { return position % 2 == 0; }));
}

// A schedule in its simplest form: so many places, each held for a round a token and a round for
// 128 tokens of the prompt.
struct Record {
  RecordFacts facts;
  std::uint32_t answer = 1;  // tokens
};
using Give = std::function<std::optional<RecordOrder::Next>()>;

std::uint64_t rounds(const std::vector<Record>& records, const Give& give, RecordOrder* learning) {
  constexpr std::size_t kPlaces = 256;
  struct Place {
    RecordOrder::Next given;
    std::uint32_t prompt_rounds = 0;
    std::uint32_t tokens = 0;
  };
  std::vector<Place> places;
  for (std::uint64_t round = 0;; ++round) {
    while (places.size() < kPlaces) {
      const auto next = give();
      if (!next) break;
      places.push_back({*next, records[next->position].facts.line_bytes / 512});
    }
    if (places.empty()) return round;
    std::erase_if(places, [&](Place& place) {
      if (place.prompt_rounds > 0) {
        --place.prompt_rounds;
        return false;
      }
      const Record& record = records[place.given.position];
      const bool complete = ++place.tokens == record.answer;
      if (learning != nullptr) {
        learning->learn(place.given.kind, record.facts.max_tokens, 1, complete);
      }
      return complete;
    });
  }
}

std::uint64_t rounds_first_come(const std::vector<Record>& records) {
  std::uint32_t next = 0;
  return rounds(
      records,
      [&]() -> std::optional<RecordOrder::Next> {
        if (next == records.size()) return std::nullopt;
        return RecordOrder::Next{next++, 0};
      },
      nullptr);
}

std::uint64_t rounds_ordered(const std::vector<Record>& records) {
  RecordOrder order;
  std::vector<RecordFacts> window;
  for (const Record& record : records) window.push_back(record.facts);
  order.begin(window);
  return rounds(
      records, [&] { return order.next(); }, &order);
}

// Zipf's law: a length is as likely as it is short, here from 1 to 4096.
std::uint32_t zipf(double uniform) {
  return std::min(4096U, static_cast<std::uint32_t>(std::pow(4097.0, uniform)));
}

TEST(RecordOrder, BeatsFirstComeWhereLengthsAreKnown) {
  Uniform uniform;
  std::vector<Record> records;
  std::uint64_t tokens = 0;
  for (std::uint32_t i = 0; i < 5000; ++i) {
    const std::uint32_t answer = zipf(uniform());
    records.push_back({{static_cast<std::uint32_t>(200 + 2000 * uniform()), answer, i}, answer});
    tokens += answer;
  }
  const std::uint64_t ordered = rounds_ordered(records);
  EXPECT_LT(ordered, rounds_first_come(records));
  // No place is ever empty but at the very end: the prompts take four rounds each at most.
  EXPECT_LT(ordered, (tokens + 4 * records.size()) / 256 + 100);
}

TEST(RecordOrder, BeatsFirstComeWhereLengthsAreLearnt) {
  Uniform uniform;
  std::vector<Record> records;
  for (std::uint32_t i = 0; i < 5000; ++i) {
    const auto prefix = static_cast<std::uint32_t>(16 * uniform());
    const double longest = zipf((prefix + 1) / 17.0);
    records.push_back({{300, 4096, prefix}, static_cast<std::uint32_t>(1 + longest * uniform())});
  }
  EXPECT_LT(rounds_ordered(records), rounds_first_come(records));
}

}  // namespace
}  // namespace penstock::jobs
