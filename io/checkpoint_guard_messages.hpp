#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::io {

inline constexpr std::uint64_t kUndefinedAddress = UINT64_MAX;
inline constexpr unsigned kContinuation = 0x10;  // type of the header message

// Little-endian fields of a piece of bytes. Reading beyond the end gives zeros and sets overrun().
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::uint64_t number(std::uint64_t size);  // of 1 to 8 bytes
  void skip(std::uint64_t size) { take(size); }
  std::span<const std::byte> take(std::uint64_t size);
  std::uint64_t left() const { return bytes_.size(); }
  bool overrun() const { return overrun_; }

 private:
  std::span<const std::byte> bytes_;
  bool overrun_ = false;
};

// HDF5's checksum of structure: Bob Jenkins' lookup3 (hashlittle, burtleburtle.net/bob/c/lookup3.c,
// public domain) with the initial value 0.
std::uint32_t metadata_checksum(std::span<const std::byte> bytes);

struct GuardedLink {
  std::string name;
  std::uint64_t address = 0;  // kUndefinedAddress: an external link
};

// Checks the header messages of one object, the part of HDF5's parser that hostile files attack.
// Format: "HDF5 File Format Specification Version 3.0", section IV.A.2.
class MessageChecker {
 public:
  MessageChecker(const std::string& path, const std::string& object, std::uint64_t file_bytes)
      : path_(path), object_(object), file_bytes_(file_bytes) {}

  void check(unsigned type, unsigned flags, std::span<const std::byte> message);
  // After the last message: the object must be a group or a dataset, and whole.
  void finish() const;
  const std::vector<GuardedLink>& links() const { return links_; }

 private:
  [[noreturn]] void fail(std::string_view reason) const;
  void check_type(std::span<const std::byte> message) const;
  void check_space(std::span<const std::byte> message) const;
  void check_fill_value(ByteReader reader) const;
  void check_layout(ByteReader reader) const;
  void check_attribute(ByteReader reader);
  void check_link(ByteReader reader);
  void check_not_dense(ByteReader reader, unsigned order_bytes, std::string_view what) const;

  const std::string& path_;
  const std::string& object_;
  std::uint64_t file_bytes_;
  std::uint64_t seen_types_ = 0;  // a bit for each message type
  std::size_t attributes_ = 0;
  std::vector<GuardedLink> links_;
};

}  // namespace penstock::io
