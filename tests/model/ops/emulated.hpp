#pragma once

#include <cmath>
#include <numbers>
#include <span>

#include "tests/support/simt.hpp"
// The kernels, played by the above.
#include "model/ops/add_kernel.cuh"
#include "model/ops/attention_kernel.cuh"
#include "model/ops/attention_plain_kernel.cuh"
#include "model/ops/embedding_kernel.cuh"
#include "model/ops/kv_write.hpp"
#include "model/ops/product_proof_kernel.cuh"
#include "model/ops/rms_norm_kernel.cuh"
#include "model/ops/rope.hpp"
#include "model/ops/rope_kernel.cuh"
#include "model/ops/sample_kernel.cuh"
#include "model/ops/swiglu_kernel.cuh"

// The ops as *_cuda.cu launches them, on the played GPU. Grids and blocks are smaller, which no
// result may depend on but that of rms_norm.
namespace penstock::model {

struct Emulated {};

inline unsigned emulated_blocks(std::size_t count, unsigned threads) {
  return static_cast<unsigned>((count + threads - 1) / threads);
}

inline void add(const Emulated&, io::DType dtype, const void* a, const void* b, std::size_t count,
                void* out) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kWide = 16 / sizeof(T);
    const auto* x = static_cast<const T*>(a);
    const auto* y = static_cast<const T*>(b);
    if (count % kWide == 0) {
      simt::Machine::run(emulated_blocks(count / kWide, 64), 1, 64, 0,
                         [&] { add_packs<T, kWide>(x, y, count / kWide, static_cast<T*>(out)); });
    } else {
      simt::Machine::run(emulated_blocks(count, 64), 1, 64, 0,
                         [&] { add_packs<T, 1>(x, y, count, static_cast<T*>(out)); });
    }
  });
}

inline void swiglu(const Emulated&, io::DType dtype, std::size_t rows, std::size_t width,
                   const void* gate_up, void* out) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kWide = 16 / sizeof(T);
    const auto* from = static_cast<const T*>(gate_up);
    if (width % kWide == 0) {
      simt::Machine::run(emulated_blocks(rows * width / kWide, 64), 1, 64, 0, [&] {
        swiglu_packs<T, kWide>(from, rows, width / kWide, static_cast<T*>(out));
      });
    } else {
      simt::Machine::run(emulated_blocks(rows * width, 64), 1, 64, 0,
                         [&] { swiglu_packs<T, 1>(from, rows, width, static_cast<T*>(out)); });
    }
  });
}

inline void gather_rows(const Emulated&, const std::byte* table, std::size_t row_bytes,
                        std::span<const std::int32_t> rows_of, std::byte* out) {
  const auto rows = static_cast<unsigned>(rows_of.size());
  struct alignas(16) Unit {
    std::byte bytes[16];
  };
  if (row_bytes % 16 == 0) {
    simt::Machine::run(rows, 1, 32, 0, [&] {
      gather_units(reinterpret_cast<const Unit*>(table), row_bytes / 16, rows_of.data(),
                   reinterpret_cast<Unit*>(out));
    });
  } else {
    simt::Machine::run(rows, 1, 32, 0,
                       [&] { gather_units(table, row_bytes, rows_of.data(), out); });
  }
}

inline void rms_norm(const Emulated&, const RmsNorm& args) {
  with_type(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kWide = 16 / sizeof(T);
    constexpr unsigned kThreads = 256;
    simt::Machine::run(static_cast<unsigned>(args.rows), 1, kThreads, kThreads / 32 * sizeof(float),
                       [&] {
                         if (args.width % kWide == 0) {
                           norm_row<T, kWide>(args);
                         } else {
                           norm_row<T, 1>(args);
                         }
                       });
  });
}

inline void rope_table(const Emulated&, std::span<const std::uint32_t> positions,
                       std::span<const float> frequencies, float* table) {
  simt::Machine::run(emulated_blocks(positions.size() * frequencies.size(), 64), 1, 64, 0, [&] {
    rope_table_entry(positions.data(), positions.size(), frequencies.data(), frequencies.size(),
                     table);
  });
}

inline void run_rope(io::DType dtype, io::DType kv_dtype, std::size_t rows,
                     const RopeKvArgs& args) {
  const bool wide = args.head_dim % 8 == 0 && args.row_stride % 4 == 0;
  with_type(dtype, [&](auto zero) {
    with_type(kv_dtype, [&](auto kv_zero) {
      using T = decltype(zero);
      using Kv = decltype(kv_zero);
      simt::Machine::run(static_cast<unsigned>(rows), 1, 32, 0, [&] {
        if (wide) {
          rope_kv_row<T, Kv, 4>(args);
        } else {
          rope_kv_row<T, Kv, 1>(args);
        }
      });
    });
  });
}

inline void rope(const Emulated&, const Rope& args) {
  RopeKvArgs all{};
  all.x = static_cast<std::byte*>(args.x);
  all.row_stride = args.row_stride;
  all.table = args.table;
  all.heads = static_cast<unsigned>(args.heads);
  all.head_dim = static_cast<unsigned>(args.head_dim);
  run_rope(args.dtype, args.dtype, args.rows, all);
}

inline void rope_and_kv_write(const Emulated&, const RopeKvWrite& args) {
  RopeKvArgs all{};
  all.x = static_cast<std::byte*>(args.qkv);
  all.row_stride = args.row_stride;
  all.table = args.table;
  all.cache = args.cache;
  all.blocks = args.blocks;
  all.positions = args.positions;
  all.block_bytes = args.layout.block_bytes();
  all.head_bytes = args.layout.head_bytes();
  all.tile_bytes = args.layout.tile_bytes();
  all.heads = static_cast<unsigned>(args.heads + args.layout.kv_heads);
  all.kv_heads = static_cast<unsigned>(args.layout.kv_heads);
  all.head_dim = static_cast<unsigned>(args.layout.head_dim);
  run_rope(args.dtype, args.layout.dtype, args.rows, all);
}

inline bool on_tensor_cores(io::DType dtype, const CudaKvLayout& layout) {
  return dtype != io::DType::f32 && dtype == layout.dtype;
}

inline AttentionShape attention_shape(const Emulated&, std::size_t heads, io::DType dtype,
                                      const CudaKvLayout& layout) {
  AttentionShape shape;
  shape.group = static_cast<std::uint32_t>(heads / layout.kv_heads);
  shape.wide_queries = on_tensor_cores(dtype, layout) ? 4 * kWarpQueries : PlainAttention::kQueries;
  shape.narrow_queries = std::min(shape.group, kMostNarrowQueries);
  shape.partial_floats = layout.kv_heads * shape.narrow_queries * (layout.head_dim + 4);
  return shape;
}

template <class T, unsigned kHeadDim, unsigned kWarps>
void run_tensor(const AttentionArgs& args, const CudaKvLayout& layout, const AttentionTask* tasks,
                std::uint32_t count) {
  using Code = TensorAttention<T, kHeadDim, kWarps>;
  simt::Machine::run(3, static_cast<unsigned>(layout.kv_heads), Code::kThreads,
                     Code::shared_bytes(kWarps > 1), [&] { Code::run(args, tasks, count); });
}

template <unsigned kWarps>
void run_tasks(const AttentionArgs& args, const CudaKvLayout& layout, const AttentionTask* tasks,
               std::uint32_t count) {
  if (count == 0) return;
  if (!on_tensor_cores(args.dtype, layout)) {
    simt::Machine::run(3, static_cast<unsigned>(layout.kv_heads), PlainAttention::kThreads,
                       PlainAttention::shared_bytes(layout.head_dim),
                       [&] { PlainAttention::run(args, tasks, count); });
    return;
  }
  const auto typed = [&](auto zero) {
    using T = decltype(zero);
    if (layout.head_dim <= 64) return run_tensor<T, 64, kWarps>(args, layout, tasks, count);
    if (layout.head_dim <= 80) return run_tensor<T, 80, kWarps>(args, layout, tasks, count);
    if (layout.head_dim <= 96) return run_tensor<T, 96, kWarps>(args, layout, tasks, count);
    if (layout.head_dim <= 128) return run_tensor<T, 128, kWarps>(args, layout, tasks, count);
    return run_tensor<T, 256, kWarps>(args, layout, tasks, count);
  };
  if (args.dtype == io::DType::bf16) {
    typed(__nv_bfloat16());
  } else {
    typed(__half());
  }
}

inline void attention(const Emulated&, const CudaAttention& from) {
  const AttentionArgs args = attention_args(from);
  run_tasks<4>(args, from.layout, from.wide, from.counts->wide);
  run_tasks<1>(args, from.layout, from.narrow, from.counts->narrow);
  simt::Machine::run(2, static_cast<unsigned>(from.layout.kv_heads) * from.shape.narrow_queries, 32,
                     0, [&] { merge_partials(args, from.merges, from.counts->merges); });
}

inline void sample(const Emulated&, const Sample& args) {
  simt::Machine::run(static_cast<unsigned>(args.most), 1, 96, sizeof(RowSampler::Shared),
                     [&] { sample_rows(args); });
}

}  // namespace penstock::model
