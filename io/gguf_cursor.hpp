#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "io/error.hpp"
#include "io/file.hpp"

namespace penstock::io {

// Reads the header of a GGUF file front to back, through a window of bounded size. Every size is
// checked against the bytes that are left before anything is allocated. Throws FileError.
//
// `what` is called for the name of the thing that is read, when a message needs it.
class GgufCursor {
 public:
  // Nothing is read beyond `limit_bytes` of the file.
  GgufCursor(const File& file, std::uint64_t limit_bytes)
      : file_(file),
        limit_(limit_bytes),
        end_(std::min(file.size_bytes(), limit_bytes)),
        window_(kWindowBytes) {}

  std::uint64_t position() const { return position_; }
  std::uint64_t left() const { return end_ - position_; }

  template <typename What>
  void read(void* to, std::uint64_t size, const What& what) {
    require(size, what);
    auto* target = static_cast<std::byte*>(to);
    while (size > 0) {
      if (position_ - window_start_ >= window_size_) refill();
      const std::uint64_t skip = position_ - window_start_;
      const std::uint64_t part = std::min(size, window_size_ - skip);
      std::memcpy(target, window_.data() + skip, part);
      target += part;
      size -= part;
      position_ += part;
    }
  }

  template <typename T, typename What>
  T number(const What& what) {
    T value;
    read(&value, sizeof value, what);
    return value;
  }

  template <typename What>
  std::string string(std::uint64_t limit, const What& what) {
    const auto length = number<std::uint64_t>(what);
    if (length > limit) {
      fail(fmt::format("{} is said to be {} bytes long; at most {} are allowed", what(), length,
                       limit));
    }
    require(length, what);
    std::string text(length, '\0');
    read(text.data(), length, what);
    return text;
  }

  // Refuses `count` things of at least `each` bytes that cannot lie in the rest of the file.
  template <typename What>
  void require_count(std::uint64_t count, std::uint64_t each, const What& what) {
    if (count > left() / each) {
      fail(fmt::format("{} is said to hold {} elements at byte {}, where {} bytes are left", what(),
                       count, position_, left()));
    }
  }

  [[noreturn]] void fail(const std::string& reason) const { throw FileError(file_.path(), reason); }

 private:
  static constexpr std::size_t kWindowBytes = 1u << 16;

  template <typename What>
  void require(std::uint64_t size, const What& what) {
    if (size <= left()) return;
    if (end_ == limit_) {
      fail(fmt::format("{} reaches beyond the {} bytes allowed for a header", what(), limit_));
    }
    fail(fmt::format("ends too early: {} needs {} bytes at byte {}, where {} are left", what(),
                     size, position_, left()));
  }

  void refill() {
    window_start_ = position_;
    window_size_ = std::min<std::uint64_t>(kWindowBytes, left());
    file_.read_at(window_start_, std::span(window_).first(window_size_));
  }

  const File& file_;
  std::uint64_t limit_;
  std::uint64_t end_;
  std::uint64_t position_ = 0;
  std::vector<std::byte> window_;
  std::uint64_t window_start_ = 0;
  std::uint64_t window_size_ = 0;
};

}  // namespace penstock::io
