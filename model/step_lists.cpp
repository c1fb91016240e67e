#include "model/step_lists.hpp"

#include <cstring>
#include <stdexcept>
#include <type_traits>

#include "model/memory_places.hpp"

namespace penstock::model {
namespace {

constexpr std::size_t kAlignment = 64;

template <class T>
void put(std::span<std::byte> to, std::size_t place, std::span<const T> values) {
  static_assert(std::is_trivially_copyable_v<T>);
  if (!values.empty()) std::memcpy(to.data() + place, values.data(), values.size_bytes());
}

template <class T>
T* at(std::span<std::byte> to, std::size_t place) {
  return reinterpret_cast<T*>(to.data() + place);
}

void write_rows(const StepPlan& plan, const StepRoom& room, const StepLayout& layout,
                std::uint32_t scratch_block, std::span<std::byte> to) {
  auto* const tokens = at<std::int32_t>(to, layout.tokens);
  auto* const positions = at<std::uint32_t>(to, layout.positions);
  auto* const blocks = at<std::uint32_t>(to, layout.row_blocks);
  auto* const sample_rows = at<std::int32_t>(to, layout.sample_rows);
  std::uint32_t row = 0;
  std::uint32_t sample = 0;
  for (const SequenceStep& sequence : plan.sequences) {
    for (std::uint32_t i = 0; i < sequence.rows; ++i, ++row) {
      const std::uint32_t position = sequence.position + i;
      tokens[row] = plan.tokens[row];
      positions[row] = position;
      blocks[row] = plan.block_table[sequence.first_block + position / kKvBlockTokens];
    }
    if (sequence.sample && sample < room.samples) {
      sample_rows[sample++] = static_cast<std::int32_t>(row - 1);
    }
  }
  for (; row < room.rows; ++row) {
    tokens[row] = 0;
    positions[row] = row % kKvBlockTokens;
    blocks[row] = scratch_block;
  }
  for (; sample < room.samples; ++sample) sample_rows[sample] = 0;
}

}  // namespace

StepLayout::StepLayout(const StepRoom& room) {
  MemoryPlaces places(kAlignment);
  counts = places.add(1, sizeof(AttentionCounts));
  sample_count = places.add(1, sizeof(std::uint32_t));
  tokens = places.add(room.rows, sizeof(std::int32_t));
  positions = places.add(room.rows, sizeof(std::uint32_t));
  row_blocks = places.add(room.rows, sizeof(std::uint32_t));
  sample_rows = places.add(room.samples, sizeof(std::int32_t));
  sampling = places.add(room.samples, sizeof(SampleRow));
  wide = places.add(room.wide, sizeof(AttentionTask));
  narrow = places.add(room.narrow, sizeof(AttentionTask));
  merges = places.add(room.merges, sizeof(AttentionMerge));
  table = places.add(room.table, sizeof(std::uint32_t));
  bytes = places.end();
}

void write_step(const StepPlan& plan, const AttentionPlan& attention,
                std::span<const SampleRow> sampling, const StepRoom& room, const StepLayout& layout,
                std::uint32_t scratch_block, std::span<std::byte> to) {
  if (to.size() < layout.bytes || plan.rows() > room.rows || sampling.size() > room.samples ||
      attention.wide.size() > room.wide || attention.narrow.size() > room.narrow ||
      attention.merges.size() > room.merges || plan.block_table.size() > room.table) {
    throw std::length_error("write_step: the lists have no room for the step");
  }
  const AttentionCounts counts = attention.counts();
  const auto samples = static_cast<std::uint32_t>(sampling.size());
  put<AttentionCounts>(to, layout.counts, {&counts, 1});
  put<std::uint32_t>(to, layout.sample_count, {&samples, 1});
  write_rows(plan, room, layout, scratch_block, to);
  put<SampleRow>(to, layout.sampling, sampling);
  put<AttentionTask>(to, layout.wide, attention.wide);
  put<AttentionTask>(to, layout.narrow, attention.narrow);
  put<AttentionMerge>(to, layout.merges, attention.merges);
  put<std::uint32_t>(to, layout.table, plan.block_table);
}

}  // namespace penstock::model
