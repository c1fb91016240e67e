#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "io/error.hpp"
#include "jobs/virtual_machine.hpp"
#include "model/device_model.hpp"

// The description of a machine: refused, or one by which any step and message takes a finite time.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace penstock;
  try {
    const jobs::VirtualMachine machine =
        jobs::virtual_machine_from_json("m.json", {reinterpret_cast<const char*>(data), size});
    model::validate(machine.device);
    if (machine.devices_per_node < 1 || machine.text.empty()) std::abort();
    for (const int rank : {0, 1, 7, 1 << 20}) {
      const jobs::LinkModel& edge = machine.edge(rank, rank + 1);
      if (!(edge.latency_seconds >= 0) || !(edge.bytes_per_second >= 0)) std::abort();
      if (!std::isfinite(edge.latency_seconds + edge.bytes_per_second)) std::abort();
    }
    model::ModelConfig config;
    config.hidden_size = 64;
    config.intermediate_size = 128;
    config.num_layers = 2;
    config.num_heads = 2;
    config.num_kv_heads = 1;
    config.head_dim = 32;
    config.vocab_size = 256;
    const auto parts =
        model::cost_by_device(config, io::DType::bf16, io::DType::bf16, machine.device);
    for (const std::uint64_t n : {0, 1, 7, 512, 1 << 20}) {
      const double seconds = model::StepCost(parts, {0, 2, true, true}).seconds({n, n, n, n});
      if (!std::isfinite(seconds) || seconds < 0) std::abort();
    }
    const auto slots =
        jobs::slots_for(machine, *parts, {{0, 1, true, false}, {1, 2, false, true}}, 0, 128, 256);
    if (slots < 3 || slots > 1024) std::abort();
    if (jobs::figures(machine).empty()) std::abort();
  } catch (const io::FileError&) {
  }
  return 0;
}
