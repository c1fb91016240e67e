#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

// Names and limits of schema 1, which the writer keeps and the reader enforces. The limits are far
// above any model's needs: they only bound what a broken or hostile file can cost.
namespace penstock::io {

inline constexpr std::string_view kFormatName = "penstock";
inline constexpr std::int64_t kSchema = 1;
inline constexpr const char* kConfigTextName = "source.json";  // in /config
inline constexpr const char* kChecksumAlgorithm = "xxh3-128";
inline constexpr std::uint64_t kTensorAlignment = 4096;

inline constexpr std::size_t kMaxTensors = 1u << 18;
inline constexpr std::size_t kMaxRank = 8;
inline constexpr std::size_t kMaxDepth = 16;           // of groups
inline constexpr std::size_t kMaxNameBytes = 1024;     // of a tensor's whole path
inline constexpr std::size_t kMaxAttributes = 1024;    // of one group
inline constexpr std::size_t kMaxStringBytes = 32768;  // of a string attribute
inline constexpr std::size_t kMaxBlobs = 256;
inline constexpr std::uint64_t kMaxBlobBytes = 256u << 20;   // of one byte array
inline constexpr std::uint64_t kMaxBlobsBytes = 512u << 20;  // of all together
inline constexpr std::size_t kMaxFiles = 4096;               // that external links name

}  // namespace penstock::io
