#include "model/ops/product_proof_cuda.hpp"

// clang-format off
#include "model/ops/simt_cuda.cuh"
#include "model/ops/product_proof_kernel.cuh"
// clang-format on

#include <algorithm>

#include "comm/device/stream.hpp"
#include "model/ops/launch_cuda.cuh"

namespace penstock::model {
namespace {

namespace device = comm::device;

constexpr unsigned kThreads = 256;
constexpr unsigned kBlocks = 1024;

template <class T>
__global__ void fill_kernel(std::size_t rows, std::size_t width, bool weight, T* to) {
  fill_proof(rows, width, weight, to);
}

template <class T>
__global__ void fill_bias_kernel(std::size_t count, T* to) {
  fill_proof_bias(count, to);
}

template <class Unit>
__global__ void unequal_kernel(const Unit* rows, std::size_t count, std::size_t width,
                               const Unit* expected, std::uint32_t* unequal) {
  count_unequal(rows, count, width, expected, unequal);
}

void fill(const Cuda& device, io::DType dtype, std::size_t rows, std::size_t width, bool weight,
          void* to) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    launch(device, fill_kernel<T>, dim3(kBlocks), kThreads, 0, rows, width, weight,
           static_cast<T*>(to));
  });
}

}  // namespace

CudaProductProof::CudaProductProof(const Cuda& device, const LinearShape& shape,
                                   std::size_t max_rows)
    : device_(device),
      shape_(shape),
      weight_(shape.out_features * shape.in_features * io::size_of(shape.dtype)),
      bias_(shape.out_features * io::size_of(shape.out_dtype)),
      in_(max_rows * shape.in_features * io::size_of(shape.dtype)),
      out_(max_rows * shape.out_features * io::size_of(shape.out_dtype)),
      expected_(kProofRows * shape.out_features * io::size_of(shape.out_dtype)),
      unequal_(sizeof(std::uint32_t)) {
  fill(device, shape.dtype, shape.out_features, shape.in_features, true, weight_.data());
  fill(device, shape.dtype, max_rows, shape.in_features, false, in_.data());
  with_type(shape.out_dtype, [&](auto zero) {
    using T = decltype(zero);
    launch(device, fill_bias_kernel<T>, dim3(kBlocks), kThreads, 0, shape.out_features,
           static_cast<T*>(bias_.data()));
  });
}

CudaProduct::Operands CudaProductProof::operands() const {
  return {weight_.data(), bias_.data(), in_.data(), out_.data()};
}

bool CudaProductProof::computed(const CudaProduct& product, std::size_t rows,
                                const cublasLtMatmulAlgo_t& algorithm) const {
  // NaN wherever the call writes nothing.
  PENSTOCK_CUDA_CALL(cudaMemsetAsync(out_.data(), 0xFF,
                                     rows * shape_.out_features * io::size_of(shape_.out_dtype),
                                     static_cast<cudaStream_t>(device_.stream)));
  try {
    product.run(rows, algorithm, operands());
  } catch (const device::DeviceError&) {
    // A proposal that the library then refuses is no candidate, and what CUDA noted of it is not
    // the next launch's failure.
    cudaGetLastError();
    return false;
  }
  return true;
}

bool CudaProductProof::equal_to_expected(std::size_t rows) {
  device::zero_async(unequal_.data(), sizeof(std::uint32_t), device_.stream);
  const auto compare = [&](auto unit) {
    using Unit = decltype(unit);
    launch(device_, unequal_kernel<Unit>, dim3(kBlocks), kThreads, 0,
           static_cast<const Unit*>(out_.data()), rows, shape_.out_features,
           static_cast<const Unit*>(expected_.data()), unequal_.as<std::uint32_t>());
  };
  if (shape_.out_dtype == io::DType::f32) {
    compare(std::uint32_t{});
  } else {
    compare(std::uint16_t{});
  }
  std::uint32_t unequal = 1;
  PENSTOCK_CUDA_CALL(cudaMemcpyAsync(&unequal, unequal_.data(), sizeof(unequal),
                                     cudaMemcpyDeviceToHost,
                                     static_cast<cudaStream_t>(device_.stream)));
  PENSTOCK_CUDA_CALL(cudaStreamSynchronize(static_cast<cudaStream_t>(device_.stream)));
  return unequal == 0;
}

bool CudaProductProof::take_as_expected(const CudaProduct& product, std::size_t rows,
                                        const cublasLtMatmulAlgo_t& algorithm) {
  if (!computed(product, rows, algorithm)) return false;
  device::copy_async(expected_.data(), out_.data(), expected_.size_bytes(), device_.stream);
  return equal_to_expected(rows);
}

bool CudaProductProof::matches(const CudaProduct& product, std::size_t rows,
                               const cublasLtMatmulAlgo_t& algorithm) {
  return computed(product, rows, algorithm) && equal_to_expected(rows);
}

float CudaProductProof::time_ms(const CudaProduct& product, std::size_t rows,
                                const cublasLtMatmulAlgo_t& algorithm) const {
  constexpr int kRounds = 3;
  device::Event begin = device::Event::create(true);
  device::Event end = device::Event::create(true);
  float least = 0;
  for (int round = 0; round < kRounds; ++round) {
    begin.record(device_.stream);
    product.run(rows, algorithm, operands());
    end.record(device_.stream);
    end.synchronize();
    const float time = device::elapsed_ms(begin, end);
    least = round == 0 ? time : std::min(least, time);
  }
  return least;
}

}  // namespace penstock::model
