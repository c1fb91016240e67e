#include "model/device_model.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/error.hpp"

namespace penstock::model {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

ModelConfig tiny() {
  ModelConfig c;
  c.hidden_size = 4;
  c.intermediate_size = 8;
  c.num_layers = 3;
  c.num_heads = 2;
  c.num_kv_heads = 1;
  c.head_dim = 2;
  c.vocab_size = 16;
  c.max_position = 64;
  return c;
}

DeviceModel slow(double bytes_per_second) {
  DeviceModel device;
  device.name = "slow";
  device.bf16_flops_per_second = 100;
  device.f32_flops_per_second = 50;
  device.memory_bytes_per_second = bytes_per_second;
  device.launch_seconds = 0.5;
  device.step_seconds = 7;
  device.padding_rows = 2;
  return device;
}

// 3 rows of which 2 are sampled.
constexpr StepShape kShape{3, 2, 7, 9};

TEST(CostByDevice, BytesByHand) {
  const auto cost = cost_by_device(tiny(), io::DType::bf16, io::DType::f32, slow(10));
  EXPECT_DOUBLE_EQ(cost->step(), 7);
  // Rows of 4 elements read and written.
  EXPECT_DOUBLE_EQ(cost->embedding(kShape), 0.1 * 2 * 3 * 4 * 2 + 0.5);
  const double bytes = 2 * (4 * 3 * 4 * 2)                  // two norms
                       + (4 * 8 + 3 * 4 + 3 * 8) * 2        // q, k and v
                       + 3 * (2 * (4 + 2) * 2 + 2 * 2 * 4)  // rotation, keys and values written
                       + 9 * 2 * 2 * 4 + 3 * 2 * 4 * 2      // attention
                       + (4 * 4 + 3 * 4 + 3 * 4) * 2        // o
                       + (4 * 16 + 3 * 4 + 3 * 16) * 2      // gate and up
                       + 3 * 3 * 8 * 2                      // SwiGLU
                       + (8 * 4 + 3 * 8 + 3 * 4) * 2;       // down
  EXPECT_DOUBLE_EQ(bytes, 1248);
  EXPECT_NEAR(cost->layer(kShape), 124.8 + 9 * 0.5, 1e-9);
  // Norm, product with f32 logits, sampling.
  EXPECT_NEAR(cost->head(kShape),
              0.1 * (4 * 2 * 4 * 2 + (4 * 16 + 2 * 4) * 2 + 2 * 16 * 4 + 3 * 2 * 16 * 4) + 1.5,
              1e-9);
  EXPECT_EQ(cost->head({3, 0, 7, 9}), 0);
}

TEST(CostByDevice, ArithmeticByHand) {
  const auto cost = cost_by_device(tiny(), io::DType::bf16, io::DType::f32, slow(1e12));
  // Two flops for each of the 4x8, 4x4, 4x16 and 8x4 weights and each of 3 + 2 rows; two products
  // of 4 wide heads with each position attended to.
  const double flops = 2 * (3 + 2) * (32 + 16 + 64 + 32) + 4 * 4 * 7;
  EXPECT_NEAR(cost->layer(kShape), flops / 100 + 9 * 0.5, 1e-6);
  EXPECT_NEAR(cost->head(kShape), 2 * (2 + 2) * 64 / 100.0 + 1.5, 1e-6);
  const auto f32 = cost_by_device(tiny(), io::DType::f32, io::DType::f32, slow(1e12));
  EXPECT_NEAR(f32->layer(kShape), flops / 50 + 9 * 0.5, 1e-6);
}

TEST(DeviceModels, AreValidAndKnownByName) {
  EXPECT_THAT(device_model_names(),
              testing::ElementsAre("h100-sxm", "h200", "a100-80", "mi300x", "cpu-node"));
  for (const std::string& name : device_model_names()) {
    EXPECT_EQ(device_model(name).name, name);
    EXPECT_NO_THROW(validate(device_model(name)));
  }
  EXPECT_THAT([] { device_model("h100"); },
              ThrowsMessage<ModelError>(AllOf(HasSubstr("'h100'"), HasSubstr("h100-sxm"))));
}

TEST(DeviceModels, ImplausibleMembersAreNamed) {
  const auto refused = [](auto member, double value, const char* name) {
    DeviceModel device = device_model("h200");
    device.*member = value;
    EXPECT_THAT([&] { validate(device); }, ThrowsMessage<ModelError>(HasSubstr(name)));
  };
  refused(&DeviceModel::bf16_flops_per_second, 0, "bf16_flops_per_second");
  refused(&DeviceModel::f32_flops_per_second, -1, "f32_flops_per_second");
  refused(&DeviceModel::memory_bytes_per_second, 1e300, "memory_bytes_per_second");
  refused(&DeviceModel::launch_seconds, -1e-6, "launch_seconds");
  refused(&DeviceModel::step_seconds, std::nan(""), "step_seconds");
  refused(&DeviceModel::padding_rows, -1, "padding_rows");
  DeviceModel none = device_model("h200");
  none.memory_bytes = 0;
  EXPECT_THAT([&] { validate(none); }, ThrowsMessage<ModelError>(HasSubstr("memory_bytes")));
}

}  // namespace
}  // namespace penstock::model
