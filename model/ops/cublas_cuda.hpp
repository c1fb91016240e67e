#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "comm/device/error.hpp"
#include "io/dtype.hpp"

namespace penstock::model {

inline void check_cublas(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw comm::device::DeviceError(std::string("cuBLASLt: ") + cublasLtGetStatusString(status) +
                                  " (" + call + ")");
}
#define PENSTOCK_CUBLAS_CALL(call) ::penstock::model::check_cublas(call, #call)

inline cudaDataType_t cuda_type(io::DType dtype) {
  switch (dtype) {
    case io::DType::bf16:
      return CUDA_R_16BF;
    case io::DType::f16:
      return CUDA_R_16F;
    case io::DType::f32:
      break;
  }
  return CUDA_R_32F;
}

// Owners of cuBLASLt's descriptions.
template <class Handle, cublasStatus_t (*kDestroy)(Handle)>
struct CublasDestroy {
  using pointer = Handle;
  void operator()(Handle handle) const { kDestroy(handle); }
};
template <class Handle, cublasStatus_t (*kDestroy)(Handle)>
using CublasOwner = std::unique_ptr<std::remove_pointer_t<Handle>, CublasDestroy<Handle, kDestroy>>;
using CublasHandle = CublasOwner<cublasLtHandle_t, cublasLtDestroy>;
using CublasMatmul = CublasOwner<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using CublasLayout = CublasOwner<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using CublasPreference = CublasOwner<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

inline CublasHandle make_cublas_handle() {
  cublasLtHandle_t handle = nullptr;
  PENSTOCK_CUBLAS_CALL(cublasLtCreate(&handle));
  return CublasHandle(handle);
}

// Column after column, as cuBLAS counts: our rows are its columns.
inline CublasLayout make_cublas_layout(io::DType dtype, std::size_t rows, std::size_t columns) {
  cublasLtMatrixLayout_t layout = nullptr;
  PENSTOCK_CUBLAS_CALL(cublasLtMatrixLayoutCreate(&layout, cuda_type(dtype), rows, columns,
                                                  static_cast<std::int64_t>(rows)));
  return CublasLayout(layout);
}

// out = weight^T (of its columns) * in in f32: our out = in * weight^T.
inline CublasMatmul make_cublas_matmul() {
  cublasLtMatmulDesc_t matmul = nullptr;
  PENSTOCK_CUBLAS_CALL(cublasLtMatmulDescCreate(&matmul, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  CublasMatmul owner(matmul);
  const cublasOperation_t transposed = CUBLAS_OP_T;
  PENSTOCK_CUBLAS_CALL(cublasLtMatmulDescSetAttribute(matmul, CUBLASLT_MATMUL_DESC_TRANSA,
                                                      &transposed, sizeof(transposed)));
  return owner;
}

inline CublasPreference make_cublas_preference(std::uint64_t workspace_bytes) {
  cublasLtMatmulPreference_t preference = nullptr;
  PENSTOCK_CUBLAS_CALL(cublasLtMatmulPreferenceCreate(&preference));
  CublasPreference owner(preference);
  PENSTOCK_CUBLAS_CALL(
      cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                           &workspace_bytes, sizeof(workspace_bytes)));
  // No sums over parts of the inner dimension: their number would depend on the rows.
  const std::uint32_t none = CUBLASLT_REDUCTION_SCHEME_NONE;
  PENSTOCK_CUBLAS_CALL(cublasLtMatmulPreferenceSetAttribute(
      preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &none, sizeof(none)));
  return owner;
}

}  // namespace penstock::model
