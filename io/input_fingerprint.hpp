#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace penstock::io {

// Enough of an input to see that it is not the one it was. A hash is XXH3-128 (seed 0), 32
// hexadecimal digits as `xxhsum -H2` prints them.
struct InputFingerprint {
  std::uint64_t size_bytes = 0;
  std::int64_t mtime_ns = 0;  // last modification, since 1970; file systems may round it
  std::string head_xxh3;      // of the first 1 MiB, or of all that there is
  std::string tail_xxh3;      // of the last 1 MiB

  bool operator==(const InputFingerprint&) const = default;
};

// Reads 2 MiB at most. FileError.
InputFingerprint fingerprint(const std::string& path);

// Of all bytes of a file. FileError. `on_bytes`, if given, is called now and then with the bytes
// read so far.
std::string hash_of_file(const std::string& path,
                         const std::function<void(std::uint64_t bytes)>& on_bytes = {});

}  // namespace penstock::io
