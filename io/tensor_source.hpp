#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace penstock::io {

// One tensor of a foreign model file, as row-major [shape[0], shape[1], …].
struct SourceTensor {
  std::string name;   // as the file calls it
  std::string dtype;  // as the file calls it: "BF16", "Q4_1", …
  std::vector<std::uint64_t> shape;
  std::uint64_t elements = 0;
  std::string file;  // the file that holds it, for messages
};

// The tensors of a Hugging Face folder (safetensors) or of a GGUF file, read piece by piece so
// that a reader's memory is bounded by its own buffer. Not thread-safe.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  // In file order.
  virtual const std::vector<SourceTensor>& tensors() const = 0;

  // Reads elements [first, first + out.size()) of tensors()[tensor] in row-major order, dequantized
  // to f32. `first` and out.size() must be multiples of 256, or reach to the tensor's end.
  // Throws FileError when the file is shorter than its header said.
  virtual void read(std::size_t tensor, std::uint64_t first, std::span<float> out) = 0;
};

// Throws std::invalid_argument unless [first, first + count) is a range that read() takes.
void check_read_range(const SourceTensor& tensor, std::uint64_t first, std::uint64_t count);

}  // namespace penstock::io
