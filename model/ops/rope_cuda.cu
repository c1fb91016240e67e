#include "model/ops/rope.hpp"

// clang-format off
#include "model/ops/simt_cuda.cuh"
#include "model/step_plan.hpp"
#include "model/ops/rope_kernel.cuh"
// clang-format on
#include "model/error.hpp"
#include "model/ops/kv_write.hpp"
#include "model/ops/launch_cuda.cuh"

namespace penstock::model {
namespace {

constexpr unsigned kTableThreads = 128;
constexpr unsigned kThreads = 256;

__global__ void table_kernel(const std::uint32_t* positions, std::size_t rows,
                             const float* frequencies, std::size_t half, float* table) {
  rope_table_entry(positions, rows, frequencies, half, table);
}

template <class T, class Kv, int kWidth>
__global__ void rope_kv_kernel(const RopeKvArgs args) {
  rope_kv_row<T, Kv, kWidth>(args);
}

void run(const Cuda& device, io::DType dtype, io::DType kv_dtype, std::size_t rows,
         const RopeKvArgs& args) {
  if (rows == 0) return;
  if (args.head_dim % 2 != 0) throw ModelError("a rotary embedding needs an even head_dim");
  const bool wide = args.head_dim % 8 == 0 && args.row_stride % 4 == 0 && aligned16(args.x);
  with_type(dtype, [&](auto zero) {
    with_type(kv_dtype, [&](auto kv_zero) {
      using T = decltype(zero);
      using Kv = decltype(kv_zero);
      launch(device, wide ? rope_kv_kernel<T, Kv, 4> : rope_kv_kernel<T, Kv, 1>,
             dim3(static_cast<unsigned>(rows)), kThreads, 0, args);
    });
  });
}

}  // namespace

void rope_table(const Cuda& device, std::span<const std::uint32_t> positions,
                std::span<const float> frequencies, float* table) {
  const std::size_t entries = positions.size() * frequencies.size();
  if (entries == 0) return;
  launch(device, table_kernel, grid_for(entries, kTableThreads), kTableThreads, 0, positions.data(),
         positions.size(), frequencies.data(), frequencies.size(), table);
}

void rope(const Cuda& device, const Rope& args) {
  RopeKvArgs all{};
  all.x = static_cast<std::byte*>(args.x);
  all.row_stride = args.row_stride;
  all.table = args.table;
  all.heads = static_cast<unsigned>(args.heads);
  all.head_dim = static_cast<unsigned>(args.head_dim);
  run(device, args.dtype, args.dtype, args.rows, all);
}

void rope_and_kv_write(const Cuda& device, const RopeKvWrite& args) {
  const CudaKvLayout& layout = args.layout;
  RopeKvArgs all{};
  all.x = static_cast<std::byte*>(args.qkv);
  all.row_stride = args.row_stride;
  all.table = args.table;
  all.cache = args.cache;
  all.blocks = args.blocks;
  all.positions = args.positions;
  all.block_bytes = layout.block_bytes();
  all.head_bytes = layout.head_bytes();
  all.tile_bytes = layout.tile_bytes();
  all.heads = static_cast<unsigned>(args.heads + layout.kv_heads);
  all.kv_heads = static_cast<unsigned>(layout.kv_heads);
  all.head_dim = static_cast<unsigned>(layout.head_dim);
  run(device, args.dtype, layout.dtype, args.rows, all);
}

}  // namespace penstock::model
