#pragma once

#include <cstddef>
#include <span>
#include <utility>

namespace penstock::comm::device {

// What Buffer gets its memory from. allocate() throws DeviceError, which says how much was asked
// for and, on a GPU, how much was free. free() waits for all work of the GPU.
struct GpuMemoryPool {
  static void* allocate(std::size_t size_bytes);
  static void free(void* data) noexcept;
};
struct PinnedMemoryPool {
  static void* allocate(std::size_t size_bytes);
  static void free(void* data) noexcept;
};

// Memory of a pool, not initialized. Move-only; a default-made or moved-from one, and one of 0
// bytes, is empty (null). Since freeing waits, buffers are made before the loop and freed behind
// it.
template <class Pool>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t size_bytes)
      : data_(size_bytes == 0 ? nullptr : Pool::allocate(size_bytes)), size_bytes_(size_bytes) {}
  ~Buffer() { reset(); }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_bytes_(std::exchange(other.size_bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    if (this != &other) {
      reset();
      data_ = std::exchange(other.data_, nullptr);
      size_bytes_ = std::exchange(other.size_bytes_, 0);
    }
    return *this;
  }

  explicit operator bool() const { return data_ != nullptr; }
  void* data() const { return data_; }
  std::size_t size_bytes() const { return size_bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  std::span<std::byte> bytes() const { return {as<std::byte>(), size_bytes_}; }

 private:
  void reset() noexcept {
    if (data_ != nullptr) Pool::free(data_);
    data_ = nullptr;
    size_bytes_ = 0;
  }
  void* data_ = nullptr;
  std::size_t size_bytes_ = 0;
};

// Memory of the calling thread's current GPU, aligned to 256 bytes.
using DeviceBuffer = Buffer<GpuMemoryPool>;
// Host memory that the GPU can read and write directly, for every GPU of the process.
using PinnedBuffer = Buffer<PinnedMemoryPool>;

// Copies between any two of host and GPU memory, in the order of `stream` (a cudaStream_t). Host
// memory must be pinned, else the call blocks.
void copy_async(void* to, const void* from, std::size_t size_bytes, void* stream);
void zero_async(void* to, std::size_t size_bytes, void* stream);

}  // namespace penstock::comm::device
