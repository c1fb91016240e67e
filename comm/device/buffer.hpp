#pragma once

#include <cstddef>
#include <span>
#include <utility>

namespace penstock::comm::device {

// Memory of the GPU or pinned memory of the host. Move-only; a default-made or moved-from one, and
// one of 0 bytes, is empty (null). Freeing waits for all work of the GPU, so buffers are made
// before the loop and freed behind it.

// Memory of the calling thread's current GPU, aligned to 256 bytes, not initialized. When there is
// not enough, the DeviceError says how much was asked for and how much was free.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(std::size_t size_bytes);
  ~DeviceBuffer() { reset(); }
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_bytes_(std::exchange(other.size_bytes_, 0)) {}
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;

  explicit operator bool() const { return data_ != nullptr; }
  void* data() const { return data_; }
  std::size_t size_bytes() const { return size_bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void reset() noexcept;
  void* data_ = nullptr;
  std::size_t size_bytes_ = 0;
};

// Host memory that the GPU can read and write directly, for every GPU of the process.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(std::size_t size_bytes);
  ~PinnedBuffer() { reset(); }
  PinnedBuffer(PinnedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_bytes_(std::exchange(other.size_bytes_, 0)) {}
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept;

  explicit operator bool() const { return data_ != nullptr; }
  void* data() const { return data_; }
  std::size_t size_bytes() const { return size_bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  std::span<std::byte> bytes() const { return {as<std::byte>(), size_bytes_}; }

 private:
  void reset() noexcept;
  void* data_ = nullptr;
  std::size_t size_bytes_ = 0;
};

// Copies between any two of host and GPU memory, in the order of `stream` (a cudaStream_t). Host
// memory must be pinned, else the call blocks.
void copy_async(void* to, const void* from, std::size_t size_bytes, void* stream);
void zero_async(void* to, std::size_t size_bytes, void* stream);

}  // namespace penstock::comm::device
