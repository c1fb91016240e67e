#include "model/ops/logit_row.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/model/ops/ops_support.hpp"

namespace penstock::model {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

TEST(Argmax, FindsTheLargestWhereverItIs) {
  on_each_instruction_set([] {
    for (std::size_t count = 1; count < 70; ++count) {
      for (std::size_t at = 0; at < count; ++at) {
        std::vector<float> row(count, -7.0f);
        row[at] = -6.5f;
        ASSERT_EQ(argmax(row), at) << "of " << count;
        row[count - 1] = -6.5f;  // a tie, which the lowest wins
        ASSERT_EQ(argmax(row), at) << "of " << count;
      }
    }
  });
}

TEST(Argmax, TakesNoNaNAndNothingForTheFirst) {
  on_each_instruction_set([] {
    for (std::size_t count = 1; count < 40; ++count) {
      std::vector<float> row(count, kNaN);
      EXPECT_EQ(argmax(row), 0u);
      row.assign(count, -kInfinity);
      EXPECT_EQ(argmax(row), 0u);
      for (std::size_t at = 0; at < count; ++at) {
        row.assign(count, kNaN);
        row[at] = -std::numeric_limits<float>::max();
        ASSERT_EQ(argmax(row), at) << "of " << count;
        row[at] = kInfinity;
        ASSERT_EQ(argmax(row), at) << "of " << count;
      }
    }
    EXPECT_EQ(argmax(std::vector<float>{-1.0f, 0.0f, -0.0f}), 1u);
    EXPECT_EQ(argmax(std::vector<float>{-1.0f, -0.0f, 0.0f}), 1u);
  });
}

TEST(SoftmaxWeights, AreTheFormula) {
  for (const std::size_t count : {1u, 15u, 16u, 17u, 1000u}) {
    std::vector<float> logits = random_values<float>(count, 3, 40.0f);
    logits[count / 2] = 40;
    if (count > 4) logits[1] = kNaN;
    if (count > 4) logits[2] = -kInfinity;
    on_each_instruction_set([&] {
      for (const float temperature : {0.01f, 0.7f, 1.0f, 3.0f}) {
        std::vector<float> weights(count, 7.0f);
        softmax_weights(logits, 40, temperature, weights);
        for (std::size_t i = 0; i < count; ++i) {
          const double want =
              std::isnan(logits[i])
                  ? 0
                  : std::exp((double{logits[i]} - 40) / static_cast<double>(temperature));
          // The exponent is rounded to 2^-24 of itself.
          const double exponent = std::min(104.0, 80.0 / static_cast<double>(temperature));
          ASSERT_NEAR(weights[i], want, want * (exponent * 1.2e-7 + 3e-7) + 1e-38)
              << logits[i] << " at " << temperature;
        }
        ASSERT_EQ(weights[count / 2], 1.0f);
      }
    });
  }
}

TEST(SumWeights, IsTheSumWhateverTheLength) {
  for (std::size_t count = 0; count < 140; ++count) {
    std::vector<float> weights(count);
    double want = 0;
    for (std::size_t i = 0; i < count; ++i) {
      weights[i] = static_cast<float>(i * i + 1) / 1024;  // sums of such are exact
      want += double{weights[i]};
    }
    on_each_instruction_set([&] { ASSERT_EQ(sum_weights(weights), want) << count; });
  }
}

TEST(AppendAtLeast, TakesTheBorderAndKeepsTheOrderOfIds) {
  for (const std::size_t count : {1u, 15u, 16u, 17u, 100u}) {
    on_each_instruction_set([&] {
      const std::vector<float> weights = random_values<float>(count, 5, 1.0f);
      const float least = weights[count / 2];
      std::vector<TokenProbability> out = {{3, 0.5f}};
      append_at_least(weights, least, out);
      std::size_t at = 1;
      for (std::size_t i = 0; i < count; ++i) {
        if (weights[i] < least) continue;
        ASSERT_LT(at, out.size());
        EXPECT_EQ(out[at].id, static_cast<std::int32_t>(i));
        EXPECT_EQ(out[at].probability, weights[i]);
        ++at;
      }
      EXPECT_EQ(at, out.size());
      EXPECT_EQ(out[0].id, 3);
    });
  }
}

}  // namespace
}  // namespace penstock::model
