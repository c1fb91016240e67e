#include "model/gpu_step.hpp"

namespace penstock::model {

GpuStep GpuStepMaker::make(const StepPlan& plan, std::span<const SampleRow> sampling,
                           std::uint32_t scratch_block, std::span<std::byte> lists) {
  plan_attention(shape_, plan.sequences, attention_limits_, attention_);
  const auto key = graph_key(plan, attention_, shape_, limits_.graph_rows);
  const AttentionCounts counts = attention_.counts();
  StepRoom room;
  room.rows = key ? key->rows : plan.rows();
  room.samples = key && last_ ? key->rows : static_cast<std::uint32_t>(sampling.size());
  room.wide = counts.wide;
  room.narrow = key ? key->narrow : counts.narrow;
  room.merges = key ? key->merges : counts.merges;
  room.table = plan.block_table.size();
  const StepLayout layout(room);
  write_step(plan, attention_, sampling, room, layout, scratch_block, lists);
  return {room.rows, room.samples, key.has_value(), {room.wide, room.narrow, room.merges},
          layout,    key};
}

}  // namespace penstock::model
