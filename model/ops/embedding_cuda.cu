#include "model/ops/embedding.hpp"

// clang-format off
#include "model/ops/simt_cuda.cuh"
#include "model/ops/embedding_kernel.cuh"
// clang-format on
#include "model/ops/launch_cuda.cuh"

namespace penstock::model {
namespace {

constexpr unsigned kThreads = 256;

template <class Unit>
__global__ void gather_kernel(const Unit* table, std::size_t units, const std::int32_t* rows_of,
                              Unit* out) {
  gather_units(table, units, rows_of, out);
}

template <class Unit>
void gather_by(const Cuda& device, const std::byte* table, std::size_t row_bytes,
               std::span<const std::int32_t> rows_of, std::byte* out) {
  launch(device, gather_kernel<Unit>, dim3(static_cast<unsigned>(rows_of.size())), kThreads, 0,
         reinterpret_cast<const Unit*>(table), row_bytes / sizeof(Unit), rows_of.data(),
         reinterpret_cast<Unit*>(out));
}

}  // namespace

void gather_rows(const Cuda& device, const std::byte* table, std::size_t row_bytes,
                 std::span<const std::int32_t> rows_of, std::byte* out) {
  if (rows_of.empty()) return;
  if (row_bytes % sizeof(uint4) == 0 && aligned16(table) && aligned16(out)) {
    gather_by<uint4>(device, table, row_bytes, rows_of, out);
  } else {
    gather_by<unsigned char>(device, table, row_bytes, rows_of, out);
  }
}

}  // namespace penstock::model
