#include <cuda_runtime_api.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "comm/device/buffer.hpp"
#include "comm/device/stream.hpp"
#include "model/error.hpp"
#include "model/ops/cublas_cuda.hpp"
#include "model/ops/machine_limits.hpp"

namespace penstock::model {
namespace {

using comm::device::DeviceBuffer;
using comm::device::Event;

constexpr std::size_t kSide = 8192;
constexpr std::size_t kCopyBytes = std::size_t{1} << 30;
constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

double median_seconds(const Cuda& device, const std::function<void()>& work) {
  constexpr std::size_t kRounds = 11;
  Event start = Event::create(true);
  Event stop = Event::create(true);
  work();
  work();
  std::vector<double> rounds;
  while (rounds.size() < kRounds) {
    start.record(device.stream);
    work();
    stop.record(device.stream);
    stop.synchronize();
    rounds.push_back(static_cast<double>(comm::device::elapsed_ms(start, stop)) / 1e3);
  }
  std::nth_element(rounds.begin(), rounds.begin() + kRounds / 2, rounds.end());
  return rounds[kRounds / 2];
}

// What a buffer may have: a card with little free memory is measured with less.
std::size_t affordable(std::size_t wanted) {
  std::size_t free = 0, total = 0;
  PENSTOCK_CUDA_CALL(cudaMemGetInfo(&free, &total));
  while (wanted > free / 4 && wanted > (std::size_t{1} << 20)) wanted /= 2;
  return wanted;
}

double measure_flops(const Cuda& device, io::DType dtype) {
  const std::size_t element = io::size_of(dtype);
  std::size_t side = kSide;
  while (side > 1024 && affordable(3 * side * side * element) < 3 * side * side * element) {
    side /= 2;
  }
  const CublasHandle handle = make_cublas_handle();
  const CublasMatmul matmul = make_cublas_matmul();
  const CublasLayout square = make_cublas_layout(dtype, side, side);
  const CublasPreference preference = make_cublas_preference(kWorkspaceBytes);
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  PENSTOCK_CUBLAS_CALL(cublasLtMatmulAlgoGetHeuristic(handle.get(), matmul.get(), square.get(),
                                                      square.get(), square.get(), square.get(),
                                                      preference.get(), 1, &best, &found));
  if (found == 0) throw ModelError("cuBLASLt has no product to measure the GPU with");
  const std::size_t bytes = side * side * element;
  const DeviceBuffer a(bytes), b(bytes), c(bytes), workspace(kWorkspaceBytes);
  // Not zeros: their products draw less power and run faster than real ones. Bytes of 0x3C are
  // small positive numbers in all three types.
  for (const DeviceBuffer* buffer : {&a, &b}) {
    PENSTOCK_CUDA_CALL(
        cudaMemsetAsync(buffer->data(), 0x3C, bytes, static_cast<cudaStream_t>(device.stream)));
  }
  const float one = 1.0f;
  const float zero = 0.0f;
  const double seconds = median_seconds(device, [&] {
    PENSTOCK_CUBLAS_CALL(cublasLtMatmul(handle.get(), matmul.get(), &one, a.data(), square.get(),
                                        b.data(), square.get(), &zero, c.data(), square.get(),
                                        c.data(), square.get(), &best.algo, workspace.data(),
                                        kWorkspaceBytes, static_cast<cudaStream_t>(device.stream)));
  });
  const auto n = static_cast<double>(side);
  return 2.0 * n * n * n / seconds;
}

double measure_bytes(const Cuda& device) {
  const std::size_t bytes = affordable(kCopyBytes);
  const DeviceBuffer from(bytes), to(bytes);
  comm::device::zero_async(from.data(), bytes, device.stream);
  const double seconds = median_seconds(
      device, [&] { comm::device::copy_async(to.data(), from.data(), bytes, device.stream); });
  return 2.0 * static_cast<double>(bytes) / seconds;  // read and written
}

}  // namespace

MachineLimits measure_machine(const Cuda& device, io::DType dtype) {
  return {measure_flops(device, dtype), measure_bytes(device)};
}

}  // namespace penstock::model
