#include "model/ops/attention.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "model/ops/attention_cpu.cpp"
// clang-format off
#include "model/ops/simd_targets.hpp"
#include <hwy/foreach_target.h>
#include "model/ops/simd-inl.hpp"
#include <hwy/contrib/math/math-inl.h>
// clang-format on

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>

#ifndef PENSTOCK_MODEL_OPS_ATTENTION_CPU_
#define PENSTOCK_MODEL_OPS_ATTENTION_CPU_
namespace penstock::model {

// One thread's working memory: a task's queries (a row's heads that share a kv head, row after
// row) with their online softmax.
struct AttentionState {
  float* q = nullptr;        // [queries, value_stride], scaled
  float* out = nullptr;      // [queries, value_stride], not yet divided by total
  float* weights = nullptr;  // [queries, kTokens]: scores, then exponentials, of one tile
  float* maximum = nullptr;  // [queries]
  float* total = nullptr;    // [queries]
  float* decay = nullptr;    // [queries]: what a new maximum leaves of total and out
};

}  // namespace penstock::model
#endif

HWY_BEFORE_NAMESPACE();
namespace penstock::model::HWY_NAMESPACE {

constexpr std::size_t kTokens = KvLayout::kTokens;
// Queries that share a load of keys or values: their accumulators fill the registers.
constexpr std::size_t kGroup = HWY_TARGET == HWY_AVX3 ? 8 : 4;

// weights[query, token] = q[query] . keys[:, token] for all tokens of the tile.
template <std::size_t kQueries, class T>
void score_group(const T* keys, std::size_t head_dim, std::size_t stride, const float* q,
                 float* weights) {
  const F32 d;
  constexpr std::size_t kLanes = hn::MaxLanes(F32());
  for (std::size_t token = 0; token < kTokens; token += 2 * kLanes) {
    VecF32 low[kQueries];
    VecF32 high[kQueries];
    for (std::size_t j = 0; j < kQueries; ++j) low[j] = high[j] = hn::Zero(d);
    for (std::size_t i = 0; i < head_dim; ++i) {
      const VecF32 k_low = load(d, keys + i * kTokens + token);
      const VecF32 k_high = load(d, keys + i * kTokens + token + kLanes);
      for (std::size_t j = 0; j < kQueries; ++j) {
        const VecF32 element = hn::Set(d, q[j * stride + i]);
        low[j] = hn::MulAdd(element, k_low, low[j]);
        high[j] = hn::MulAdd(element, k_high, high[j]);
      }
    }
    for (std::size_t j = 0; j < kQueries; ++j) {
      hn::StoreU(low[j], d, weights + j * kTokens + token);
      hn::StoreU(high[j], d, weights + j * kTokens + token + kLanes);
    }
  }
}

// out[query] = out[query] * decay[query] + sum over tokens of weights[query, token] *
// values[token].
template <std::size_t kQueries, std::size_t kVectors, class T>
void value_columns(const T* values, std::size_t stride, std::size_t tokens, const float* weights,
                   const float* decay, float* out) {
  const F32 d;
  constexpr std::size_t kLanes = hn::MaxLanes(F32());
  VecF32 sum[kQueries][kVectors];
  for (std::size_t j = 0; j < kQueries; ++j) {
    const VecF32 factor = hn::Set(d, decay[j]);
    for (std::size_t v = 0; v < kVectors; ++v) {
      sum[j][v] = hn::Mul(factor, load(d, out + j * stride + v * kLanes));
    }
  }
  for (std::size_t token = 0; token < tokens; ++token) {
    VecF32 value[kVectors];
    for (std::size_t v = 0; v < kVectors; ++v) {
      value[v] = load(d, values + token * stride + v * kLanes);
    }
    for (std::size_t j = 0; j < kQueries; ++j) {
      const VecF32 weight = hn::Set(d, weights[j * kTokens + token]);
      for (std::size_t v = 0; v < kVectors; ++v) {
        sum[j][v] = hn::MulAdd(weight, value[v], sum[j][v]);
      }
    }
  }
  for (std::size_t j = 0; j < kQueries; ++j) {
    for (std::size_t v = 0; v < kVectors; ++v) {
      hn::StoreU(sum[j][v], d, out + j * stride + v * kLanes);
    }
  }
}

template <std::size_t kQueries, class T>
void value_group(const T* values, std::size_t stride, std::size_t tokens, const float* weights,
                 const float* decay, float* out) {
  constexpr std::size_t kLanes = hn::MaxLanes(F32());
  std::size_t column = 0;
  for (; column + 2 * kLanes <= stride; column += 2 * kLanes) {
    value_columns<kQueries, 2>(values + column, stride, tokens, weights, decay, out + column);
  }
  if (column < stride) {
    value_columns<kQueries, 1>(values + column, stride, tokens, weights, decay, out + column);
  }
}

// The step of the online softmax: scores of `tokens` tokens become exponentials.
HWY_INLINE void softmax_step(std::size_t query, std::size_t tokens, const AttentionState& state) {
  const F32 d;
  constexpr std::size_t kLanes = hn::MaxLanes(F32());
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  float* weights = state.weights + query * kTokens;
  std::fill(weights + tokens, weights + kTokens, kLowest);
  VecF32 top = load(d, weights);
  for (std::size_t token = kLanes; token < kTokens; token += kLanes) {
    top = hn::Max(top, load(d, weights + token));
  }
  const float before = state.maximum[query];
  const float now = std::max(before, hn::GetLane(hn::MaxOfLanes(d, top)));
  const VecF32 shift = hn::Set(d, now);
  VecF32 sum = hn::Zero(d);
  for (std::size_t token = 0; token < kTokens; token += kLanes) {
    const VecF32 weight = hn::Exp(d, hn::Sub(load(d, weights + token), shift));
    hn::StoreU(weight, d, weights + token);
    sum = hn::Add(sum, weight);
  }
  const float decay = before == kLowest ? 0.0f : hn::GetLane(hn::Exp(d, hn::Set(d, before - now)));
  state.maximum[query] = now;
  state.decay[query] = decay;
  state.total[query] = state.total[query] * decay + hn::GetLane(hn::SumOfLanes(d, sum));
}

template <std::size_t kQueries, class T>
void attend_group(const KvLayout& layout, const std::byte* tiles, std::size_t first,
                  std::size_t tokens, const AttentionState& state) {
  const std::size_t stride = layout.value_stride();
  const T* keys = reinterpret_cast<const T*>(tiles);
  const T* values = reinterpret_cast<const T*>(tiles + layout.key_tile_bytes());
  float* weights = state.weights + first * kTokens;
  score_group<kQueries>(keys, layout.head_dim, stride, state.q + first * stride, weights);
  for (std::size_t j = 0; j < kQueries; ++j) softmax_step(first + j, tokens, state);
  value_group<kQueries>(values, stride, tokens, weights, state.decay + first,
                        state.out + first * stride);
}

// Queries [first, last) over the first `tokens` tokens of a tile.
template <class T>
void attend_tile(const KvLayout& layout, const std::byte* tiles, std::size_t first,
                 std::size_t last, std::size_t tokens, const AttentionState& state) {
  for (; first + kGroup <= last; first += kGroup) {
    attend_group<kGroup, T>(layout, tiles, first, tokens, state);
  }
  if constexpr (kGroup > 4) {
    if (first + 4 <= last) {
      attend_group<4, T>(layout, tiles, first, tokens, state);
      first += 4;
    }
  }
  switch (last - first) {
    case 3:
      return attend_group<3, T>(layout, tiles, first, tokens, state);
    case 2:
      return attend_group<2, T>(layout, tiles, first, tokens, state);
    case 1:
      return attend_group<1, T>(layout, tiles, first, tokens, state);
    default:
      return;
  }
}

template <class Q, class T>
void attend_typed(const Attention& args, const AttentionScratch::Task& task,
                  const AttentionState& state) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  const KvLayout& layout = args.layout;
  const std::size_t head_dim = layout.head_dim;
  const std::size_t stride = layout.value_stride();
  const std::size_t group = args.heads / layout.kv_heads;
  const AttentionSequence& sequence = args.sequences[task.sequence];
  const std::size_t first_head = task.kv_head * group;
  const std::size_t first_row = sequence.first_row + task.first;
  const VecF32 scale = hn::Set(d, 1.0f / std::sqrt(static_cast<float>(head_dim)));
  for (std::size_t query = 0; query < task.rows * group; ++query) {
    const Q* q = static_cast<const Q*>(args.q) + (first_row + query / group) * args.q_stride +
                 (first_head + query % group) * head_dim;
    for (std::size_t i = 0; i < head_dim; i += lanes) {
      const std::size_t count = std::min(lanes, head_dim - i);
      store_n(hn::Mul(scale, load_n(d, q + i, count)), d, state.q + query * stride + i, count);
    }
    std::fill_n(state.out + query * stride, stride, 0.0f);
    state.maximum[query] = -std::numeric_limits<float>::infinity();
    state.total[query] = 0;
  }
  const std::size_t first_position = sequence.position + task.first;
  const std::size_t end = first_position + task.rows;
  for (std::size_t start = 0; start < end; start += kTokens) {
    const std::byte* tiles = args.cache + sequence.blocks[start / kTokens] * layout.block_bytes() +
                             task.kv_head * layout.head_bytes();
    // Rows that see a part of the tile go one by one: tokens behind a row take no part in its
    // sums, not even with weight zero, since what lies there may be anything.
    std::size_t row = start > first_position ? start - first_position : 0;
    for (; row < task.rows && first_position + row + 1 < start + kTokens; ++row) {
      attend_tile<T>(layout, tiles, row * group, (row + 1) * group,
                     first_position + row + 1 - start, state);
    }
    attend_tile<T>(layout, tiles, row * group, task.rows * group, kTokens, state);
  }
  for (std::size_t query = 0; query < task.rows * group; ++query) {
    Q* out = static_cast<Q*>(args.out) +
             ((first_row + query / group) * args.heads + first_head + query % group) * head_dim;
    const VecF32 total = hn::Set(d, state.total[query]);
    for (std::size_t i = 0; i < head_dim; i += lanes) {
      const std::size_t count = std::min(lanes, head_dim - i);
      store_n(hn::Div(load(d, state.out + query * stride + i), total), d, out + i, count);
    }
  }
}

void attend_task(const Attention& args, const AttentionScratch::Task& task,
                 const AttentionState& state) {
  const bool q_f32 = args.dtype == io::DType::f32;
  const bool kv_f32 = args.layout.dtype == io::DType::f32;
  if (q_f32) {
    kv_f32 ? attend_typed<float, float>(args, task, state)
           : attend_typed<float, std::uint16_t>(args, task, state);
  } else {
    kv_f32 ? attend_typed<std::uint16_t, float>(args, task, state)
           : attend_typed<std::uint16_t, std::uint16_t>(args, task, state);
  }
}

}  // namespace penstock::model::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock::model {

HWY_EXPORT(attend_task);

namespace {

// Enough queries that keys and values in the first-level cache are used many times, few enough
// that the queries' own memory stays beside them.
constexpr std::size_t kQueriesPerTask = 48;

std::size_t round_up(std::size_t value, std::size_t step) {
  return (value + step - 1) / step * step;
}

AttentionState state_in(float* memory, std::size_t queries, std::size_t stride) {
  AttentionState state;
  state.q = memory;
  state.out = state.q + queries * stride;
  state.weights = state.out + queries * stride;
  state.maximum = state.weights + queries * KvLayout::kTokens;
  state.total = state.maximum + queries;
  state.decay = state.total + queries;
  return state;
}

}  // namespace

AttentionScratch::AttentionScratch(const Cpu& device, std::size_t heads, const KvLayout& layout) {
  const std::size_t group = heads / layout.kv_heads;
  rows_per_task = std::max<std::size_t>(1, kQueriesPerTask / group);
  const std::size_t queries = rows_per_task * group;
  floats_per_thread = round_up(queries * (2 * layout.value_stride() + KvLayout::kTokens + 3), 1024);
  buffer = HostBuffer(static_cast<std::size_t>(device.threads) * floats_per_thread * sizeof(float),
                      device.threads, "attention");
}

void attention(const Cpu& device, const Attention& args, AttentionScratch& scratch) {
  scratch.tasks.clear();
  for (std::size_t s = 0; s < args.sequences.size(); ++s) {
    const std::size_t rows = args.sequences[s].rows;
    for (std::size_t first = 0; first < rows; first += scratch.rows_per_task) {
      for (std::size_t head = 0; head < args.layout.kv_heads; ++head) {
        AttentionScratch::Task task;
        task.sequence = static_cast<std::uint32_t>(s);
        task.first = static_cast<std::uint32_t>(first);
        task.rows = static_cast<std::uint32_t>(std::min(scratch.rows_per_task, rows - first));
        task.kv_head = static_cast<std::uint32_t>(head);
        scratch.tasks.push_back(task);
      }
    }
  }
  auto* const kernel = &HWY_DYNAMIC_DISPATCH(attend_task);
  const auto tasks = static_cast<std::ptrdiff_t>(scratch.tasks.size());
  const std::size_t queries = scratch.rows_per_task * (args.heads / args.layout.kv_heads);
  const std::size_t stride = args.layout.value_stride();
#pragma omp parallel num_threads(device.threads) if (tasks > 1)
  {
    const auto thread = static_cast<std::size_t>(omp_get_thread_num());
    const AttentionState state =
        state_in(scratch.buffer.as<float>() + thread * scratch.floats_per_thread, queries, stride);
#pragma omp for schedule(dynamic, 1)
    for (std::ptrdiff_t task = 0; task < tasks; ++task) {
      kernel(args, scratch.tasks[static_cast<std::size_t>(task)], state);
    }
  }
}

}  // namespace penstock::model
#endif  // HWY_ONCE
