#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/dtype.hpp"
#include "model/config.hpp"
#include "model/step_cost.hpp"

namespace penstock::model {

// A device, described well enough to predict how long a step takes on it. Rates are what programs
// reach, not what data sheets promise.
struct DeviceModel {
  std::string name;
  double bf16_flops_per_second = 0;  // matrix products of many rows; also for f16
  double f32_flops_per_second = 0;   // the same without a narrower type in between
  double memory_bytes_per_second = 0;
  std::uint64_t memory_bytes = 0;  // all of it
  double launch_seconds = 0;       // between the work of one kernel and that of the next
  double step_seconds = 0;         // of a step, when the device waits for the host
  // Arithmetic takes the time of so many rows more than there are: the last tile is not full.
  double padding_rows = 0;
};

// h100-sxm, h200, a100-80, mi300x, cpu-node.
std::vector<std::string> device_model_names();
// Throws ModelError that lists the names.
DeviceModel device_model(std::string_view name);

// Throws ModelError that names the member unless all rates and the memory are positive, and times
// are not negative; none may be so large or small that sums are no numbers.
void validate(const DeviceModel& device);

// By op: each op of a layer takes the longer of its arithmetic and its bytes, and a launch. `dtype`
// of weights and activations.
std::shared_ptr<const PartCost> cost_by_device(const ModelConfig& config, io::DType dtype,
                                               io::DType kv_dtype, const DeviceModel& device);

}  // namespace penstock::model
