#pragma once

#include "model/ops/attention_common.cuh"

namespace penstock::model {

// Attention in f32 without tensor cores, for every mix of types; made for exactness more than for
// speed. A warp computes 4 queries: lanes are tokens for the scores, columns for the sums. Splits,
// merging and the order of tiles are those of TensorAttention, tiles are half as long.
struct PlainAttention {
  static constexpr unsigned kWarps = 4;
  static constexpr unsigned kThreads = 32 * kWarps;
  static constexpr unsigned kWarpRows = 4;
  static constexpr unsigned kQueries = kWarps * kWarpRows;
  static constexpr unsigned kTokens = 32;
  static constexpr unsigned kMostHeadDim = 256;
  static constexpr unsigned kColumns = kMostHeadDim / 32;  // of a lane

  static std::size_t shared_bytes(std::size_t head_dim) {
    return (kQueries * head_dim + kTokens * (head_dim + 1) + kTokens * head_dim) * sizeof(float);
  }

  struct State {
    float maximum;
    float total;
    float sums[kColumns];
  };

  __device__ static float element(io::DType dtype, const std::byte* base, std::size_t index) {
    switch (dtype) {
      case io::DType::bf16:
        return to_f32(reinterpret_cast<const __nv_bfloat16*>(base)[index]);
      case io::DType::f16:
        return to_f32(reinterpret_cast<const __half*>(base)[index]);
      case io::DType::f32:
        break;
    }
    return reinterpret_cast<const float*>(base)[index];
  }

  __device__ static void clear(State& state) {
    state.maximum = kNothing;
    state.total = 0.0f;
#pragma unroll
    for (unsigned i = 0; i < kColumns; ++i) state.sums[i] = 0.0f;
  }

  __device__ static void load_queries(const AttentionArgs& args, const AttentionTask& task,
                                      unsigned kv_head, float* to) {
    for (unsigned i = simt::thread(); i < kQueries * args.head_dim; i += kThreads) {
      const unsigned query = i / args.head_dim;
      float value = 0.0f;
      if (query < task.queries) {
        const QueryPlace place = query_place(task, args.group, kv_head, query);
        value = element(args.dtype, args.q,
                        place.row * args.q_stride + place.head * args.head_dim + i % args.head_dim);
      }
      to[i] = value;
    }
  }

  __device__ static void load_tile(const AttentionArgs& args, const std::byte* tile, unsigned count,
                                   unsigned pitch, float* to) {
    for (unsigned i = simt::thread(); i < kTokens * args.head_dim; i += kThreads) {
      const unsigned token = i / args.head_dim;
      to[token * pitch + i % args.head_dim] =
          token < count ? element(args.kv_dtype, tile, i) : 0.0f;
    }
  }

  // Scores of a lane's token with the warp's queries.
  __device__ static void multiply_keys(const AttentionArgs& args, const float* q, const float* keys,
                                       unsigned lane, float (&scores)[kWarpRows]) {
#pragma unroll
    for (unsigned j = 0; j < kWarpRows; ++j) scores[j] = 0.0f;
    const float* key = keys + lane * (args.head_dim + 1);
    for (unsigned i = 0; i < args.head_dim; ++i) {
#pragma unroll
      for (unsigned j = 0; j < kWarpRows; ++j) {
        scores[j] = fmaf(q[j * args.head_dim + i], key[i], scores[j]);
      }
    }
  }

  // A lane's weight of its token; `seen` tokens of the tile take part.
  __device__ static float weigh(float score, unsigned lane, unsigned seen, State& state,
                                float& decay) {
    const float mine = lane < seen ? score : kNothing;
    float top = mine;
#pragma unroll
    for (unsigned mask = 16; mask > 0; mask /= 2) top = fmaxf(top, simt::shuffle_xor(top, mask));
    const SoftmaxStep step = softmax_step(state.maximum, top);
    const float weight = simt::exp2_fast(mine - step.shift);
    float sum = weight;
#pragma unroll
    for (unsigned mask = 16; mask > 0; mask /= 2) sum += simt::shuffle_xor(sum, mask);
    state.total = fmaf(state.total, step.decay, sum);
    decay = step.decay;
    return weight;
  }

  __device__ static void multiply_values(const AttentionArgs& args, const float* values,
                                         const float (&weights)[kWarpRows],
                                         const unsigned (&seen)[kWarpRows],
                                         const float (&decay)[kWarpRows], unsigned lane,
                                         State (&state)[kWarpRows]) {
    float product[kWarpRows][kColumns] = {};
    unsigned most = 0;
#pragma unroll
    for (unsigned j = 0; j < kWarpRows; ++j) most = seen[j] > most ? seen[j] : most;
    for (unsigned token = 0; token < most; ++token) {
      float weight[kWarpRows];
#pragma unroll
      for (unsigned j = 0; j < kWarpRows; ++j) weight[j] = simt::shuffle(weights[j], token);
#pragma unroll
      for (unsigned i = 0; i < kColumns; ++i) {
        const unsigned column = lane + 32 * i;
        if (column >= args.head_dim) continue;
        const float value = values[token * args.head_dim + column];
#pragma unroll
        for (unsigned j = 0; j < kWarpRows; ++j) {
          // Not even with weight zero: what lies behind a query may be infinite.
          if (token < seen[j]) product[j][i] = fmaf(weight[j], value, product[j][i]);
        }
      }
    }
#pragma unroll
    for (unsigned j = 0; j < kWarpRows; ++j) {
#pragma unroll
      for (unsigned i = 0; i < kColumns; ++i) {
        state[j].sums[i] = fmaf(state[j].sums[i], decay[j], product[j][i]);
      }
    }
  }

  __device__ static void merge_split(State& before, const State& split) {
    const MergeScale scale = merge_scale(before.maximum, split.maximum);
    before.total = merged(scale, before.total, split.total);
#pragma unroll
    for (unsigned i = 0; i < kColumns; ++i) {
      before.sums[i] = merged(scale, before.sums[i], split.sums[i]);
    }
  }

  __device__ static void put(const AttentionArgs& args, std::size_t index, float value) {
    switch (args.dtype) {
      case io::DType::f32:
        reinterpret_cast<float*>(args.out)[index] = value;
        break;
      case io::DType::bf16:
        reinterpret_cast<__nv_bfloat16*>(args.out)[index] = rounded<__nv_bfloat16>(value);
        break;
      case io::DType::f16:
        reinterpret_cast<__half*>(args.out)[index] = rounded<__half>(value);
        break;
    }
  }

  __device__ static void store(const AttentionArgs& args, const AttentionTask& task,
                               unsigned kv_head, unsigned query, unsigned lane,
                               const State& state) {
    if (query >= task.queries) return;
    float* partial = nullptr;
    if (task.partial != kNoPartial) {
      partial = args.partials + partial_offset(args, task.partial, kv_head, query);
      if (lane == 0) {
        partial[args.head_dim] = state.maximum;
        partial[args.head_dim + 1] = state.total;
      }
    }
    const QueryPlace place = query_place(task, args.group, kv_head, query);
    const std::size_t at = (std::size_t{place.row} * args.heads + place.head) * args.head_dim;
#pragma unroll
    for (unsigned i = 0; i < kColumns; ++i) {
      const unsigned column = lane + 32 * i;
      if (column >= args.head_dim) continue;
      if (partial != nullptr) {
        partial[column] = state.sums[i];
      } else {
        put(args, at + column, normalized(state.sums[i], state.total));
      }
    }
  }

  __device__ static void run_task(const AttentionArgs& args, const AttentionTask& task,
                                  unsigned kv_head, float* q, float* keys, float* values) {
    const unsigned lane = simt::thread() % 32;
    const unsigned first_query = simt::thread() / 32 * kWarpRows;
    const unsigned end_seen = task_end(task, args.group);
    const unsigned end_split = (task.first_split + task.splits) * kAttentionSplitTokens;
    const unsigned end = end_seen < end_split ? end_seen : end_split;
    const std::uint32_t* blocks = args.block_table + task.blocks;
    unsigned position[kWarpRows];
    State state[kWarpRows];
    State before[kWarpRows];
#pragma unroll
    for (unsigned j = 0; j < kWarpRows; ++j) {
      const unsigned query = first_query + j;
      position[j] =
          query_place(task, args.group, kv_head, query < task.queries ? query : task.queries - 1)
              .position;
      clear(state[j]);
      clear(before[j]);
    }
    const unsigned first = task.first_split * kAttentionSplitTokens;
    load_queries(args, task, kv_head, q);
    for (unsigned start = first; start < end; start += kTokens) {
      if (start % kAttentionSplitTokens == 0 && start != first) {
#pragma unroll
        for (unsigned j = 0; j < kWarpRows; ++j) {
          if (start == first + kAttentionSplitTokens) {
            before[j] = state[j];
          } else {
            merge_split(before[j], state[j]);
          }
          clear(state[j]);
        }
      }
      const std::byte* tile =
          args.cache + blocks[start / kTokens] * args.block_bytes + kv_head * args.head_bytes;
      const unsigned count = end - start < kTokens ? end - start : kTokens;
      load_tile(args, tile, count, args.head_dim + 1, keys);
      load_tile(args, tile + args.tile_bytes, count, args.head_dim, values);
      simt::barrier();
      float weights[kWarpRows];
      float decay[kWarpRows];
      unsigned seen[kWarpRows];
      multiply_keys(args, q + first_query * args.head_dim, keys, lane, weights);
#pragma unroll
      for (unsigned j = 0; j < kWarpRows; ++j) {
        const unsigned behind = position[j] + 1;
        const unsigned there = behind > start ? behind - start : 0;
        seen[j] = there < kTokens ? there : kTokens;
        weights[j] = weigh(weights[j] * args.scale, lane, seen[j], state[j], decay[j]);
      }
      multiply_values(args, values, weights, seen, decay, lane, state);
      simt::barrier();
    }
#pragma unroll
    for (unsigned j = 0; j < kWarpRows; ++j) {
      if ((end - 1) / kAttentionSplitTokens != task.first_split) {
        merge_split(before[j], state[j]);
        state[j] = before[j];
      }
      store(args, task, kv_head, first_query + j, lane, state[j]);
    }
  }

  __device__ static void run(const AttentionArgs& args, const AttentionTask* tasks,
                             std::uint32_t count) {
    float* q = reinterpret_cast<float*>(simt::shared_memory());
    float* keys = q + kQueries * args.head_dim;
    float* values = keys + kTokens * (args.head_dim + 1);
    for (unsigned i = simt::block_x(); i < count; i += simt::blocks_x()) {
      run_task(args, tasks[i], simt::block_y(), q, keys, values);
    }
  }
};

}  // namespace penstock::model
