#pragma once

#include <cstddef>

#include "comm/device/buffer.hpp"
#include "model/ops/product_cuda.hpp"

namespace penstock::model {

// product_proof_cpu on a GPU: numbers for which a sum in another order gives other bits, and rows
// that must have the same bits wherever they are in whatever batch.
class CudaProductProof {
 public:
  // Products of `max_rows` rows at most.
  CudaProductProof(const Cuda& device, const LinearShape& shape, std::size_t max_rows);

  // Takes an algorithm's rows as those that others must give. False when equal rows of one call
  // already differ, or the algorithm fails.
  bool take_as_expected(const CudaProduct& product, std::size_t rows,
                        const cublasLtMatmulAlgo_t& algorithm);
  // Whether a call gives the very bytes that are expected.
  bool matches(const CudaProduct& product, std::size_t rows, const cublasLtMatmulAlgo_t& algorithm);
  // Milliseconds of a call, the least of a few.
  float time_ms(const CudaProduct& product, std::size_t rows,
                const cublasLtMatmulAlgo_t& algorithm) const;

 private:
  bool computed(const CudaProduct& product, std::size_t rows,
                const cublasLtMatmulAlgo_t& algorithm) const;
  bool equal_to_expected(std::size_t rows);
  CudaProduct::Operands operands() const;

  Cuda device_;
  LinearShape shape_;
  comm::device::DeviceBuffer weight_;
  comm::device::DeviceBuffer bias_;
  comm::device::DeviceBuffer in_;
  comm::device::DeviceBuffer out_;
  comm::device::DeviceBuffer expected_;
  comm::device::DeviceBuffer unequal_;
};

}  // namespace penstock::model
