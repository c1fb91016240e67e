#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "io/checkpoint.hpp"
#include "io/dtype.hpp"
#include "model/config.hpp"
#include "model/stage_plan.hpp"
#include "model/step_plan.hpp"

namespace penstock::model {

struct DeviceModel;

// What a stage is built with.
struct StageOptions {
  io::DType dtype = io::DType::bf16;     // weights, activations
  io::DType kv_dtype = io::DType::bf16;  // KV cache
  int threads = 1;
  std::uint32_t max_rows = 512;     // rows of the largest step
  std::uint32_t max_samples = 256;  // sampled rows of the largest step
  // What the stage may take besides its KV cache, of its device's memory; 0: all that is available.
  std::uint64_t memory_bytes = 0;

  // Of a GPU stage only.
  int gpu = 0;                    // CUDA's number, among those that this process sees
  std::uint32_t slots = 1;        // steps that may be on their way through the pipeline at once
  std::uint32_t max_context = 0;  // tokens of the longest sequence; 0: the config's limit
};

// What loading tells: bytes read so far, of how many.
using LoadProgress = std::function<void(std::uint64_t bytes_done, std::uint64_t bytes_total)>;

// Memory of a stage's device for what forward() reads and writes, aligned to 256 bytes, not
// initialized. Belongs to the caller, who frees it before the stage and when nothing uses it.
class ActivationBuffer {
 public:
  virtual ~ActivationBuffer() = default;
  virtual std::span<std::byte> bytes() const = 0;
};

// What reading the weights took.
struct LoadReport {
  std::uint64_t bytes_read = 0;  // from the checkpoint
  double seconds = 0;            // until they were in the device's memory, as the ops want them
};

// One stage of the network on one device. Used by one thread.
//
// A GPU stage puts work on its compute stream and returns; it never waits for the GPU but where it
// has no memory left for another step's lists, which `slots` steps under way cannot bring about.
class Stage {
 public:
  virtual ~Stage() = default;

  // Bytes of one row of activations between stages ([hidden] in the activation dtype).
  virtual std::size_t activation_row_bytes() const = 0;
  // What `in` and `out` of forward() have for a step of so many rows.
  virtual std::size_t activation_bytes(std::uint32_t rows) const {
    return rows * activation_row_bytes();
  }
  virtual std::uint64_t weight_bytes() const = 0;    // resident
  virtual std::uint64_t kv_block_bytes() const = 0;  // one block, all layers of this stage
  virtual LoadReport load_report() const = 0;

  // The device's memory that is free for KV blocks now, before allocate_kv(): all else that the
  // largest step needs is allocated already or, as activations for every slot, left out. Stages
  // that share a device, a host's memory or a GPU, see the same free memory, so all ask before any
  // of them takes it.
  virtual std::uint64_t kv_memory_bytes() const = 0;

  // At least one byte.
  virtual std::unique_ptr<ActivationBuffer> make_activations(std::size_t bytes) const = 0;

  // The stream (a cudaStream_t) on which forward() puts its work, for LinkEnd::set_compute_stream;
  // null for a stage that computes on the host.
  virtual void* compute_stream() const { return nullptr; }

  // Allocates the cache; called once, after all stages agreed on the number.
  virtual void allocate_kv(std::uint32_t blocks) = 0;

  // Forgets all sequences: the next step is the first of another run, whose handles start again.
  virtual void begin_run() = 0;

  // Computes one step. `in` is [rows, hidden] (empty on the first stage), `out` likewise (empty on
  // the last); both are memory of make_activations(), on the host any memory. `progress` is called
  // between layers, so that messages move. KV is written for every row. On a GPU the work is then
  // on the compute stream, and `in` and `out` are in use until the stream has done it; `plan` is
  // not. The next step may be given before this one is ready, but its ids replace this one's.
  virtual void forward(const StepPlan& plan, std::span<const std::byte> in,
                       std::span<std::byte> out, const std::function<void()>& progress) = 0;

  // Whether all work of the last forward() is done; true before the first. Never blocks. Throws
  // comm::device::DeviceError for what failed on the GPU since.
  virtual bool ready() = 0;

  // Of a virtual device, which computes nothing: how long the one it stands for would have taken
  // for the last forward(). Empty for a real one.
  virtual std::optional<double> modelled_seconds() const { return std::nullopt; }

  // Ids for the sequences of the last forward() that have `sample`, in their order. Last stage
  // only, once ready().
  virtual std::span<const std::int32_t> sampled() const = 0;
  // The f32 logits [samples, vocab] behind them, before any sampling. Last stage only, once
  // ready(); for tests: a GPU stage copies them to the host here.
  virtual std::span<const float> logits() const = 0;

  // Device, instruction set and libraries: what decides about bits.
  virtual std::string numeric_class() const = 0;
};

// numeric_class() of any CPU stage on this machine.
std::string cpu_numeric_class();

// Loads layers [range.begin, range.end) and nothing else. Throws io::FileError and ModelError; more
// weights, activations and logits than there is memory for are refused before any is allocated.
std::unique_ptr<Stage> make_cpu_stage(const io::CheckpointReader& checkpoint,
                                      const ModelConfig& config, const StageRange& range,
                                      const StageOptions& options, const LoadProgress& progress);

// The same on GPU options.gpu, which becomes the thread's current one; `threads` read the weights.
// Also throws comm::device::DeviceError. In a program built without CUDA: ModelError that says so.
std::unique_ptr<Stage> make_cuda_stage(const io::CheckpointReader& checkpoint,
                                       const ModelConfig& config, const StageRange& range,
                                       const StageOptions& options, const LoadProgress& progress);

// A stage that computes nothing and reads no weights, with the memory and the time of `device`.
// Tokens are hashes of record and position. What it sends on is the time of its arrival alone, an
// int64_t that the caller writes. Throws ModelError where the device has too little memory.
std::unique_ptr<Stage> make_virtual_stage(const ModelConfig& config, const StageRange& range,
                                          const StageOptions& options, const DeviceModel& device);

// A stage, of whatever layers, that has no weights, looks at no activations and computes nothing: a
// step takes what its messages take. Rows of `row_bytes`; what it sends on is what its buffers
// hold, its tokens are 0.
std::unique_ptr<Stage> make_idle_stage(std::size_t row_bytes);

// The same in memory of the thread's current GPU, with a stream of its own. Throws
// comm::device::DeviceError. In a program built without CUDA: ModelError.
std::unique_ptr<Stage> make_idle_cuda_stage(std::size_t row_bytes);

}  // namespace penstock::model
