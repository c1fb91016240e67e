#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "io/checkpoint.hpp"
#include "io/dtype.hpp"
#include "model/config.hpp"
#include "model/stage_plan.hpp"
#include "model/step_plan.hpp"

namespace penstock::model {

// What a stage is built with.
struct StageOptions {
  io::DType dtype = io::DType::bf16;     // weights, activations
  io::DType kv_dtype = io::DType::bf16;  // KV cache
  int threads = 1;
  std::uint32_t max_rows = 512;     // rows of the largest step
  std::uint32_t max_samples = 256;  // sampled rows of the largest step
  // What the stage may take besides its KV cache; 0: all that is available.
  std::uint64_t memory_bytes = 0;
};

// What loading tells: bytes read so far, of how many.
using LoadProgress = std::function<void(std::uint64_t bytes_done, std::uint64_t bytes_total)>;

// One stage of the network on one device. Used by one thread.
class Stage {
 public:
  virtual ~Stage() = default;

  // Bytes of one row of activations between stages ([hidden] in the activation dtype).
  virtual std::size_t activation_row_bytes() const = 0;
  virtual std::uint64_t weight_bytes() const = 0;    // resident
  virtual std::uint64_t kv_block_bytes() const = 0;  // one block, all layers of this stage

  // Allocates the cache; called once, after all stages agreed on the number.
  virtual void allocate_kv(std::uint32_t blocks) = 0;

  // Forgets all sequences: the next step is the first of another run, whose handles start again.
  virtual void begin_run() = 0;

  // Computes one step. `in` is [rows, hidden] (empty on the first stage), `out` likewise (empty on
  // the last). `progress` is called between layers, so that messages move. KV is written for every
  // row. On the last stage the sampled rows' next tokens are then in sampled().
  virtual void forward(const StepPlan& plan, std::span<const std::byte> in,
                       std::span<std::byte> out, const std::function<void()>& progress) = 0;

  // Ids for the sequences of the last forward() that have `sample`, in their order. Last stage
  // only.
  virtual std::span<const std::int32_t> sampled() const = 0;
  // The f32 logits [samples, vocab] behind them, before any sampling. Last stage only; for tests.
  virtual std::span<const float> logits() const = 0;

  // Instruction set and libraries, for the numeric class: the CPU's is
  // LinearFactory's and kernel_numeric_class().
  virtual std::string numeric_class() const = 0;
};

// Loads layers [range.begin, range.end) and nothing else. Throws io::FileError and ModelError; more
// weights, activations and logits than there is memory for are refused before any is allocated.
std::unique_ptr<Stage> make_cpu_stage(const io::CheckpointReader& checkpoint,
                                      const ModelConfig& config, const StageRange& range,
                                      const StageOptions& options, const LoadProgress& progress);

}  // namespace penstock::model
