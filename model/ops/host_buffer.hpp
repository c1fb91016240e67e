#pragma once

#include <cstddef>
#include <memory>
#include <utility>

namespace penstock::model {

// Zeroed host memory, aligned to 64 bytes; large buffers lie on huge pages and are first touched by
// `threads` threads, so that they are near the cores that use them. Move-only; empty when default
// constructed. Throws ModelError, naming `purpose` and the size, when memory cannot be had.
class HostBuffer {
 public:
  HostBuffer() = default;
  HostBuffer(std::size_t size_bytes, int threads, const char* purpose);
  // Zeroed by the kernel page by page, on the first touch: what is never touched takes no memory.
  static HostBuffer lazy(std::size_t size_bytes, const char* purpose);
  HostBuffer(HostBuffer&& other) noexcept
      : data_(std::move(other.data_)), size_bytes_(std::exchange(other.size_bytes_, 0)) {}
  HostBuffer& operator=(HostBuffer&& other) noexcept {
    data_ = std::move(other.data_);
    size_bytes_ = std::exchange(other.size_bytes_, 0);
    return *this;
  }

  std::byte* data() const { return data_.get(); }
  std::size_t size_bytes() const { return size_bytes_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }

 private:
  struct Free {
    Free() : mapped_bytes(0) {}
    explicit Free(std::size_t size_bytes) : mapped_bytes(size_bytes) {}
    std::size_t mapped_bytes;  // 0: from the heap
    void operator()(std::byte* data) const;
  };
  using Data = std::unique_ptr<std::byte, Free>;
  Data data_;
  std::size_t size_bytes_ = 0;
};

}  // namespace penstock::model
