#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"
#include "io/checkpoint_checksum.hpp"
#include "io/file.hpp"

namespace penstock::io {

// All of a checkpoint but the weights, checked.
struct CheckpointStructure {
  CheckpointHeader header;
  std::vector<TensorInfo> tensors;          // in order
  std::vector<std::uint64_t> first_blocks;  // of each tensor, in `checksums`
  std::vector<BlockChecksum> checksums;     // empty if no_data
  std::string digest;
  std::map<std::string, File> files;  // by path: the checkpoint's own and those it links to
  std::uint64_t size_bytes = 0;       // of all files
};

// Throws FileError. Uses HDF5 only during the call.
CheckpointStructure read_structure(const std::string& path, CheckpointReader::Contents contents);

}  // namespace penstock::io
