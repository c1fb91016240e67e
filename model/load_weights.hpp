#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "io/checkpoint.hpp"
#include "model/config.hpp"
#include "model/ops/host_buffer.hpp"
#include "model/stage.hpp"
#include "model/weights.hpp"

namespace penstock::model {

// A tensor of a stage: what it must be, and where the checkpoint has it.
struct StageTensor {
  WeightSpec spec;
  const io::TensorInfo* stored = nullptr;
};
// All tensors of one stage, in file order. Absent ones and shapes that are not the config's are a
// ModelError that names the file; so is a checkpoint without weights.
std::vector<StageTensor> stage_tensors(const io::CheckpointReader& checkpoint,
                                       const ModelConfig& config, const StageRange& range);

// Reads the tensors of one stage and nothing else, converted to the stage's dtypes. Tensors are
// checked, by stage_tensors(), before any of them is read.
class WeightLoader {
 public:
  WeightLoader(const io::CheckpointReader& checkpoint, const ModelConfig& config,
               const StageRange& range, const StageOptions& options, const LoadProgress& progress);

  // Several matrices [out, in] of the same `in`, one below the other, in the stage's dtype.
  HostBuffer matrices(std::span<const std::string> names);
  // Several vectors, one behind the other.
  std::vector<float> vectors(std::span<const std::string> names);

  // One of the stage's tensors, as the checkpoint has it.
  const io::TensorInfo& tensor(const std::string& name) const { return *tensors_.at(name); }
  // Bytes of the stage's tensors in the checkpoint.
  std::uint64_t bytes_total() const { return bytes_total_; }

  // What all of the stage's tensors take in the stage's dtypes, before they are packed.
  std::uint64_t resident_bytes() const { return resident_bytes_; }
  // The largest tensor as it is stored that has to be converted; 0 when none has.
  std::uint64_t largest_converted_bytes() const { return largest_converted_bytes_; }
  std::uint64_t bytes_done() const { return bytes_done_; }

 private:
  void read(const io::TensorInfo& tensor, io::DType dtype, std::byte* to);

  const io::CheckpointReader* checkpoint_;
  io::DType dtype_;
  int threads_;
  const LoadProgress* progress_;
  std::unordered_map<std::string, const io::TensorInfo*> tensors_;
  std::uint64_t resident_bytes_ = 0;
  std::uint64_t largest_converted_bytes_ = 0;
  std::uint64_t bytes_done_ = 0;
  std::uint64_t bytes_total_ = 0;
};

}  // namespace penstock::model
