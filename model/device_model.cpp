#include "model/device_model.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <utility>

#include "model/error.hpp"

namespace penstock::model {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

constexpr double kTera = 1e12;
constexpr double kMicro = 1e-6;

// Products: "MAMF" is the table of maximum achievable matmul FLOPS in Stas Bekman, Machine Learning
// Engineering (github.com/stas00/ml-engineering, compute/accelerator/README.md). GPUs in f32: the
// data sheet's rate outside the tensor cores, as TF32 would lose bits, times the bf16 share of its.
// Launches: Hazy Research, "Look Ma, No Bubbles!" (2025): 1.3 us a kernel in a CUDA graph on an
// H100. Padding: a tile of 128 rows is half empty on average. Of a step's host work nothing is
// known yet: 50 us are assumed, and as much time for all else that bears no other source here.
const std::array<DeviceModel, 5>& presets() {
  static const std::array<DeviceModel, 5> all = {{
      // MAMF 794.5; memory: what a copy reaches of 3.35 TB/s (cudaMemcpy, 3.0); 80 GiB less ECC's
      // and the driver's own, as nvidia-smi shows it.
      {"h100-sxm", 794.5 * kTera, 54 * kTera, 3.0 * kTera, 79 * kGiB, 1.3 * kMicro, 50 * kMicro,
       64},
      // MAMF: "H200 is the same"; memory: 4.8 TB/s and 141 GB by data sheet, the H100's share.
      {"h200", 794.5 * kTera, 54 * kTera, 4.3 * kTera, 140 * kGiB, 1.3 * kMicro, 50 * kMicro, 64},
      // MAMF 271.2; memory: 2.04 TB/s and 80 GB by data sheet, the H100's share.
      {"a100-80", 271.2 * kTera, 17 * kTera, 1.82 * kTera, 79 * kGiB, 1.3 * kMicro, 50 * kMicro,
       64},
      // MAMF 668.4 (of 1307.4 by data sheet); memory: 5.3 TB/s and 192 GB by data sheet, of which
      // AMD's acceptance test asks BabelStream for 4.177 TB/s in copies (instinct.docs.amd.com,
      // system-acceptance). Launch: assumed.
      {"mi300x", 668.4 * kTera, 84 * kTera, 4.18 * kTera, 191 * kGiB, 2.0 * kMicro, 50 * kMicro,
       64},
      // Two sockets of 64 Zen 5 cores: 511 and 254 GFLOP/s a core, as measured on two, times 0.8
      // for the clock of all at once (assumed); 24 channels of DDR5-6000, 1.15 TB/s by data sheet,
      // times 0.8 (assumed). Launch: a barrier of 64 threads (assumed).
      {"cpu-node", 52 * kTera, 26 * kTera, 0.92 * kTera, 768 * kGiB, 5.0 * kMicro, 50 * kMicro, 4},
  }};
  return all;
}

// Counts an op's time. All sizes as double: products of them may be large.
class Ops {
 public:
  Ops(const DeviceModel& device, io::DType dtype)
      : device_(device),
        element_(static_cast<double>(io::size_of(dtype))),
        flops_per_second_(dtype == io::DType::f32 ? device.f32_flops_per_second
                                                  : device.bf16_flops_per_second) {}

  double element() const { return element_; }  // bytes
  // [rows, in] x [out, in] -> [rows, out]
  double product(double rows, double in, double out, double out_element) const {
    return op(2 * (rows + device_.padding_rows) * in * out,
              element_ * (in * out + rows * in) + out_element * rows * out);
  }
  double product(double rows, double in, double out) const {
    return product(rows, in, out, element_);
  }
  // Reads and writes so many elements of the activations.
  double elementwise(double elements) const { return op(0, elements * element_); }
  double op(double flops, double bytes) const {
    return std::max(flops / flops_per_second_, bytes / device_.memory_bytes_per_second) +
           device_.launch_seconds;
  }

 private:
  DeviceModel device_;
  double element_;
  double flops_per_second_;
};

class DeviceCost : public PartCost {
 public:
  DeviceCost(const ModelConfig& config, io::DType dtype, io::DType kv_dtype,
             const DeviceModel& device)
      : ops_(device, dtype),
        step_(device.step_seconds),
        hidden_(static_cast<double>(config.hidden_size)),
        inner_(static_cast<double>(config.intermediate_size)),
        heads_width_(static_cast<double>(config.num_heads * config.head_dim)),
        kv_width_(static_cast<double>(config.num_kv_heads * config.head_dim)),
        vocab_(static_cast<double>(config.vocab_size)),
        kv_element_(static_cast<double>(io::size_of(kv_dtype))) {}

  double step() const override { return step_; }

  // A look-up of rows.
  double embedding(const StepShape& shape) const override {
    return ops_.elementwise(2 * count(shape.rows) * hidden_);
  }

  double layer(const StepShape& shape) const override {
    const double rows = count(shape.rows);
    const double qkv_width = heads_width_ + 2 * kv_width_;
    return 2 * norm(rows) + ops_.product(rows, hidden_, qkv_width) + rope_and_kv_write(rows) +
           attention(shape) + ops_.product(rows, heads_width_, hidden_) +
           ops_.product(rows, hidden_, 2 * inner_) +
           ops_.elementwise(3 * rows * inner_) +  // SwiGLU
           ops_.product(rows, inner_, hidden_);
  }

  double head(const StepShape& shape) const override {
    if (shape.sampled == 0) return 0;
    constexpr double kLogit = sizeof(float);
    const double rows = count(shape.sampled);
    // Sampling reads the logits once, and writes and reads a copy of them.
    return norm(rows) + ops_.product(rows, hidden_, vocab_, kLogit) +
           ops_.op(0, 3 * rows * vocab_ * kLogit);
  }

 private:
  static double count(std::uint64_t n) { return static_cast<double>(n); }
  // The residual stream and what is added to it are read, and with the result written.
  double norm(double rows) const { return ops_.elementwise(4 * rows * hidden_); }
  // Queries are turned in place, keys and values go to the cache.
  double rope_and_kv_write(double rows) const {
    return ops_.op(
        0, rows * (ops_.element() * 2 * (heads_width_ + kv_width_) + kv_element_ * 2 * kv_width_));
  }
  // Scores and their weighted sum: two multiply-adds for each head dimension and position. Keys and
  // values are read once for each sequence.
  double attention(const StepShape& shape) const {
    return ops_.op(4 * heads_width_ * count(shape.attended),
                   kv_element_ * 2 * kv_width_ * count(shape.cached) +
                       ops_.element() * 2 * heads_width_ * count(shape.rows));
  }

  Ops ops_;
  double step_;
  double hidden_;
  double inner_;
  double heads_width_;
  double kv_width_;
  double vocab_;
  double kv_element_;
};

void check(const DeviceModel& device, std::string_view member, double value, double least,
           double most) {
  if (value >= least && value <= most) return;
  throw ModelError(fmt::format("device '{}': {} is {:g}, not from {:g} to {:g}", device.name,
                               member, value, least, most));
}

}  // namespace

std::vector<std::string> device_model_names() {
  std::vector<std::string> names;
  for (const DeviceModel& device : presets()) names.push_back(device.name);
  return names;
}

DeviceModel device_model(std::string_view name) {
  for (const DeviceModel& device : presets()) {
    if (device.name == name) return device;
  }
  throw ModelError(
      fmt::format("no device '{}' is known: {}", name, fmt::join(device_model_names(), ", ")));
}

void validate(const DeviceModel& device) {
  constexpr double kLeastRate = 1e3;
  constexpr double kMostRate = 1e21;
  check(device, "bf16_flops_per_second", device.bf16_flops_per_second, kLeastRate, kMostRate);
  check(device, "f32_flops_per_second", device.f32_flops_per_second, kLeastRate, kMostRate);
  check(device, "memory_bytes_per_second", device.memory_bytes_per_second, kLeastRate, kMostRate);
  check(device, "memory_bytes", static_cast<double>(device.memory_bytes), 1, 1e18);
  check(device, "launch_seconds", device.launch_seconds, 0, 1);
  check(device, "step_seconds", device.step_seconds, 0, 100);
  check(device, "padding_rows", device.padding_rows, 0, 1e6);
}

std::shared_ptr<const PartCost> cost_by_device(const ModelConfig& config, io::DType dtype,
                                               io::DType kv_dtype, const DeviceModel& device) {
  return std::make_shared<DeviceCost>(config, dtype, kv_dtype, device);
}

}  // namespace penstock::model
