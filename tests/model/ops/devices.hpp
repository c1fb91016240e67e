#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "model/ops/device.hpp"
#include "tests/model/ops/ops_support.hpp"

#ifdef PENSTOCK_TEST_CUDA
#include <cuda_runtime_api.h>

#include "comm/device/buffer.hpp"
#include "comm/device/error.hpp"
#include "comm/device/gpu.hpp"
#include "tests/model/ops/emulated.hpp"
#endif

// The devices that ops are tested on, by the same test bodies: the CPU, the GPU's kernels played on
// the CPU, and a GPU. Each has device(), Array<T> for its memory, and each_variant(body), which
// calls `body` once for every kind of code that may run.
namespace penstock::model {

template <class T>
class HostArray {
 public:
  explicit HostArray(std::vector<T> values) : values_(std::move(values)) {}
  T* data() { return values_.data(); }
  std::vector<T> values() const { return values_; }

 private:
  std::vector<T> values_;
};

struct OnCpu {
  static constexpr bool kHasHalf = false;
  static std::string missing() { return ""; }
  static Cpu device() { return Cpu{2}; }
  template <class T>
  using Array = HostArray<T>;
  static void each_variant(const std::function<void()>& body) { on_each_instruction_set(body); }
};

#ifdef PENSTOCK_TEST_CUDA

struct OnEmulator {
  static constexpr bool kHasHalf = true;
  static std::string missing() { return ""; }
  static Emulated device() { return {}; }
  // At multiples of 256 bytes, as a GPU's.
  template <class T>
  class Array {
   public:
    explicit Array(const std::vector<T>& values)
        : size_(values.size()), memory_(new std::byte[values.size() * sizeof(T) + 256]) {
      if (size_ > 0) std::memcpy(data(), values.data(), size_ * sizeof(T));
    }
    T* data() {
      const auto at = reinterpret_cast<std::uintptr_t>(memory_.get());
      return reinterpret_cast<T*>((at + 255) / 256 * 256);
    }
    std::vector<T> values() { return {data(), data() + size_}; }

   private:
    std::size_t size_;
    std::unique_ptr<std::byte[]> memory_;
  };
  static void each_variant(const std::function<void()>& body) { body(); }
};

struct OnGpu {
  static constexpr bool kHasHalf = true;
  // Why there is none.
  static std::string missing() {
    static const std::string why = [] {
      const auto survey = comm::device::survey_gpus();
      if (!survey.gpus.empty()) comm::device::use_gpu(survey.gpus.front());
      return survey.gpus.empty() ? survey.none : std::string();
    }();
    return why;
  }
  static Cuda device() { return {nullptr, comm::device::survey_gpus().gpus.front().index}; }
  template <class T>
  class Array {
   public:
    explicit Array(const std::vector<T>& values)
        : size_(values.size()), buffer_(values.size() * sizeof(T)) {
      if (size_ > 0) copy(buffer_.data(), values.data());
    }
    T* data() { return buffer_.template as<T>(); }
    std::vector<T> values() {
      std::vector<T> result(size_);
      if (size_ > 0) copy(result.data(), buffer_.data());
      return result;
    }

   private:
    // In the order of the default stream, on which the tests run; waits.
    void copy(void* to, const void* from) {
      PENSTOCK_CUDA_CALL(cudaMemcpy(to, from, size_ * sizeof(T), cudaMemcpyDefault));
    }
    std::size_t size_;
    comm::device::DeviceBuffer buffer_;
  };
  static void each_variant(const std::function<void()>& body) { body(); }
};

#endif

// A device and a type of elements.
template <class Device, class T>
struct On {
  using Place = Device;
  using Element = T;
};

#ifdef PENSTOCK_TEST_CUDA
using DevicesAndTypes =
    testing::Types<On<OnCpu, float>, On<OnCpu, std::uint16_t>, On<OnEmulator, float>,
                   On<OnEmulator, std::uint16_t>, On<OnEmulator, Half>, On<OnGpu, float>,
                   On<OnGpu, std::uint16_t>, On<OnGpu, Half>>;
using Devices = testing::Types<OnCpu, OnEmulator, OnGpu>;
#else
using DevicesAndTypes = testing::Types<On<OnCpu, float>, On<OnCpu, std::uint16_t>>;
using Devices = testing::Types<OnCpu>;
#endif

// Skips where the device is missing.
template <class Device>
class DeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string missing = Device::missing();
    if (!missing.empty()) GTEST_SKIP() << missing;
  }
};

}  // namespace penstock::model
