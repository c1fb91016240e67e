// clang-format off
#include "model/ops/simt_cuda.cuh"
#include "model/ops/attention_kernel.cuh"
#include "model/ops/attention_plain_kernel.cuh"
// clang-format on

#include <algorithm>
#include <string>

#include "model/error.hpp"
#include "model/ops/launch_cuda.cuh"

namespace penstock::model {
namespace {

// Blocks that a multiprocessor is given at once; the rest is a loop in the kernel.
constexpr unsigned kBlocksEach = 8;
constexpr unsigned kWideWarps = 4;

template <class T, unsigned kHeadDim, unsigned kWarps>
__global__ void __launch_bounds__(32 * kWarps, 1)
    tensor_attention(const AttentionArgs args, const AttentionTask* tasks,
                     const std::uint32_t* count) {
  TensorAttention<T, kHeadDim, kWarps>::run(args, tasks, *count);
}

__global__ void __launch_bounds__(PlainAttention::kThreads)
    plain_attention(const AttentionArgs args, const AttentionTask* tasks,
                    const std::uint32_t* count) {
  PlainAttention::run(args, tasks, *count);
}

__global__ void merge_attention(const AttentionArgs args, const AttentionMerge* merges,
                                const std::uint32_t* count) {
  merge_partials(args, merges, *count);
}

using Kernel = void (*)(AttentionArgs, const AttentionTask*, const std::uint32_t*);

// A kernel with its launch.
struct Variant {
  Kernel kernel = nullptr;
  unsigned queries = 0;
  unsigned threads = 0;
  std::size_t shared_bytes = 0;
};

template <class T, unsigned kHeadDim, unsigned kWarps>
Variant tensor_variant(bool several_splits) {
  using Code = TensorAttention<T, kHeadDim, kWarps>;
  return {tensor_attention<T, kHeadDim, kWarps>, Code::kQueries, Code::kThreads,
          Code::shared_bytes(several_splits)};
}

template <class T, unsigned kWarps>
Variant tensor_variant(std::size_t head_dim, bool several_splits) {
  if (head_dim <= 64) return tensor_variant<T, 64, kWarps>(several_splits);
  if (head_dim <= 80) return tensor_variant<T, 80, kWarps>(several_splits);
  if (head_dim <= 96) return tensor_variant<T, 96, kWarps>(several_splits);
  if (head_dim <= 128) return tensor_variant<T, 128, kWarps>(several_splits);
  return tensor_variant<T, 256, kWarps>(several_splits);
}

template <unsigned kWarps>
Variant tensor_variant(io::DType dtype, std::size_t head_dim, bool several_splits) {
  return dtype == io::DType::bf16 ? tensor_variant<__nv_bfloat16, kWarps>(head_dim, several_splits)
                                  : tensor_variant<__half, kWarps>(head_dim, several_splits);
}

bool uses_tensor_cores(io::DType dtype, const CudaKvLayout& layout) {
  return dtype != io::DType::f32 && dtype == layout.dtype;
}

Variant variant(const Cuda& device, io::DType dtype, const CudaKvLayout& layout, bool wide) {
  if (!uses_tensor_cores(dtype, layout)) {
    return {plain_attention, PlainAttention::kQueries, PlainAttention::kThreads,
            PlainAttention::shared_bytes(layout.head_dim)};
  }
  if (!wide) return tensor_variant<1>(dtype, layout.head_dim, false);
  const Variant many = tensor_variant<kWideWarps>(dtype, layout.head_dim, true);
  const std::size_t room = device_attribute(device, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  return many.shared_bytes <= room ? many : tensor_variant<1>(dtype, layout.head_dim, true);
}

void launch_tasks(const Cuda& device, const CudaAttention& from, bool wide, std::uint32_t most,
                  const AttentionTask* tasks, const std::uint32_t* count) {
  if (most == 0) return;
  const Variant chosen = variant(device, from.dtype, from.layout, wide);
  const auto kv_heads = static_cast<unsigned>(from.layout.kv_heads);
  const unsigned blocks = device_attribute(device, cudaDevAttrMultiProcessorCount) * kBlocksEach;
  const unsigned along = std::max(1u, std::min(most, blocks / kv_heads + 1));
  launch(device, chosen.kernel, dim3(along, kv_heads), chosen.threads, chosen.shared_bytes,
         attention_args(from), tasks, count);
}

}  // namespace

AttentionShape::AttentionShape(const Cuda& device, std::size_t heads, io::DType dtype,
                               const CudaKvLayout& layout) {
  if (layout.head_dim == 0 || layout.head_dim % 8 != 0 ||
      layout.head_dim > PlainAttention::kMostHeadDim) {
    throw ModelError("attention on a GPU needs a head_dim that is a multiple of 8 and at most " +
                     std::to_string(PlainAttention::kMostHeadDim) + ", not " +
                     std::to_string(layout.head_dim));
  }
  if (layout.kv_heads == 0 || heads == 0 || heads % layout.kv_heads != 0) {
    throw ModelError(std::to_string(heads) + " heads do not share " +
                     std::to_string(layout.kv_heads) + " kv heads");
  }
  group = static_cast<std::uint32_t>(heads / layout.kv_heads);
  narrow_queries = std::min(group, kMostNarrowQueries);
  partial_floats = layout.kv_heads * narrow_queries * (layout.head_dim + 4);
  for (const bool wide : {false, true}) {
    const Variant chosen = variant(device, dtype, layout, wide);
    if (wide) wide_queries = chosen.queries;
    // More than 48 KiB must be asked for, once for each kernel and GPU.
    const std::size_t room = device_attribute(device, cudaDevAttrMaxSharedMemoryPerBlockOptin);
    PENSTOCK_CUDA_CALL(cudaFuncSetAttribute(
        chosen.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(room)));
  }
}

void attention(const Cuda& device, const CudaAttention& args) {
  static_assert(sizeof(AttentionCounts) == 3 * sizeof(std::uint32_t));
  const auto* counts = reinterpret_cast<const std::uint32_t*>(args.counts);
  launch_tasks(device, args, true, args.most.wide, args.wide, counts);
  launch_tasks(device, args, false, args.most.narrow, args.narrow, counts + 1);
  if (args.most.merges == 0) return;
  const auto rows = static_cast<unsigned>(args.layout.kv_heads) * args.shape.narrow_queries;
  const auto threads = static_cast<unsigned>((args.layout.head_dim + 31) / 32 * 32);
  launch(device, merge_attention, dim3(args.most.merges, rows), threads, 0, attention_args(args),
         args.merges, counts + 2);
}

}  // namespace penstock::model
