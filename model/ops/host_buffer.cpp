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

[[noreturn]] void refuse(std::size_t size_bytes, const char* purpose) {
  throw ModelError(
      fmt::format("cannot allocate {} bytes of host memory for {}", size_bytes, purpose));
}

// Advice only: refusal does no harm.
void advise_huge_pages(void* memory, std::size_t size_bytes) {
  madvise(memory, size_bytes, MADV_HUGEPAGE);
}

}  // namespace

void HostBuffer::Free::operator()(std::byte* data) const {
  if (mapped_bytes == 0) return std::free(data);
  munmap(data, mapped_bytes);
}

HostBuffer HostBuffer::lazy(std::size_t size_bytes, const char* purpose) {
  HostBuffer buffer;
  const std::size_t mapped_bytes = std::max<std::size_t>(1, size_bytes);
  void* memory =
      mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) refuse(size_bytes, purpose);
  buffer.data_ = Data(static_cast<std::byte*>(memory), Free{mapped_bytes});
  buffer.size_bytes_ = size_bytes;
  advise_huge_pages(memory, mapped_bytes);
  return buffer;
}

HostBuffer::HostBuffer(std::size_t size_bytes, int threads, const char* purpose)
    : size_bytes_(size_bytes) {
  const bool huge = size_bytes >= kHugePageBytes;
  const std::size_t alignment = huge ? kHugePageBytes : kLineBytes;
  void* memory = nullptr;
  if (size_bytes <= std::numeric_limits<std::size_t>::max() / 2) {
    const std::size_t pages = std::max<std::size_t>(1, (size_bytes + alignment - 1) / alignment);
    memory = std::aligned_alloc(alignment, pages * alignment);
  }
  if (memory == nullptr) refuse(size_bytes, purpose);
  data_.reset(static_cast<std::byte*>(memory));
  if (huge) advise_huge_pages(memory, size_bytes);
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
