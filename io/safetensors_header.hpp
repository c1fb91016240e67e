#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "io/file.hpp"
#include "io/tensor_source.hpp"

// The JSON parts of safetensors files.
namespace penstock::io {

struct SafetensorsTensor {
  SourceTensor info;
  std::uint64_t offset = 0;  // of the first byte, from the start of the file
  std::uint64_t size_bytes = 0;
};

// Reads and checks the header of one file, as the format's own library does: the tensors cover the
// data without gap or overlap, and each has the size of its shape. In the data's order.
// Throws FileError.
std::vector<SafetensorsTensor> read_safetensors_header(const File& file);

// The weight_map of a model.safetensors.index.json: tensor to shard. Throws FileError.
std::map<std::string, std::string> read_safetensors_index(const std::string& path);

}  // namespace penstock::io
