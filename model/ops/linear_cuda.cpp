#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "model/error.hpp"
#include "model/ops/linear.hpp"
#include "model/ops/product_cuda.hpp"
#include "model/ops/product_proof_cuda.hpp"
#include "model/ops/product_rows.hpp"

namespace penstock::model {
namespace {

using comm::device::DeviceBuffer;
using Algorithms = std::vector<cublasLtMatmulAlgo_t>;

class CudaLinear : public Linear {
 public:
  CudaLinear(const CudaProduct& product, const void* weight, const void* bias)
      : product_(&product), weight_(weight), bias_(bias) {}
  CudaLinear(const CudaProduct& product, DeviceBuffer weight, DeviceBuffer bias)
      : product_(&product),
        owned_weight_(std::move(weight)),
        owned_bias_(std::move(bias)),
        weight_(owned_weight_.data()),
        bias_(owned_bias_.data()) {}

  void apply(std::size_t rows, const void* in, void* out) override {
    product_->run_chosen(rows, {weight_, bias_, in, out});
  }
  std::uint64_t weight_bytes() const override {
    const LinearShape& shape = product_->shape();
    return shape.out_features * (shape.in_features * io::size_of(shape.dtype) +
                                 (shape.bias ? io::size_of(shape.out_dtype) : 0));
  }

 private:
  const CudaProduct* product_;
  DeviceBuffer owned_weight_;
  DeviceBuffer owned_bias_;
  const void* weight_;
  const void* bias_;
};

std::string shape_text(const LinearShape& shape) {
  return fmt::format("{} x {} in {}", shape.out_features, shape.in_features,
                     io::to_string(shape.dtype));
}

class CublasLinearFactory : public CudaLinearFactory {
 public:
  explicit CublasLinearFactory(const Cuda& device) : workspace_(device) {}

  void prepare(const LinearShape& shape) override { product_for(shape); }

  std::unique_ptr<Linear> make(const LinearShape& shape, const void* weight,
                               const float* bias) override {
    const CudaProduct& product = product_for(shape);
    void* stream = workspace_.device.stream;
    DeviceBuffer weight_copy(shape.out_features * shape.in_features * io::size_of(shape.dtype));
    comm::device::copy_async(weight_copy.data(), weight, weight_copy.size_bytes(), stream);
    DeviceBuffer bias_copy;
    std::vector<std::byte> converted;
    if (shape.bias) {
      converted.resize(shape.out_features * io::size_of(shape.out_dtype));
      io::convert(bias, io::DType::f32, converted.data(), shape.out_dtype, shape.out_features);
      bias_copy = DeviceBuffer(converted.size());
      comm::device::copy_async(bias_copy.data(), converted.data(), converted.size(), stream);
    }
    PENSTOCK_CUDA_CALL(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)));
    return std::make_unique<CudaLinear>(product, std::move(weight_copy), std::move(bias_copy));
  }

  std::unique_ptr<Linear> make_view(const LinearShape& shape, const void* weight,
                                    const void* bias) override {
    return std::make_unique<CudaLinear>(product_for(shape), weight, bias);
  }

  std::size_t padded_rows(std::size_t rows) const override { return gpu_padded_rows(rows); }

  std::string numeric_class() const override {
    int major = 0, minor = 0;
    const int gpu = workspace_.device.gpu;
    PENSTOCK_CUDA_CALL(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, gpu));
    PENSTOCK_CUDA_CALL(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, gpu));
    return fmt::format("sm_{}{} cublaslt-{}", major, minor, cublasLtGetVersion());
  }

 private:
  CudaProduct& product_for(const LinearShape& shape) {
    for (auto& [known, product] : products_) {
      if (known == shape) return *product;
    }
    auto product = std::make_unique<CudaProduct>(workspace_, shape);
    choose(*product);
    return *products_.emplace_back(shape, std::move(product)).second;
  }

  // Bits first: the algorithms of one class, which give rows the same bits in all buckets. The
  // class depends on the library's proposals and the proof alone, and on all buckets whatever
  // max_rows is, so that the size of steps does not change bits. Then speed, which depends on the
  // moment: the fastest in the class for each bucket.
  void choose(CudaProduct& product) const {
    const LinearShape& shape = product.shape();
    const std::vector<std::size_t> buckets = product_row_buckets();
    CudaProductProof proof(workspace_.device, shape, buckets.back());
    std::vector<Algorithms> proposals;
    for (const std::size_t rows : buckets) proposals.push_back(product.proposals(rows));
    // Few rows have the fewest ways to be computed fast; then many.
    for (const std::size_t from : {std::size_t{0}, buckets.size() - 1}) {
      for (const cublasLtMatmulAlgo_t& reference : proposals[from]) {
        if (proof.take_as_expected(product, buckets[from], reference) &&
            choose_class(product, proof, buckets, proposals, reference)) {
          return;
        }
      }
    }
    // No such class: calls of one number of rows, whose places in the call do not matter.
    for (const cublasLtMatmulAlgo_t& algorithm : product.proposals(kProductTileRows)) {
      if (!proof.take_as_expected(product, kProductTileRows, algorithm)) continue;
      product.choose(kProductTileRows, algorithm);
      product.set_tile_rows(kProductTileRows);
      return;
    }
    throw ModelError(fmt::format(
        "cuBLASLt has no way to multiply {} that gives a row the same bits at every place of a "
        "batch",
        shape_text(shape)));
  }

  // Chooses for every bucket the fastest algorithm that gives the expected bits.
  static bool choose_class(CudaProduct& product, CudaProductProof& proof,
                           const std::vector<std::size_t>& buckets,
                           const std::vector<Algorithms>& proposals,
                           const cublasLtMatmulAlgo_t& reference) {
    std::vector<cublasLtMatmulAlgo_t> chosen;
    const std::size_t needed =
        product_row_bucket(std::min(product.shape().max_rows, kMostProductRows));
    for (std::size_t i = 0; i < buckets.size(); ++i) {
      Algorithms candidates = proposals[i];
      if (product.can(buckets[i], reference)) candidates.push_back(reference);
      std::optional<cublasLtMatmulAlgo_t> best;
      float least = std::numeric_limits<float>::infinity();
      for (const cublasLtMatmulAlgo_t& candidate : candidates) {
        if (!proof.matches(product, buckets[i], candidate)) continue;
        if (buckets[i] > needed) {  // never used: that there is one is enough
          best = candidate;
          break;
        }
        const float time = proof.time_ms(product, buckets[i], candidate);
        if (time < least) {
          least = time;
          best = candidate;
        }
      }
      if (!best) return false;
      chosen.push_back(*best);
    }
    for (std::size_t i = 0; i < buckets.size(); ++i) product.choose(buckets[i], chosen[i]);
    return true;
  }

  CudaProductWorkspace workspace_;
  std::vector<std::pair<LinearShape, std::unique_ptr<CudaProduct>>> products_;
};

}  // namespace

std::unique_ptr<CudaLinearFactory> make_linear_factory(const Cuda& device) {
  return std::make_unique<CublasLinearFactory>(device);
}

}  // namespace penstock::model
