#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "model/error.hpp"
#include "model/plan_check.hpp"
#include "model/step_plan_io.hpp"

// A step plan as bytes: refused, or a plan that gives the same bytes again.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace penstock::model;
  ModelConfig config;
  config.max_position = 1 << 20;
  config.vocab_size = 128256;
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const StepPlan plan = deserialize(bytes);
    const std::vector<std::byte> again = serialize(plan);
    if (!std::equal(again.begin(), again.end(), bytes.begin(), bytes.end())) std::abort();
    check_plan(plan, config, {512, 256, 1000});
    // What a stage may compute lies within its limits.
    if (plan.rows() > 512) std::abort();
    for (const SequenceStep& s : plan.sequences) {
      if (s.first_row + s.rows > plan.rows() || s.position + s.rows > (1u << 20)) std::abort();
      for (std::uint32_t i = 0; i < s.blocks; ++i) {
        if (plan.block_table.at(s.first_block + i) >= 1000) std::abort();
      }
    }
  } catch (const ModelError&) {
  }
  return 0;
}
