#include "jobs/memory_shares.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "jobs/report.hpp"
#include "model/host_memory.hpp"

namespace penstock::jobs {
namespace {

// What each of a node's ranks may still take. All must ask before any of them takes it.
std::uint64_t memory_share(int node_ranks) {
  return model::available_memory_bytes() / static_cast<std::uint64_t>(node_ranks);
}

// What a stage may take of its GPU for the KV cache. What kv_memory_bytes() leaves free for
// activations is one stage's, so those that share a GPU leave it once more each.
std::uint64_t gpu_share(const KvRequest& request) {
  const std::uint64_t free = request.stage.kv_memory_bytes();
  if (request.device.sharers == 1) return free;
  const std::uint64_t share = free / static_cast<std::uint64_t>(request.device.sharers);
  const std::uint64_t activations = 2 * std::uint64_t{request.options.slots} *
                                    request.options.max_step_tokens *
                                    request.stage.activation_row_bytes();
  return share - std::min(share, activations);
}

// What a stage may take for its KV cache, and of whom it has that.
struct KvShare {
  std::uint64_t bytes = 0;
  int sharers = 1;
  std::string_view place;  // that they share
  std::string device;      // with memory of its own; empty on CPUs
};

KvShare kv_share(const KvRequest& request) {
  switch (request.device.kind) {
    case DeviceKind::cuda:
      return {gpu_share(request), request.device.sharers, "GPU",
              comm::device::describe(request.device.gpu)};
    case DeviceKind::virtual_device:
      return {request.stage.kv_memory_bytes(), 1, "device", request.stage.numeric_class()};
    default:
      return {memory_share(request.node_ranks), request.node_ranks, "node", ""};
  }
}

}  // namespace

int RankPlace::threads(const PipelineChoice& choice) const {
  return choice.threads > 0 ? choice.threads : comm::default_threads(cpus, node_ranks);
}

RankPlace place_of(const comm::World& world, const Layout& layout) {
  RankPlace place{comm::cpu_placement(), world.node_size()};
  if (layout.link == LinkKind::local) {  // the stages share what this one process may use
    place.node_ranks = layout.ranks();
    place.cpus.node_cpus = std::min(place.cpus.node_cpus, place.cpus.allowed_cpus);
  }
  return place;
}

std::uint64_t load_memory(const StageDevice& device, int node_ranks) {
  if (device.kind == DeviceKind::virtual_device) return 0;
  if (device.kind != DeviceKind::cuda) return memory_share(node_ranks);
  if (device.sharers == 1) return 0;
  return comm::device::gpu_memory().free_bytes / static_cast<std::uint64_t>(device.sharers);
}

std::uint64_t memory_beside_steps(std::uint64_t memory_bytes, const model::ModelConfig& c,
                                  io::DType dtype, std::uint32_t max_step_tokens,
                                  int buffered_steps) {
  // The wide buffers of a step; a stage checks all of them, exactly, before it allocates any.
  const auto width = static_cast<std::uint64_t>(3 * c.intermediate_size + 5 * c.hidden_size +
                                                (c.num_heads + 2 * c.num_kv_heads) * c.head_dim);
  const auto between = static_cast<std::uint64_t>(2 * buffered_steps * c.hidden_size);
  const std::uint64_t bytes = max_step_tokens * (width + between) * io::size_of(dtype);
  return memory_bytes - std::min(memory_bytes, bytes);
}

std::uint64_t useful_kv_blocks(std::uint32_t slots, std::uint32_t max_sequences,
                               std::uint32_t context_limit) {
  constexpr std::uint64_t kUsualContext = 2048;
  const std::uint64_t sequences = std::uint64_t{slots} * max_sequences;
  const std::uint64_t tokens = std::min<std::uint64_t>(context_limit, kUsualContext);
  return std::max(sequences * tokens, std::uint64_t{context_limit}) / model::kKvBlockTokens + 1;
}

std::uint64_t affordable_kv_blocks(const KvRequest& request) {
  const auto [share, sharers, place, own_memory] = kv_share(request);
  const std::uint64_t block_bytes = request.stage.kv_block_bytes();
  if (request.kv_memory > 0) {
    const std::uint64_t blocks = request.kv_memory / block_bytes;
    if (blocks == 0) {
      throw UsageError(fmt::format("--kv-memory {} holds no KV block of {}: give more",
                                   format_bytes(request.kv_memory), format_bytes(block_bytes)));
    }
    if (blocks * block_bytes > share) {
      throw UsageError(
          fmt::format("--kv-memory {} is more than the {} that each of the {} ranks on this {} "
                      "can still have: give less, or start fewer ranks on a {}",
                      format_bytes(request.kv_memory), format_bytes(share), sharers, place, place));
    }
    return blocks;
  }
  if (!own_memory.empty() && share < block_bytes) {
    throw UsageError(
        fmt::format("{} has {} left for the KV cache beside weights and activations, less than a "
                    "block of {}: use more stages, or less --max-step-tokens",
                    own_memory, format_bytes(share), format_bytes(block_bytes)));
  }
  const std::uint64_t useful =
      useful_kv_blocks(request.options.slots, request.options.max_sequences, request.context_limit);
  // A device has nothing else to do; a node's memory also holds files and other programs.
  return std::clamp<std::uint64_t>((own_memory.empty() ? share / 2 : share) / block_bytes, 1,
                                   useful);
}

}  // namespace penstock::jobs
