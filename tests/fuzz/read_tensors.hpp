#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <span>
#include <string>

#include "io/tensor_source.hpp"

namespace penstock::fuzz {

// Reads every tensor that `readable` accepts, in pieces. A file that was opened has been checked:
// an exception here would be a bug, and ends the fuzzer.
inline void read_tensors(io::TensorSource& source,
                         const std::function<bool(const std::string& dtype)>& readable) {
  std::array<float, 1024> piece;
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    const io::SourceTensor& tensor = source.tensors()[i];
    if (!readable(tensor.dtype)) continue;
    for (std::uint64_t first = 0; first < tensor.elements; first += piece.size()) {
      const std::uint64_t count = std::min<std::uint64_t>(piece.size(), tensor.elements - first);
      source.read(i, first, std::span(piece).first(count));
    }
  }
}

}  // namespace penstock::fuzz
