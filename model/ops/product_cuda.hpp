#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "comm/device/buffer.hpp"
#include "model/ops/cublas_cuda.hpp"
#include "model/ops/linear.hpp"

namespace penstock::model {

// What all products of a factory share. cuBLASLt's documentation recommends 32 MiB on Hopper.
struct CudaProductWorkspace {
  explicit CudaProductWorkspace(const Cuda& on);
  static constexpr std::size_t kBytes = std::size_t{32} << 20;
  Cuda device;
  CublasHandle handle;
  comm::device::DeviceBuffer memory;
};

// Products of one shape by cuBLASLt, each number of rows by an algorithm that was chosen for it.
class CudaProduct {
 public:
  CudaProduct(CudaProductWorkspace& workspace, const LinearShape& shape);

  struct Operands {
    const void* weight = nullptr;  // [out_features, in_features]
    const void* bias = nullptr;    // [out_features] in out_dtype, or null
    const void* in = nullptr;
    void* out = nullptr;
  };
  // cuBLASLt's proposals for a number of rows, the best first, none of which splits sums.
  std::vector<cublasLtMatmulAlgo_t> proposals(std::size_t rows) const;
  // Whether an algorithm can compute so many rows within the workspace.
  bool can(std::size_t rows, const cublasLtMatmulAlgo_t& algorithm) const;
  void run(std::size_t rows, const cublasLtMatmulAlgo_t& algorithm, const Operands& operands) const;

  // From now on run_chosen computes calls of `rows` rows so.
  void choose(std::size_t rows, const cublasLtMatmulAlgo_t& algorithm);
  // From now on all calls have so many rows, a chosen number.
  void set_tile_rows(std::size_t rows) { tile_rows_ = rows; }
  std::size_t tile_rows() const { return tile_rows_; }
  // Any number of rows.
  void run_chosen(std::size_t rows, const Operands& operands) const;

  const LinearShape& shape() const { return shape_; }

 private:
  struct Choice {
    std::size_t rows;
    cublasLtMatmulAlgo_t algorithm;
    CublasLayout in;
    CublasLayout out;
  };
  void set_bias(const void* bias) const;
  void run_by(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatrixLayout_t in,
              cublasLtMatrixLayout_t out, const Operands& operands) const;

  CudaProductWorkspace* workspace_;
  LinearShape shape_;
  CublasMatmul matmul_;
  CublasLayout weight_;
  std::vector<Choice> choices_;  // by rising rows
  std::size_t tile_rows_ = 0;
};

}  // namespace penstock::model
