#include "io/checkpoint_guard.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "io/checkpoint_format.hpp"
#include "io/checkpoint_guard_messages.hpp"
#include "io/error.hpp"

namespace penstock::io {
namespace {

constexpr std::uint64_t kSuperblockBytes = 48;
constexpr std::uint64_t kWindowBytes = 64u << 10;
constexpr std::uint64_t kKeptBytes = 4u << 20;
constexpr std::uint64_t kMaxChunkBytes = 64u << 20;

// Serves small reads from a few larger ones: the structure of a checkpoint lies together, but is
// not walked in the order of the file.
class Windows {
 public:
  explicit Windows(const File& file) : file_(file), file_bytes_(file.size_bytes()) {}

  std::uint64_t file_bytes() const { return file_bytes_; }
  bool contains(std::uint64_t offset, std::uint64_t size) const {
    return offset <= file_bytes_ && size <= file_bytes_ - offset;
  }
  // The caller has checked contains(). Valid until the next call.
  std::span<const std::byte> bytes(std::uint64_t offset, std::uint64_t size) {
    const auto found = std::find_if(windows_.begin(), windows_.end(), [&](const Window& window) {
      return offset >= window.first && offset + size <= window.first + window.bytes.size();
    });
    const Window& window = found == windows_.end() ? read(offset, size) : *found;
    return std::span<const std::byte>(window.bytes).subspan(offset - window.first, size);
  }

 private:
  struct Window {
    std::uint64_t first = 0;
    std::vector<std::byte> bytes;
  };

  const Window& read(std::uint64_t offset, std::uint64_t size) {
    const std::uint64_t first = offset / kWindowBytes * kWindowBytes;
    const std::uint64_t end = std::min(std::max(offset + size, first + kWindowBytes), file_bytes_);
    kept_bytes_ += end - first;
    while (kept_bytes_ > kKeptBytes && !windows_.empty()) {
      kept_bytes_ -= windows_.front().bytes.size();
      windows_.pop_front();
    }
    windows_.push_back({first, std::vector<std::byte>(end - first)});
    file_.read_at(first, windows_.back().bytes);
    return windows_.back();
  }

  const File& file_;
  std::uint64_t file_bytes_;
  std::deque<Window> windows_;
  std::uint64_t kept_bytes_ = 0;
};

struct Object {
  std::string name;
  std::uint64_t address = 0;
  std::size_t depth = 0;
};

// A piece of an object header: `prefix` bytes, messages up to `size`, then a checksum of both.
struct Chunk {
  std::uint64_t offset = 0;
  std::uint64_t prefix = 0;
  std::uint64_t size = 0;
};

// Walks all object headers from the root. Format: "HDF5 File Format Specification Version 3.0",
// sections II.A (superblock) and IV.A.1.b (object header version 2).
class Guard {
 public:
  explicit Guard(const File& file) : path_(file.path()), window_(file) {}

  void run() {
    open_.push_back({"/", read_superblock(), 0});
    while (!open_.empty()) {
      const Object object = std::move(open_.back());
      open_.pop_back();
      if (!seen_.insert(object.address).second) {
        fail(object, "is reached by two links, or a link leads back to it");
      }
      read_object(object);
    }
  }

 private:
  [[noreturn]] void fail(const Object& object, std::string_view reason) const {
    throw FileError(path_, fmt::format("{} {}", quoted(object.name), reason));
  }

  std::uint64_t read_superblock();
  void read_object(const Object& object);
  // Reads the messages of one chunk of a header; continuations are added to `chunks`.
  void read_messages(const Object& object, std::span<const std::byte> chunk, bool has_order,
                     MessageChecker& checker, std::vector<Chunk>& chunks);
  // Bytes of structure can only be read once, so a sound file's are never more than the file's.
  void account(const Object& object, std::uint64_t size) {
    scanned_ += size;
    if (scanned_ > window_.file_bytes()) fail(object, "has an object header that overlaps others");
  }

  const std::string& path_;
  Windows window_;
  std::vector<Object> open_;
  std::unordered_set<std::uint64_t> seen_;
  std::uint64_t scanned_ = 0;
};

std::uint64_t Guard::read_superblock() {
  static constexpr unsigned char kSignature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
  if (!window_.contains(0, 9) ||
      std::memcmp(window_.bytes(0, 8).data(), kSignature, sizeof(kSignature)) != 0) {
    throw FileError(path_, window_.file_bytes() == 0
                               ? "is empty"
                               : "is not an HDF5 file, so it is not a checkpoint; make one with "
                                 "penstock convert");
  }
  const auto version = std::to_integer<int>(window_.bytes(8, 1)[0]);
  if (version != 2 && version != 3) {
    throw FileError(path_, fmt::format("has HDF5 superblock version {}; a checkpoint has 2 or 3 "
                                       "(written with the library bounds of HDF5 1.8)",
                                       version));
  }
  if (!window_.contains(0, kSuperblockBytes)) {
    throw FileError(path_, "is cut short inside its first 48 bytes");
  }
  ByteReader reader(window_.bytes(0, kSuperblockBytes));
  reader.skip(9);
  const std::uint64_t offset_bytes = reader.number(1);
  const std::uint64_t length_bytes = reader.number(1);
  const std::uint64_t flags = reader.number(1);
  const std::uint64_t base = reader.number(8);
  const std::uint64_t extension = reader.number(8);
  const std::uint64_t end = reader.number(8);
  const std::uint64_t root = reader.number(8);
  if (offset_bytes != 8 || length_bytes != 8 || base != 0 || extension != kUndefinedAddress) {
    throw FileError(path_,
                    "has an HDF5 superblock with other than 64-bit offsets, a user block or an "
                    "extension, which checkpoints do not have");
  }
  if (flags != 0) {
    throw FileError(path_, "was not closed by its writer, so it may be incomplete");
  }
  if (reader.number(4) != metadata_checksum(window_.bytes(0, kSuperblockBytes - 4))) {
    throw FileError(path_, "is damaged: the checksum of its first 48 bytes is wrong");
  }
  if (end > window_.file_bytes()) {
    throw FileError(path_, fmt::format("is cut short: it has {} bytes of {}; copy it again",
                                       window_.file_bytes(), end));
  }
  return root;
}

void Guard::read_object(const Object& object) {
  // Signature 4, version 1, flags 1, times 16?, phase change 4?, size of chunk 0 1 to 8.
  if (!window_.contains(object.address, 6)) fail(object, "lies beyond the end of the file");
  const auto start = window_.bytes(object.address, 6);
  if (std::memcmp(start.data(), "OHDR", 4) != 0 || std::to_integer<int>(start[4]) != 2) {
    fail(object, "has no object header of version 2 where its link points");
  }
  const auto flags = std::to_integer<unsigned>(start[5]);
  if ((flags & 0xc0u) != 0) fail(object, "has an object header with unknown flags");
  const std::uint64_t size_bytes = std::uint64_t{1} << (flags & 3u);
  const std::uint64_t prefix_bytes =
      6 + ((flags & 0x20u) != 0 ? 16u : 0u) + ((flags & 0x10u) != 0 ? 4u : 0u);
  if (!window_.contains(object.address, prefix_bytes + size_bytes)) {
    fail(object, "lies beyond the end of the file");
  }
  const std::uint64_t chunk_bytes =
      ByteReader(window_.bytes(object.address + prefix_bytes, size_bytes)).number(size_bytes);

  if (chunk_bytes > kMaxChunkBytes) fail(object, "has an object header that is too large");
  std::vector<Chunk> chunks{
      {object.address, prefix_bytes + size_bytes, prefix_bytes + size_bytes + chunk_bytes}};
  std::unordered_set<std::uint64_t> seen_chunks;
  MessageChecker checker(path_, object.name, window_.file_bytes());
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    const auto [offset, prefix, size] = chunks[i];
    account(object, size);
    if (!window_.contains(offset, size) || !window_.contains(offset + size, 4)) {
      fail(object, "has an object header that ends beyond the file");
    }
    if (!seen_chunks.insert(offset).second) fail(object, "has an object header that is a cycle");
    // A copy: continuations move the window.
    const auto view = window_.bytes(offset, size + 4);
    const std::vector<std::byte> bytes(view.begin(), view.end());
    const auto body = std::span(bytes).first(size);
    if (ByteReader(std::span(bytes).last(4)).number(4) != metadata_checksum(body)) {
      fail(object, "has a damaged object header: its checksum is wrong");
    }
    read_messages(object, body.subspan(prefix), (flags & 0x04u) != 0, checker, chunks);
  }
  checker.finish();
  if (checker.links().empty()) return;
  if (object.depth >= kMaxDepth) fail(object, fmt::format("lies deeper than {} groups", kMaxDepth));
  const std::string prefix = object.depth == 0 ? "/" : object.name + "/";
  for (const GuardedLink& link : checker.links()) {
    if (link.address == kUndefinedAddress) continue;  // external: the reader opens that file
    if (open_.size() + seen_.size() > 4 * kMaxTensors) fail(object, "has too many links");
    open_.push_back({prefix + link.name, link.address, object.depth + 1});
  }
}

void Guard::read_messages(const Object& object, std::span<const std::byte> chunk, bool has_order,
                          MessageChecker& checker, std::vector<Chunk>& chunks) {
  // Type 1, size 2, flags 1, creation order 2?, then `size` bytes; a gap may stay at the end.
  const std::uint64_t message_prefix = has_order ? 6 : 4;
  ByteReader reader(chunk);
  while (reader.left() >= message_prefix) {
    const auto type = static_cast<unsigned>(reader.number(1));
    const std::uint64_t size = reader.number(2);
    const auto message_flags = static_cast<unsigned>(reader.number(1));
    if (has_order) reader.skip(2);
    if (size > reader.left()) fail(object, "has a header message that ends beyond its header");
    const auto message = reader.take(size);
    if (type != kContinuation) {
      checker.check(type, message_flags, message);
      continue;
    }
    // Offset 8, length 8 of "OCHK", messages, checksum 4.
    if (size < 16) fail(object, "has a broken header continuation");
    ByteReader continuation(message);
    const std::uint64_t offset = continuation.number(8);
    const std::uint64_t length = continuation.number(8);
    if (length < 8 || length > kMaxChunkBytes || !window_.contains(offset, length)) {
      fail(object, "has a header continuation beyond the end of the file");
    }
    if (std::memcmp(window_.bytes(offset, 4).data(), "OCHK", 4) != 0) {
      fail(object, "has a header continuation without its signature");
    }
    chunks.push_back({offset, 4, length - 4});
  }
}

}  // namespace

void guard_hdf5_file(const File& file) { Guard(file).run(); }

}  // namespace penstock::io
