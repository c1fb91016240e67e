#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "io/tensor_source.hpp"

// GGUF versions 2 and 3, little-endian. Format: github.com/ggml-org/ggml, docs/gguf.md.
namespace penstock::io {

// A metadata value. Integers of all widths are widened; arrays keep one element type.
using GgufValue = std::variant<std::int64_t, std::uint64_t, double, bool, std::string,
                               std::vector<std::int64_t>, std::vector<std::uint64_t>,
                               std::vector<double>, std::vector<bool>, std::vector<std::string>>;

// Tensors of type F32, F16, BF16, Q8_0, Q4_0 and Q4_1 are read; others are listed, and refused by
// name when they are read. Shapes are row-major (GGUF's own order reversed).
class GgufFile : public TensorSource {
 public:
  explicit GgufFile(std::string path);
  ~GgufFile() override;

  const std::string& path() const;
  // nullptr if the key is absent.
  const GgufValue* find(std::string_view key) const;
  // Typed look-ups; FileError that names the key when it is absent or of another type. Integers
  // of any signedness are accepted when the value fits.
  std::int64_t integer(std::string_view key) const;
  double real(std::string_view key) const;  // integers too
  const std::string& text(std::string_view key) const;
  const std::vector<std::string>& texts(std::string_view key) const;

  const std::vector<SourceTensor>& tensors() const override;
  void read(std::size_t tensor, std::uint64_t first, std::span<float> out) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

bool is_gguf(const std::string& path);  // by its magic; false if it cannot be read

}  // namespace penstock::io
