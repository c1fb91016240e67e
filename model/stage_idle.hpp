#pragma once

#include <vector>

#include "model/stage.hpp"

namespace penstock::model {

// What make_idle_stage() makes; one on a GPU adds a stream.
class IdleStage : public Stage {
 public:
  explicit IdleStage(std::size_t row_bytes) : row_bytes_(row_bytes) {}

  std::size_t activation_row_bytes() const override { return row_bytes_; }
  std::uint64_t weight_bytes() const override { return 0; }
  std::uint64_t kv_block_bytes() const override { return 0; }
  LoadReport load_report() const override { return {}; }
  std::uint64_t kv_memory_bytes() const override { return 0; }
  std::unique_ptr<ActivationBuffer> make_activations(std::size_t bytes) const override;
  void allocate_kv(std::uint32_t /*blocks*/) override {}
  void begin_run() override {}
  void forward(const StepPlan& plan, std::span<const std::byte> in, std::span<std::byte> out,
               const std::function<void()>& progress) override;
  bool ready() override { return true; }
  std::span<const std::int32_t> sampled() const override { return sampled_; }
  std::span<const float> logits() const override { return {}; }
  std::string numeric_class() const override { return "idle"; }

 private:
  std::size_t row_bytes_;
  std::vector<std::int32_t> sampled_;
};

}  // namespace penstock::model
