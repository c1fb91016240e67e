#pragma once

// The code of a thread block of attention on tensor cores, and of the merge of partial results; see
// simt_cuda.cuh for what is included first.

#include <cstddef>
#include <cstdint>

#include "model/ops/attention_common.cuh"

namespace penstock::model {

// ---- Tensor cores: 16-bit q, keys and values of one type. A warp computes 16 queries; all warps
// of the block share the tiles. kHeadDim is head_dim rounded up, the rest is zero.

template <class T, unsigned kHeadDim, unsigned kWarps>
struct TensorAttention {
  static_assert(sizeof(T) == 2 && kHeadDim % 16 == 0);
  static constexpr unsigned kThreads = 32 * kWarps;
  static constexpr unsigned kQueries = kWarpQueries * kWarps;
  // Elements from row to row: 16 bytes more than a multiple of 32 keep eight rows that are read at
  // once in different banks.
  static constexpr unsigned kPitch = kHeadDim + 8;
  static constexpr unsigned kVectors = kHeadDim / 8;  // of 16 bytes in a row
  static constexpr unsigned kTokenGroups = kTileTokens / 8;
  static constexpr unsigned kColumnGroups = kHeadDim / 8;
  // How far loops are unrolled: with all of 256 columns the registers do not suffice.
  static constexpr unsigned kKeySteps = kHeadDim > 128 ? 1 : kHeadDim / 16;
  static constexpr unsigned kCopySteps = kHeadDim > 128 ? 1 : 4;

  static constexpr std::size_t shared_bytes(bool several_splits) {
    const std::size_t rows = kQueries + 2 * kTileTokens;
    return rows * kPitch * sizeof(T) + (several_splits ? kQueries * kHeadDim * sizeof(float) : 0);
  }

  struct Shared {
    T* q;       // [kQueries][kPitch]
    T* keys;    // [kTileTokens][kPitch]
    T* values;  // [kTileTokens][kPitch]
    // The sums of the splits so far, each thread's own: [kColumnGroups * 4][kThreads].
    float* sums;
  };

  // Of a lane's two queries, l / 4 and l / 4 + 8 of the warp's.
  struct State {
    float maximum[2];
    float total[2];
    float sums[kColumnGroups][4];
  };

  __device__ static void clear(State& state) {
#pragma unroll
    for (unsigned r = 0; r < 2; ++r) {
      state.maximum[r] = kNothing;
      state.total[r] = 0.0f;
    }
#pragma unroll
    for (unsigned n = 0; n < kColumnGroups; ++n) {
#pragma unroll
      for (unsigned i = 0; i < 4; ++i) state.sums[n][i] = 0.0f;
    }
  }

  __device__ static void load_queries(const AttentionArgs& args, const AttentionTask& task,
                                      unsigned kv_head, T* to) {
    const T* from = reinterpret_cast<const T*>(args.q);
    for (unsigned v = simt::thread(); v < kQueries * kVectors; v += kThreads) {
      const unsigned query = v / kVectors;
      const unsigned column = v % kVectors * 8;
      const bool valid = query < task.queries && column < args.head_dim;
      const QueryPlace place = query_place(task, args.group, kv_head, valid ? query : 0);
      const T* source = from + place.row * args.q_stride + place.head * args.head_dim;
      simt::copy16_async(to + query * kPitch + column, source + (valid ? column : 0), valid);
    }
  }

  // Keys or values of the tile at `start`; rows from `end` on become zeros, since what lies there
  // may be anything, and a weight of zero does not make it nothing.
  __device__ static void load_tile(const AttentionArgs& args, const std::uint32_t* blocks,
                                   std::size_t offset, unsigned start, unsigned end, T* to) {
    constexpr unsigned kBlocks = kTileTokens / CudaKvLayout::kTokens;
    const std::byte* tiles[kBlocks];
#pragma unroll
    for (unsigned b = 0; b < kBlocks; ++b) {
      const unsigned token = start + b * CudaKvLayout::kTokens;
      const unsigned block = blocks[(token < end ? token : start) / CudaKvLayout::kTokens];
      tiles[b] = args.cache + block * args.block_bytes + offset;
    }
#pragma unroll
    for (unsigned b = 0; b < kBlocks; ++b) {
      const T* tile = reinterpret_cast<const T*>(tiles[b]);
#pragma unroll kCopySteps
      for (unsigned v = simt::thread(); v < CudaKvLayout::kTokens * kVectors; v += kThreads) {
        const unsigned token = v / kVectors;
        const unsigned column = v % kVectors * 8;
        const unsigned row = b * CudaKvLayout::kTokens + token;
        const bool valid = start + row < end && column < args.head_dim;
        simt::copy16_async(to + row * kPitch + column,
                           tile + (valid ? token * args.head_dim + column : 0), valid);
      }
    }
  }

  // scores = q . keys^T of the warp's queries and the tile's tokens.
  __device__ static void multiply_keys(const T* q, const T* keys, unsigned lane,
                                       float (&scores)[kTokenGroups][4]) {
#pragma unroll
    for (unsigned n = 0; n < kTokenGroups; ++n) {
#pragma unroll
      for (unsigned i = 0; i < 4; ++i) scores[n][i] = 0.0f;
    }
    const T* q_row = q + lane % 16 * kPitch + lane / 16 * 8;
    const T* key_row = keys + (lane / 16 * 8 + lane % 8) * kPitch + lane / 8 % 2 * 8;
#pragma unroll kKeySteps
    for (unsigned k = 0; k < kHeadDim; k += 16) {
      std::uint32_t a[4];
      simt::load_matrices(a, q_row + k);
#pragma unroll
      for (unsigned n = 0; n < kTokenGroups; n += 2) {
        std::uint32_t b[4];
        simt::load_matrices(b, key_row + n * 8 * kPitch + k);
        simt::multiply_add<T>(scores[n], a, b[0], b[1]);
        simt::multiply_add<T>(scores[n + 1], a, b[2], b[3]);
      }
    }
  }

  // Scores become weights; returns what is left of the sums so far.
  __device__ static void weigh(float scale, unsigned start, const unsigned (&position)[2],
                               unsigned lane, State& state, float (&scores)[kTokenGroups][4],
                               float (&decay)[2]) {
    const unsigned first_token = start + lane % 4 * 2;
#pragma unroll
    for (unsigned r = 0; r < 2; ++r) {
      float top = kNothing;
#pragma unroll
      for (unsigned n = 0; n < kTokenGroups; ++n) {
#pragma unroll
        for (unsigned c = 0; c < 2; ++c) {
          const bool seen = first_token + n * 8 + c <= position[r];
          const float score = seen ? scores[n][2 * r + c] * scale : kNothing;
          scores[n][2 * r + c] = score;
          top = fmaxf(top, score);
        }
      }
      top = fmaxf(top, simt::shuffle_xor(top, 1));
      top = fmaxf(top, simt::shuffle_xor(top, 2));
      const SoftmaxStep step = softmax_step(state.maximum[r], top);
      float sum = 0.0f;
#pragma unroll
      for (unsigned n = 0; n < kTokenGroups; ++n) {
#pragma unroll
        for (unsigned c = 0; c < 2; ++c) {
          const float weight = simt::exp2_fast(scores[n][2 * r + c] - step.shift);
          scores[n][2 * r + c] = weight;
          sum += weight;
        }
      }
      sum += simt::shuffle_xor(sum, 1);
      sum += simt::shuffle_xor(sum, 2);
      decay[r] = step.decay;
      state.total[r] = fmaf(state.total[r], step.decay, sum);
    }
  }

  // sums = sums * decay + weights . values. The product of a tile starts from zero and is added in
  // f32, so that a tile of which a query sees nothing adds an exact zero.
  __device__ static void multiply_values(const float (&weights)[kTokenGroups][4], const T* values,
                                         unsigned lane, const float (&decay)[2], State& state) {
    std::uint32_t a[kTileTokens / 16][4];
#pragma unroll
    for (unsigned k = 0; k < kTileTokens / 16; ++k) {
      a[k][0] = packed<T>(weights[2 * k][0], weights[2 * k][1]);
      a[k][1] = packed<T>(weights[2 * k][2], weights[2 * k][3]);
      a[k][2] = packed<T>(weights[2 * k + 1][0], weights[2 * k + 1][1]);
      a[k][3] = packed<T>(weights[2 * k + 1][2], weights[2 * k + 1][3]);
    }
    const T* value_row = values + lane % 16 * kPitch + lane / 16 * 8;
#pragma unroll
    for (unsigned n = 0; n < kColumnGroups; n += 2) {
      float product[2][4] = {};
#pragma unroll
      for (unsigned k = 0; k < kTileTokens / 16; ++k) {
        std::uint32_t b[4];
        simt::load_matrices_transposed(b, value_row + k * 16 * kPitch + n * 8);
        simt::multiply_add<T>(product[0], a[k], b[0], b[1]);
        simt::multiply_add<T>(product[1], a[k], b[2], b[3]);
      }
#pragma unroll
      for (unsigned half = 0; half < 2; ++half) {
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
          state.sums[n + half][i] = fmaf(state.sums[n + half][i], decay[i / 2], product[half][i]);
        }
      }
    }
  }

  // Takes a split that is done into the state of those before it, which lies in shared memory; the
  // first one is kept as it is.
  __device__ static void merge_split(bool first, float* sums, float (&maximum)[2],
                                     float (&total)[2], const State& state) {
    if (first) {
#pragma unroll
      for (unsigned n = 0; n < kColumnGroups; ++n) {
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
          sums[(n * 4 + i) * kThreads + simt::thread()] = state.sums[n][i];
        }
      }
#pragma unroll
      for (unsigned r = 0; r < 2; ++r) {
        maximum[r] = state.maximum[r];
        total[r] = state.total[r];
      }
      return;
    }
    MergeScale scale[2];
#pragma unroll
    for (unsigned r = 0; r < 2; ++r) {
      scale[r] = merge_scale(maximum[r], state.maximum[r]);
      total[r] = merged(scale[r], total[r], state.total[r]);
    }
#pragma unroll
    for (unsigned n = 0; n < kColumnGroups; ++n) {
#pragma unroll
      for (unsigned i = 0; i < 4; ++i) {
        float& sum = sums[(n * 4 + i) * kThreads + simt::thread()];
        sum = merged(scale[i / 2], sum, state.sums[n][i]);
      }
    }
  }

  __device__ static void store(const AttentionArgs& args, const AttentionTask& task,
                               unsigned kv_head, unsigned lane, unsigned warp, const State& state) {
#pragma unroll
    for (unsigned r = 0; r < 2; ++r) {
      const unsigned query = warp * kWarpQueries + lane / 4 + r * 8;
      if (query >= task.queries) continue;
      if (task.partial != kNoPartial) {
        float* to = args.partials + partial_offset(args, task.partial, kv_head, query);
#pragma unroll
        for (unsigned n = 0; n < kColumnGroups; ++n) {
          const unsigned column = n * 8 + lane % 4 * 2;
          if (column >= args.head_dim) continue;
          to[column] = state.sums[n][2 * r];
          to[column + 1] = state.sums[n][2 * r + 1];
        }
        if (lane % 4 == 0) {
          to[args.head_dim] = state.maximum[r];
          to[args.head_dim + 1] = state.total[r];
        }
        continue;
      }
      const QueryPlace place = query_place(task, args.group, kv_head, query);
      T* to = reinterpret_cast<T*>(args.out) +
              (std::size_t{place.row} * args.heads + place.head) * args.head_dim;
#pragma unroll
      for (unsigned n = 0; n < kColumnGroups; ++n) {
        const unsigned column = n * 8 + lane % 4 * 2;
        if (column >= args.head_dim) continue;
        *reinterpret_cast<std::uint32_t*>(to + column) =
            packed<T>(normalized(state.sums[n][2 * r], state.total[r]),
                      normalized(state.sums[n][2 * r + 1], state.total[r]));
      }
    }
  }

  __device__ static void run_task(const AttentionArgs& args, const AttentionTask& task,
                                  unsigned kv_head, const Shared& shared) {
    const unsigned lane = simt::thread() % 32;
    const unsigned warp = simt::thread() / 32;
    const unsigned end_seen = task_end(task, args.group);
    const unsigned end_split = (task.first_split + task.splits) * kAttentionSplitTokens;
    const unsigned end = end_seen < end_split ? end_seen : end_split;
    const unsigned first_tile = task.first_split * kSplitTiles;
    const unsigned tiles = (end + kTileTokens - 1) / kTileTokens;
    const std::uint32_t* blocks = args.block_table + task.blocks;
    const std::size_t key_offset = kv_head * args.head_bytes;

    // Queries behind the last are zeros, and see what the last one sees; nothing of them is stored.
    unsigned position[2];
#pragma unroll
    for (unsigned r = 0; r < 2; ++r) {
      const unsigned query = warp * kWarpQueries + lane / 4 + r * 8;
      position[r] =
          query_place(task, args.group, kv_head, query < task.queries ? query : task.queries - 1)
              .position;
    }
    const unsigned last_query = warp * kWarpQueries + kWarpQueries - 1;
    const unsigned last_position =
        query_place(task, args.group, kv_head,
                    last_query < task.queries ? last_query : task.queries - 1)
            .position;
    const bool working = warp * kWarpQueries < task.queries;

    State state;
    clear(state);
    float maximum[2] = {kNothing, kNothing};
    float total[2] = {0.0f, 0.0f};

    load_queries(args, task, kv_head, shared.q);
    load_tile(args, blocks, key_offset, first_tile * kTileTokens, end, shared.keys);
    for (unsigned tile = first_tile; tile < tiles; ++tile) {
      const unsigned start = tile * kTileTokens;
      simt::copies_done();
      simt::barrier();  // keys are here; nobody reads the values of the tile before
      load_tile(args, blocks, key_offset + args.tile_bytes, start, end, shared.values);
      const bool seen = working && start <= last_position;  // the same for all lanes
      float scores[kTokenGroups][4];
      if (seen) {
        multiply_keys(shared.q + warp * kWarpQueries * kPitch, shared.keys, lane, scores);
      }
      simt::copies_done();
      simt::barrier();  // values are here; nobody reads the keys
      if (tile + 1 < tiles) {
        load_tile(args, blocks, key_offset, start + kTileTokens, end, shared.keys);
      }
      if (seen) {
        float decay[2];
        weigh(args.scale, start, position, lane, state, scores, decay);
        multiply_values(scores, shared.values, lane, decay, state);
      }
      if ((tile + 1) % kSplitTiles == 0 && tile + 1 < tiles) {
        merge_split(tile / kSplitTiles == task.first_split, shared.sums, maximum, total, state);
        clear(state);
      }
    }
    if ((tiles - 1) / kSplitTiles != task.first_split) {
      merge_split(false, shared.sums, maximum, total, state);
#pragma unroll
      for (unsigned r = 0; r < 2; ++r) {
        state.maximum[r] = maximum[r];
        state.total[r] = total[r];
      }
#pragma unroll
      for (unsigned n = 0; n < kColumnGroups; ++n) {
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
          state.sums[n][i] = shared.sums[(n * 4 + i) * kThreads + simt::thread()];
        }
      }
    }
    // No barrier: the next task fills q and keys, which nobody has read since the last one.
    if (working) store(args, task, kv_head, lane, warp, state);
  }

  // Blocks [x, kv head] of any number along x.
  __device__ static void run(const AttentionArgs& args, const AttentionTask* tasks,
                             std::uint32_t count) {
    Shared shared;
    shared.q = reinterpret_cast<T*>(simt::shared_memory());
    shared.keys = shared.q + kQueries * kPitch;
    shared.values = shared.keys + kTileTokens * kPitch;
    shared.sums = reinterpret_cast<float*>(shared.values + kTileTokens * kPitch);
    for (unsigned i = simt::block_x(); i < count; i += simt::blocks_x()) {
      run_task(args, tasks[i], simt::block_y(), shared);
    }
  }
};

// Merges the partial results of one query, a thread for each column.
__device__ inline void merge_partials(const AttentionArgs& args, const AttentionMerge* merges,
                                      std::uint32_t count) {
  const unsigned kv_head = simt::block_y() / args.narrow_queries;
  const unsigned query = simt::block_y() % args.narrow_queries;
  for (unsigned i = simt::block_x(); i < count; i += simt::blocks_x()) {
    const AttentionMerge merge = merges[i];
    if (query >= merge.queries) continue;
    for (unsigned column = simt::thread(); column < args.head_dim; column += simt::threads()) {
      const float* from = args.partials + partial_offset(args, merge.partial, kv_head, query);
      float maximum = from[args.head_dim];
      float total = from[args.head_dim + 1];
      float sum = from[column];
#pragma unroll 4
      for (unsigned split = 1; split < merge.splits; ++split) {
        from += args.partial_floats;
        const MergeScale scale = merge_scale(maximum, from[args.head_dim]);
        total = merged(scale, total, from[args.head_dim + 1]);
        sum = merged(scale, sum, from[column]);
      }
      const unsigned head = kv_head * args.group + merge.first + query;
      const std::size_t at = (std::size_t{merge.row} * args.heads + head) * args.head_dim + column;
      const float value = normalized(sum, total);
      switch (args.dtype) {
        case io::DType::f32:
          reinterpret_cast<float*>(args.out)[at] = value;
          break;
        case io::DType::bf16:
          reinterpret_cast<__nv_bfloat16*>(args.out)[at] = rounded<__nv_bfloat16>(value);
          break;
        case io::DType::f16:
          reinterpret_cast<__half*>(args.out)[at] = rounded<__half>(value);
          break;
      }
    }
  }
}

}  // namespace penstock::model
