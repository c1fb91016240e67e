#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/checkpoint.hpp"

namespace penstock::io {

// XXH3-128 in its canonical form (big-endian), so that its bytes in hexadecimal are what
// `xxhsum -H2` prints. Format: github.com/Cyan4973/xxHash.
using BlockChecksum = std::array<std::uint8_t, 16>;

// XXH3-128 of a stream of bytes.
class Xxh3 {
 public:
  Xxh3();
  void add(std::span<const std::byte> bytes);
  BlockChecksum value() const;
  void reset();

 private:
  struct Free {
    void operator()(void* state) const;
  };
  std::unique_ptr<void, Free> state_;
};

inline std::uint64_t count_blocks(std::uint64_t size_bytes) {
  return size_bytes / kChecksumBlockBytes + (size_bytes % kChecksumBlockBytes != 0);
}

// The product of `shape` and the element's size. False when it does not fit in 63 bits.
bool tensor_bytes(const TensorSpec& tensor, std::uint64_t& size_bytes);

// The checkpoint's digest, in hexadecimal: README.md says over which bytes. `checksums` holds all
// tensors' blocks in order; empty if header.no_data.
std::string checkpoint_digest(const CheckpointHeader& header,
                              std::span<const TensorSpec* const> tensors,
                              std::span<const BlockChecksum> checksums);

}  // namespace penstock::io
