#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"

// The structure of a new checkpoint; the writer fills in bytes by offset.
namespace penstock::io {

struct CheckpointLayout {
  std::vector<std::uint64_t> offsets;  // of each tensor; empty if no_data
  std::uint64_t checksums_offset = 0;  // of the table of block checksums
};

// Throws FileError when the names, shapes or sizes cannot be stored (or read back).
void check_layout(const std::string& path, const CheckpointHeader& header,
                  const std::vector<TensorSpec>& tensors);

// Writes everything but tensors, checksums and digest into the file at `file_path` (replacing what
// is there) and takes the tensors' storage. Errors speak of `path`.
CheckpointLayout create_layout(const std::string& file_path, const std::string& path,
                               const CheckpointHeader& header,
                               const std::vector<TensorSpec>& tensors);

// Fills in the digest that create_layout left open.
void write_digest(const std::string& file_path, const std::string& path, const std::string& digest);

}  // namespace penstock::io
