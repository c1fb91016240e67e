#include "model/ops/machine_limits.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace penstock::model {
namespace {

// What is measured is the machine's business; only nonsense is refused.
void expect_plausible(const MachineLimits& limits) {
  EXPECT_TRUE(std::isfinite(limits.flops_per_second));
  EXPECT_TRUE(std::isfinite(limits.bytes_per_second));
  EXPECT_GT(limits.flops_per_second, 0);
  EXPECT_GT(limits.bytes_per_second, 0);
}

TEST(MachineLimits, ArePositiveAndFinite) {
  expect_plausible(measure_machine(Cpu{1}, io::DType::f32));
  expect_plausible(measure_machine(Cpu{2}, io::DType::bf16));
}

}  // namespace
}  // namespace penstock::model
