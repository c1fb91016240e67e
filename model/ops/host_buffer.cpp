#include "model/ops/host_buffer.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "model/error.hpp"

namespace penstock::model {
namespace {

constexpr std::size_t kHugePageBytes = 2u << 20;
constexpr std::size_t kLineBytes = 64;

}  // namespace

void HostBuffer::Free::operator()(std::byte* data) const { std::free(data); }

HostBuffer::HostBuffer(std::size_t size_bytes, int threads, const char* purpose)
    : size_bytes_(size_bytes) {
  const bool huge = size_bytes >= kHugePageBytes;
  const std::size_t alignment = huge ? kHugePageBytes : kLineBytes;
  void* memory = nullptr;
  if (size_bytes <= std::numeric_limits<std::size_t>::max() / 2) {
    const std::size_t pages = std::max<std::size_t>(1, (size_bytes + alignment - 1) / alignment);
    memory = std::aligned_alloc(alignment, pages * alignment);
  }
  if (memory == nullptr) {
    throw ModelError(
        fmt::format("cannot allocate {} bytes of host memory for {}", size_bytes, purpose));
  }
  data_.reset(static_cast<std::byte*>(memory));
  if (huge) madvise(memory, size_bytes, MADV_HUGEPAGE);  // advice only: refusal does no harm
  const auto pieces =
      static_cast<std::ptrdiff_t>((size_bytes + kHugePageBytes - 1) / kHugePageBytes);
  std::byte* base = data_.get();
#pragma omp parallel for schedule(static) num_threads(threads) if (pieces > 1)
  for (std::ptrdiff_t piece = 0; piece < pieces; ++piece) {
    const std::size_t begin = static_cast<std::size_t>(piece) * kHugePageBytes;
    std::memset(base + begin, 0, std::min(kHugePageBytes, size_bytes - begin));
  }
}

}  // namespace penstock::model
