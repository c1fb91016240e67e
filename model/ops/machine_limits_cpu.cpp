#include <omp.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <numeric>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "model/ops/host_buffer.hpp"
#include "model/ops/machine_limits.hpp"
#include "model/ops/matmul_cpu.hpp"

namespace penstock::model {
namespace {

using Seconds = std::chrono::duration<double>;
constexpr Seconds kBudget{0.5};
constexpr std::size_t kRows = 256;
constexpr std::size_t kWidth = 1024;
constexpr std::size_t kReadBytes = std::size_t{512} << 20;

// Median seconds of `work`, after one round to warm up, for the budget's time.
double median_seconds(const std::function<void()>& work) {
  using Clock = std::chrono::steady_clock;
  work();
  std::vector<double> rounds;
  const auto begin = Clock::now();
  while (rounds.size() < 3 || Clock::now() - begin < kBudget) {
    const auto start = Clock::now();
    work();
    rounds.push_back(Seconds(Clock::now() - start).count());
  }
  std::nth_element(rounds.begin(), rounds.begin() + static_cast<std::ptrdiff_t>(rounds.size() / 2),
                   rounds.end());
  return rounds[rounds.size() / 2];
}

double measure_flops(const Cpu& device, io::DType dtype) {
  const bool bf16 = dtype == io::DType::bf16 && multiplies_bf16();  // else Linear widens to f32
  const auto type = bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
  const OmpThreads threads(device.threads);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  Matmul product(engine,
                 {kWidth, kWidth, type, dnnl::memory::data_type::f32, false, device.threads});
  product.create(kRows);
  const std::size_t element = io::size_of(bf16 ? io::DType::bf16 : io::DType::f32);
  const std::vector<std::byte> weight(kWidth * kWidth * element);
  const std::vector<std::byte> in(kRows * kWidth * element);
  std::vector<float> out(kRows * kWidth);
  std::vector<std::byte> packed(product.packed_bytes());
  std::vector<std::byte> scratch(product.scratch_bytes());
  const dnnl::memory packed_memory = product.packed_memory(packed.data());
  product.pack(weight.data(), packed_memory, stream);
  const double seconds = median_seconds([&] {
    product.run(kRows, in.data(), packed_memory, nullptr, out.data(), scratch.data(), stream);
  });
  return 2.0 * static_cast<double>(kRows * kWidth * kWidth) / seconds;
}

double measure_bytes(const Cpu& device) {
  // Zeros, first touched by the threads that read them.
  const HostBuffer buffer(kReadBytes, device.threads, "measuring the memory");
  std::uint64_t total = 0;
  const double seconds = median_seconds([&] {
    std::uint64_t sum = 0;
#pragma omp parallel num_threads(device.threads) reduction(+ : sum)
    {
      // Four streams a thread: one alone does not keep the memory busy.
      const auto parts = static_cast<std::size_t>(omp_get_num_threads()) * 4;
      const std::size_t length = kReadBytes / sizeof(std::uint64_t) / parts;
      const std::uint64_t* a =
          buffer.as<std::uint64_t>() + static_cast<std::size_t>(omp_get_thread_num()) * 4 * length;
      std::uint64_t sums[4] = {0, 0, 0, 0};
      for (std::size_t i = 0; i < length; ++i) {
        sums[0] += a[i];
        sums[1] += a[i + length];
        sums[2] += a[i + 2 * length];
        sums[3] += a[i + 3 * length];
      }
      sum += sums[0] + sums[1] + sums[2] + sums[3];
    }
    total += sum;
  });
  // The sum is used, so that the reads are not optimized away.
  return total == 0 ? static_cast<double>(kReadBytes) / seconds : 0;
}

}  // namespace

MachineLimits measure_machine(const Cpu& device, io::DType dtype) {
  return {measure_flops(device, dtype), measure_bytes(device)};
}

}  // namespace penstock::model
