#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "io/dtype.hpp"

namespace penstock::model {

struct ConvertOptions {
  std::optional<io::DType> dtype;  // of the matrices; the source's own if absent (bf16 for
                                   // quantized sources)
  std::string created_by;          // "penstock 0.1.0"
};

// Called with bytes written, of how many.
using ConvertProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

// Converts a Hugging Face folder or a GGUF file into a checkpoint. Streams row blocks: anonymous
// memory stays below 512 MB for any model. Until it is complete nothing stands under `destination`.
// Throws io::FileError and ModelError; missing, surplus or misshapen tensors are named.
void convert_model(const std::string& source, const std::string& destination,
                   const ConvertOptions& options, const ConvertProgress& progress);

}  // namespace penstock::model
