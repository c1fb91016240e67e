#include "io/tensor_source.hpp"

#include <fmt/format.h>

#include <stdexcept>

namespace penstock::io {

void check_read_range(const SourceTensor& tensor, std::uint64_t first, std::uint64_t count) {
  constexpr std::uint64_t kUnit = 256;
  const bool inside = first <= tensor.elements && count <= tensor.elements - first;
  if (inside && first % kUnit == 0 && (count % kUnit == 0 || first + count == tensor.elements)) {
    return;
  }
  throw std::invalid_argument(fmt::format("tensor '{}': cannot read elements {} to {} of {}",
                                          tensor.name, first, first + count, tensor.elements));
}

}  // namespace penstock::io
