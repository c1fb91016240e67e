#include "io/checkpoint_guard_messages.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "io/checkpoint_format.hpp"
#include "io/error.hpp"
#include "io/utf8.hpp"

namespace penstock::io {
namespace {

// Message types.
constexpr unsigned kNil = 0x00;
constexpr unsigned kDataspace = 0x01;
constexpr unsigned kLinkInfo = 0x02;
constexpr unsigned kDatatype = 0x03;
constexpr unsigned kFillValue = 0x05;
constexpr unsigned kLink = 0x06;
constexpr unsigned kExternalStorage = 0x07;
constexpr unsigned kLayout = 0x08;
constexpr unsigned kGroupInfo = 0x0a;
constexpr unsigned kFilters = 0x0b;
constexpr unsigned kAttribute = 0x0c;
constexpr unsigned kSymbolTable = 0x11;
constexpr unsigned kModificationTime = 0x12;
constexpr unsigned kAttributeInfo = 0x15;

constexpr std::uint64_t bit(unsigned type) { return std::uint64_t{1} << type; }

constexpr std::uint64_t round_up_8(std::uint64_t size) { return (size + 7) / 8 * 8; }

}  // namespace

std::span<const std::byte> ByteReader::take(std::uint64_t size) {
  if (size > bytes_.size()) {
    overrun_ = true;
    bytes_ = {};
    return {};
  }
  const auto taken = bytes_.first(size);
  bytes_ = bytes_.subspan(size);
  return taken;
}

std::uint64_t ByteReader::number(std::uint64_t size) {
  std::uint64_t value = 0;
  unsigned shift = 0;
  for (const std::byte byte : take(size)) {
    value |= std::to_integer<std::uint64_t>(byte) << shift;
    shift += 8;
  }
  return value;
}

std::uint32_t metadata_checksum(std::span<const std::byte> bytes) {
  std::uint32_t a = 0xdeadbeefu + static_cast<std::uint32_t>(bytes.size());
  std::uint32_t b = a;
  std::uint32_t c = a;
  if (bytes.empty()) return c;
  ByteReader reader(bytes);
  const auto word = [&reader] {  // the last may be short
    return static_cast<std::uint32_t>(reader.number(std::min<std::uint64_t>(4, reader.left())));
  };
  while (reader.left() > 12) {
    a += word();
    b += word();
    c += word();
    a = (a - c) ^ std::rotl(c, 4), c += b;
    b = (b - a) ^ std::rotl(a, 6), a += c;
    c = (c - b) ^ std::rotl(b, 8), b += a;
    a = (a - c) ^ std::rotl(c, 16), c += b;
    b = (b - a) ^ std::rotl(a, 19), a += c;
    c = (c - b) ^ std::rotl(b, 4), b += a;
  }
  a += word();
  b += word();
  c += word();
  c = (c ^ b) - std::rotl(b, 14);
  a = (a ^ c) - std::rotl(c, 11);
  b = (b ^ a) - std::rotl(a, 25);
  c = (c ^ b) - std::rotl(b, 16);
  a = (a ^ c) - std::rotl(c, 4);
  b = (b ^ a) - std::rotl(a, 14);
  c = (c ^ b) - std::rotl(b, 24);
  return c;
}

void MessageChecker::fail(std::string_view reason) const {
  throw FileError(path_, fmt::format("{} {}", quoted(object_), reason));
}

void MessageChecker::check(unsigned type, unsigned flags, std::span<const std::byte> message) {
  if (type == kNil) return;
  if ((flags & 0x02u) != 0) fail("uses a shared or committed type, which checkpoints do not have");
  constexpr std::uint64_t kOnce = bit(kDataspace) | bit(kLinkInfo) | bit(kDatatype) |
                                  bit(kFillValue) | bit(kLayout) | bit(kGroupInfo) |
                                  bit(kAttributeInfo) | bit(kModificationTime);
  if (type < 64) {
    if ((kOnce & seen_types_ & bit(type)) != 0) fail("has a header with a message twice");
    seen_types_ |= bit(type);
  }
  ByteReader reader(message);
  switch (type) {
    case kDataspace:
      return check_space(message);
    case kDatatype:
      return check_type(message);
    case kFillValue:
      return check_fill_value(reader);
    case kLayout:
      return check_layout(reader);
    case kAttribute:
      return check_attribute(reader);
    case kLink:
      return check_link(reader);
    case kLinkInfo:
      return check_not_dense(reader, 8, "links");
    case kAttributeInfo:
      return check_not_dense(reader, 2, "attributes");
    case kGroupInfo: {
      reader.skip(1);
      const auto group_flags = static_cast<unsigned>(reader.number(1));
      reader.skip(static_cast<std::uint64_t>(4 * std::popcount(group_flags & 3u)));
      if (reader.overrun() || (group_flags & ~3u) != 0) fail("has a broken group header");
      return;
    }
    case kModificationTime:
      if (message.size() < 8) fail("has a broken modification time");
      return;
    case kExternalStorage:
      fail("keeps its data in another file (external storage), which is refused");
    case kFilters:
      fail("has filters (compression); a checkpoint's datasets have none");
    case kSymbolTable:
      fail("is a group in the format of HDF5 1.6; checkpoints have the format of HDF5 1.8");
    default:
      fail(
          fmt::format("has an HDF5 header message of type {}, which checkpoints do not "
                      "have",
                      type));
  }
}

void MessageChecker::finish() const {
  constexpr std::uint64_t kOfDataset = bit(kDataspace) | bit(kDatatype) | bit(kLayout);
  const std::uint64_t dataset = seen_types_ & kOfDataset;
  const bool group = (seen_types_ & (bit(kLinkInfo) | bit(kGroupInfo))) != 0;
  if (dataset == 0 && group) return;
  if (dataset != kOfDataset || group || !links_.empty()) {
    fail("is neither a group nor a whole dataset");
  }
  // HDF5 looks into the fill value of every dataset it opens.
  if ((seen_types_ & bit(kFillValue)) == 0) fail("is a dataset without a fill value message");
}

// Class and version 1, class bits 3, size 4, then the properties of the class.
void MessageChecker::check_type(std::span<const std::byte> message) const {
  ByteReader reader(message);
  const auto class_and_version = static_cast<unsigned>(reader.number(1));
  const auto class_bits = static_cast<unsigned>(reader.number(3));
  const std::uint64_t size = reader.number(4);
  const unsigned version = class_and_version >> 4u;
  if (version < 1 || version > 3) fail("has a type of an unknown version");
  switch (class_and_version & 0x0fu) {
    case 0: {  // integer: bit offset 2, precision 2
      const std::uint64_t bit_offset = reader.number(2);
      const std::uint64_t precision = reader.number(2);
      if (size < 1 || size > 8 || precision < 1 || bit_offset + precision > 8 * size ||
          (class_bits & ~0x0fu) != 0) {  // byte order, two paddings, sign
        fail("has an integer type that is not sound");
      }
      break;
    }
    case 1: {  // float: offset 2, precision 2, exponent place and size, mantissa place and size
      const std::uint64_t bit_offset = reader.number(2);
      const std::uint64_t precision = reader.number(2);
      const std::uint64_t exponent_at = reader.number(1);
      const std::uint64_t exponent = reader.number(1);
      const std::uint64_t mantissa_at = reader.number(1);
      const std::uint64_t mantissa = reader.number(1);
      reader.skip(4);  // exponent bias
      // Class bits: byte order and paddings, normalization (2: implied), place of the sign.
      const unsigned sign_at = class_bits >> 8u;
      if ((class_bits & 0xf0u) != 0x20 || sign_at >= precision || size < 2 || size > 8 ||
          precision < 1 || bit_offset + precision > 8 * size || exponent < 1 || mantissa < 1 ||
          exponent_at + exponent > precision || mantissa_at + mantissa > precision) {
        fail("has a floating-point type that is not sound");
      }
      break;
    }
    case 3:  // string of fixed length; class bits: padding 4, character set 4
      if ((class_bits & 0x0fu) > 2 || (class_bits >> 4u) > 1) fail("has a broken string type");
      if (size < 1 || size > kMaxStringBytes) {
        fail(fmt::format("has a string of {} bytes; 1 to {} are allowed", size, kMaxStringBytes));
      }
      break;
    case 9:
      fail(
          "has a variable-length type; a checkpoint's strings have a fixed length (h5py: "
          "numpy.bytes_)");
    default:
      fail("has a type that is neither number nor string of fixed length");
  }
  if (reader.overrun()) fail("has a type that is cut short");
}

// Version 1: rank 1, flags 1, reserved 5, extents. Version 2: rank 1, flags 1, kind 1, extents.
void MessageChecker::check_space(std::span<const std::byte> message) const {
  ByteReader reader(message);
  const std::uint64_t version = reader.number(1);
  const std::uint64_t rank = reader.number(1);
  const auto flags = static_cast<unsigned>(reader.number(1));
  reader.skip(version == 1 ? 5 : 1);
  if (version < 1 || version > 2 || (flags & ~1u) != 0) fail("has a shape of an unknown version");
  if (rank > kMaxRank)
    fail(fmt::format("has {} dimensions, at most {} are allowed", rank, kMaxRank));
  std::uint64_t product = 8;
  std::uint64_t extents[kMaxRank] = {};
  for (std::uint64_t i = 0; i < rank; ++i) {
    extents[i] = reader.number(8);
    if (__builtin_mul_overflow(product, extents[i], &product)) {
      fail("has a shape with more elements than 64 bits can count");
    }
  }
  for (std::uint64_t i = 0; i < rank && (flags & 1u) != 0; ++i) {
    if (reader.number(8) != extents[i]) fail("has a shape that can grow; it must be fixed");
  }
  if (reader.overrun()) fail("has a shape that is cut short");
}

// Version 2: allocation 1, write time 1, defined 1. Version 3: flags 1. Then size 4 and value.
void MessageChecker::check_fill_value(ByteReader reader) const {
  const std::uint64_t version = reader.number(1);
  bool defined = false;
  if (version == 1 || version == 2) {
    reader.skip(2);
    defined = reader.number(1) != 0;
  } else if (version == 3) {
    defined = (reader.number(1) & 0x20u) != 0;
  } else {
    fail("has a fill value of an unknown version");
  }
  if (defined || version == 1) {
    const std::uint64_t size = reader.number(4);
    if (size > 8) fail("has a fill value that is too large");
    reader.skip(size);
  }
  if (reader.overrun()) fail("has a fill value that is cut short");
}

// Version 3 and 4: class 1 (1: contiguous), address 8, size 8.
void MessageChecker::check_layout(ByteReader reader) const {
  const std::uint64_t version = reader.number(1);
  const std::uint64_t layout = reader.number(1);
  if (version != 3 && version != 4) fail("has a data layout of an unknown version");
  if (layout != 1) {
    const std::string_view name = layout == 0   ? "compact"
                                  : layout == 2 ? "chunked"
                                  : layout == 3 ? "virtual"
                                                : "of an unknown layout";
    fail(fmt::format("is {}; a checkpoint's datasets are contiguous", name));
  }
  const std::uint64_t address = reader.number(8);
  const std::uint64_t size = reader.number(8);
  if (reader.overrun()) fail("has a data layout that is cut short");
  if (address == kUndefinedAddress) return;
  if (address > file_bytes_ || size > file_bytes_ - address) {
    fail(fmt::format("claims the bytes {} to {} of a file of {}", address, address + size,
                     file_bytes_));
  }
}

// Version 1, flags 1, size of name 2, of type 2, of space 2, character set 1 (version 3), then
// the three, padded to 8 bytes each in version 1, then the value.
void MessageChecker::check_attribute(ByteReader reader) {
  const std::uint64_t version = reader.number(1);
  const auto flags = static_cast<unsigned>(reader.number(1));
  const std::uint64_t name_bytes = reader.number(2);
  const std::uint64_t type_bytes = reader.number(2);
  const std::uint64_t space_bytes = reader.number(2);
  if (++attributes_ > kMaxAttributes) fail("has too many attributes");
  if (version < 1 || version > 3) fail("has an attribute of an unknown version");
  if (version > 1 && flags != 0) fail("has an attribute of a shared or committed type");
  if (version == 3) reader.skip(1);
  const auto padded = [version](std::uint64_t size) {
    return version == 1 ? round_up_8(size) : size;
  };
  const auto name = reader.take(padded(name_bytes));
  const auto type = reader.take(padded(type_bytes));
  const auto space = reader.take(padded(space_bytes));
  if (reader.overrun()) fail("has an attribute that is cut short");
  const auto zero = std::ranges::find(name, std::byte{0});
  if (name_bytes < 2 || zero - name.begin() != static_cast<std::ptrdiff_t>(name_bytes) - 1) {
    fail("has an attribute with a broken name");
  }
  check_type(type.first(type_bytes));
  check_space(space.first(space_bytes));
  // The value: HDF5 copies elements times size bytes out of what is left.
  ByteReader type_reader(type);
  type_reader.skip(4);
  std::uint64_t value_bytes = type_reader.number(4);
  ByteReader space_reader(space);
  const std::uint64_t space_version = space_reader.number(1);
  const std::uint64_t rank = space_reader.number(1);
  space_reader.skip(1);
  const std::uint64_t kind = space_reader.number(space_version == 1 ? 5 : 1);
  if (space_version == 2 && (kind > 1 || (kind == 0 && rank != 0))) {
    fail("has an attribute that is neither a value nor an array");
  }
  for (std::uint64_t i = 0; i < rank; ++i) {
    if (__builtin_mul_overflow(value_bytes, space_reader.number(8), &value_bytes)) {
      fail("has an attribute that is too large");
    }
  }
  if (value_bytes > reader.left()) fail("has an attribute that is cut short");
}

// Version 1, flags 1, kind 1?, creation order 8?, character set 1?, size of name 1 to 8, name,
// then for a hard link the address 8, for others size 2 and value.
void MessageChecker::check_link(ByteReader reader) {
  const std::uint64_t version = reader.number(1);
  const auto flags = static_cast<unsigned>(reader.number(1));
  const std::uint64_t kind = (flags & 0x08u) != 0 ? reader.number(1) : 0;
  if ((flags & 0x04u) != 0) reader.skip(8);
  if ((flags & 0x10u) != 0) reader.skip(1);
  const auto name = reader.take(reader.number(std::uint64_t{1} << (flags & 3u)));
  if (version != 1 || reader.overrun() || name.empty() || (flags & 0xe0u) != 0) {
    fail("has a broken link");
  }
  GuardedLink link{std::string(reinterpret_cast<const char*>(name.data()), name.size()), 0};
  if (link.name.size() > kMaxNameBytes || link.name == "." || link.name == ".." ||
      link.name.find('/') != std::string::npos || link.name.find('\0') != std::string::npos ||
      !is_valid_utf8(link.name)) {
    fail(fmt::format("has a link with a bad name, {}", quoted(link.name)));
  }
  switch (kind) {
    case 0:
      link.address = reader.number(8);
      break;
    case 1:
      fail(fmt::format("has a soft link, {}; checkpoints have none", quoted(link.name)));
    case 64: {  // flags 1, file name, zero, object path, zero
      const auto value = reader.take(reader.number(2));
      if (value.size() < 4 || value.back() != std::byte{0} || value[0] != std::byte{0}) {
        fail("has a broken external link");
      }
      link.address = kUndefinedAddress;
      break;
    }
    default:
      fail(fmt::format("has a link of an unknown kind, {}", quoted(link.name)));
  }
  if (reader.overrun() || (kind == 0 && link.address == kUndefinedAddress)) {
    fail("has a broken link");
  }
  links_.push_back(std::move(link));
}

// Version 1, flags 1, highest creation order `order_bytes`?, address of the heap 8, of the index
// by name 8, of the index by creation order 8?. A heap means that the messages lie outside.
void MessageChecker::check_not_dense(ByteReader reader, unsigned order_bytes,
                                     std::string_view what) const {
  const std::uint64_t version = reader.number(1);
  const auto flags = static_cast<unsigned>(reader.number(1));
  if ((flags & 1u) != 0) reader.skip(order_bytes);
  const std::uint64_t heap = reader.number(8);
  const std::uint64_t by_name = reader.number(8);
  const std::uint64_t by_order = (flags & 2u) != 0 ? reader.number(8) : kUndefinedAddress;
  if (version != 0 || reader.overrun() || (flags & ~3u) != 0) fail("has a broken group header");
  if (heap != kUndefinedAddress || by_name != kUndefinedAddress || by_order != kUndefinedAddress) {
    fail(fmt::format("keeps its {} in a dense index; a checkpoint's groups are compact", what));
  }
}

}  // namespace penstock::io
