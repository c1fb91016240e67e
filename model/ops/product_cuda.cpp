#include "model/ops/product_cuda.hpp"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "model/error.hpp"
#include "model/ops/product_rows.hpp"

namespace penstock::model {
namespace {

template <class T>
T config_of(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute,
            T otherwise) {
  T value{};
  std::size_t written = 0;
  const cublasStatus_t got =
      cublasLtMatmulAlgoConfigGetAttribute(&algorithm, attribute, &value, sizeof(value), &written);
  return got == CUBLAS_STATUS_SUCCESS && written == sizeof(value) ? value : otherwise;
}

// The preference forbids reductions; an algorithm that splits sums in a way that it does not name
// as one is no candidate either. 0 and 1 are the only numbers of parts that mean whole sums.
bool splits_sums(const cublasLtMatmulAlgo_t& algorithm) {
  const auto parts = config_of<std::int32_t>(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, 1);
  const auto scheme = config_of<std::uint32_t>(algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME,
                                               CUBLASLT_REDUCTION_SCHEME_NONE);
  return (parts != 0 && parts != 1) || scheme != CUBLASLT_REDUCTION_SCHEME_NONE;
}

}  // namespace

CudaProductWorkspace::CudaProductWorkspace(const Cuda& on)
    : device(on), handle(make_cublas_handle()), memory(kBytes) {}

CudaProduct::CudaProduct(CudaProductWorkspace& workspace, const LinearShape& shape)
    : workspace_(&workspace),
      shape_(shape),
      matmul_(make_cublas_matmul()),
      weight_(make_cublas_layout(shape.dtype, shape.in_features, shape.out_features)) {
  if (!shape.bias) return;
  const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;  // in the output's type
  PENSTOCK_CUBLAS_CALL(cublasLtMatmulDescSetAttribute(matmul_.get(), CUBLASLT_MATMUL_DESC_EPILOGUE,
                                                      &epilogue, sizeof(epilogue)));
  // Proposals depend on the alignment of the bias (CUBLASLT_MATMUL_DESC_BIAS_POINTER): that of all
  // buffers, whatever bias was multiplied with last. Nothing is read there.
  set_bias(workspace.memory.data());
}

void CudaProduct::set_bias(const void* bias) const {
  PENSTOCK_CUBLAS_CALL(cublasLtMatmulDescSetAttribute(
      matmul_.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof(bias)));
}

std::vector<cublasLtMatmulAlgo_t> CudaProduct::proposals(std::size_t rows) const {
  constexpr int kMost = 8;
  const CublasPreference preference = make_cublas_preference(CudaProductWorkspace::kBytes);
  const CublasLayout in = make_cublas_layout(shape_.dtype, shape_.in_features, rows);
  const CublasLayout out = make_cublas_layout(shape_.out_dtype, shape_.out_features, rows);
  std::array<cublasLtMatmulHeuristicResult_t, kMost> results{};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      workspace_->handle.get(), matmul_.get(), weight_.get(), in.get(), out.get(), out.get(),
      preference.get(), kMost, results.data(), &found);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return {};
  check_cublas(status, "cublasLtMatmulAlgoGetHeuristic");
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  for (int i = 0; i < found; ++i) {
    const auto& result = results[static_cast<std::size_t>(i)];
    if (result.state != CUBLAS_STATUS_SUCCESS || splits_sums(result.algo)) continue;
    algorithms.push_back(result.algo);
  }
  return algorithms;
}

bool CudaProduct::can(std::size_t rows, const cublasLtMatmulAlgo_t& algorithm) const {
  const CublasLayout in = make_cublas_layout(shape_.dtype, shape_.in_features, rows);
  const CublasLayout out = make_cublas_layout(shape_.out_dtype, shape_.out_features, rows);
  cublasLtMatmulHeuristicResult_t result{};
  const cublasStatus_t status =
      cublasLtMatmulAlgoCheck(workspace_->handle.get(), matmul_.get(), weight_.get(), in.get(),
                              out.get(), out.get(), &algorithm, &result);
  return status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= CudaProductWorkspace::kBytes;
}

void CudaProduct::run_by(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatrixLayout_t in,
                         cublasLtMatrixLayout_t out, const Operands& operands) const {
  if (shape_.bias) set_bias(operands.bias);
  const float one = 1.0f;
  const float zero = 0.0f;
  PENSTOCK_CUBLAS_CALL(cublasLtMatmul(
      workspace_->handle.get(), matmul_.get(), &one, operands.weight, weight_.get(), operands.in,
      in, &zero, operands.out, out, operands.out, out, &algorithm, workspace_->memory.data(),
      CudaProductWorkspace::kBytes, static_cast<cudaStream_t>(workspace_->device.stream)));
}

void CudaProduct::run(std::size_t rows, const cublasLtMatmulAlgo_t& algorithm,
                      const Operands& operands) const {
  const CublasLayout in = make_cublas_layout(shape_.dtype, shape_.in_features, rows);
  const CublasLayout out = make_cublas_layout(shape_.out_dtype, shape_.out_features, rows);
  run_by(algorithm, in.get(), out.get(), operands);
}

void CudaProduct::choose(std::size_t rows, const cublasLtMatmulAlgo_t& algorithm) {
  Choice choice{rows, algorithm, make_cublas_layout(shape_.dtype, shape_.in_features, rows),
                make_cublas_layout(shape_.out_dtype, shape_.out_features, rows)};
  const auto at = std::find_if(choices_.begin(), choices_.end(),
                               [rows](const Choice& other) { return other.rows >= rows; });
  if (at != choices_.end() && at->rows == rows) {
    *at = std::move(choice);
  } else {
    choices_.insert(at, std::move(choice));
  }
}

void CudaProduct::run_chosen(std::size_t rows, const Operands& operands) const {
  const std::size_t in_row = shape_.in_features * io::size_of(shape_.dtype);
  const std::size_t out_row = shape_.out_features * io::size_of(shape_.out_dtype);
  std::size_t done = 0;
  while (done < rows) {
    const std::size_t left = rows - done;
    const std::size_t call =
        tile_rows_ > 0 ? tile_rows_ : product_row_bucket(std::min(left, kMostProductRows));
    const auto at = std::find_if(choices_.begin(), choices_.end(),
                                 [call](const Choice& choice) { return choice.rows == call; });
    if (at == choices_.end()) {
      throw ModelError(fmt::format("a product was not prepared for calls of {} rows", call));
    }
    Operands part = operands;
    part.in = static_cast<const std::byte*>(operands.in) + done * in_row;
    part.out = static_cast<std::byte*>(operands.out) + done * out_row;
    run_by(at->algorithm, at->in.get(), at->out.get(), part);
    done += call;
  }
}

}  // namespace penstock::model
