#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"
#include "io/dtype.hpp"
#include "model/convert/convert.hpp"
#include "model/weights.hpp"

// What convert and synth share: the declaration of a checkpoint's tensors, and one tensor's way
// from f32 values into the file.
namespace penstock::model {

// Elements that one block of work holds at most: 32 MiB of f32.
inline constexpr std::uint64_t kBlockElements = 8u << 20;

std::uint64_t element_count(const WeightSpec& spec);

// Matrices in `dtype`, vectors in f32; in the order of `specs`.
std::vector<io::TensorSpec> tensor_specs(const std::vector<WeightSpec>& specs, io::DType dtype);

std::uint64_t total_bytes(const std::vector<io::TensorSpec>& tensors);

// Throws io::FileError when the file system of `destination` has less room than the file needs, so
// that a conversion of hours does not end in a full disk. `tensors` also counts the alignment.
void require_free_space(const std::string& destination, std::uint64_t data_bytes,
                        std::size_t tensors);

// Converts f32 values of one tensor, front to back, and appends them in blocks.
class TensorSink {
 public:
  // `written` counts bytes over all tensors; `progress` may be empty. All must outlive the sink.
  TensorSink(io::CheckpointWriter& writer, std::size_t tensor, io::DType dtype,
             std::uint64_t& written, std::uint64_t total, const ConvertProgress& progress);

  void push(std::span<const float> values);
  void flush();  // must be called after the last push

 private:
  io::CheckpointWriter& writer_;
  const ConvertProgress& progress_;
  std::uint64_t& written_;
  std::uint64_t total_ = 0;
  std::size_t tensor_ = 0;
  io::DType dtype_;
  std::vector<std::byte> buffer_;
  std::size_t used_ = 0;
};

}  // namespace penstock::model
