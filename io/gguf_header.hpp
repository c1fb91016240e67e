#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "io/file.hpp"
#include "io/gguf.hpp"

// Everything of a GGUF file that comes before the tensors' data.
namespace penstock::io {

using GgufMetadata = std::map<std::string, GgufValue, std::less<>>;

struct GgufTensor {
  SourceTensor info;
  std::uint32_t type = 0;            // ggml_type
  std::uint64_t offset = 0;          // of the first byte, from the start of the file
  std::uint64_t block_elements = 0;  // 0 if the type is unknown, as is block_bytes
  std::uint64_t block_bytes = 0;
};

struct GgufHeader {
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;  // in the file's order
};

// Reads and checks it: every length and count against the bytes that are left, every tensor
// against the file's size. Throws FileError.
GgufHeader read_gguf_header(const File& file);

}  // namespace penstock::io
