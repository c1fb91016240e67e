#include <fmt/format.h>

#include <utility>
#include <vector>

#include "model/ops/linear.hpp"
#include "model/ops/product_cpu.hpp"
#include "model/ops/product_proof_cpu.hpp"

namespace penstock::model {
namespace {

const char* isa_name() {
  if (onednn_has(dnnl_cpu_isa_avx512_core_amx)) return "avx512_amx";
  if (multiplies_bf16()) return "avx512_bf16";
  if (onednn_has(dnnl_cpu_isa_avx512_core)) return "avx512";
  if (onednn_has(dnnl_cpu_isa_avx2)) return "avx2";
  return "sse";
}

class CpuLinear : public Linear {
 public:
  CpuLinear(Product& product, Product::Weight weight)
      : product_(&product), weight_(std::move(weight)) {}

  void apply(std::size_t rows, const void* in, void* out) override {
    product_->apply(weight_, rows, in, out);
  }
  std::uint64_t weight_bytes() const override {
    return weight_.packed.size_bytes() + weight_.bias.size_bytes();
  }

 private:
  Product* product_;
  Product::Weight weight_;
};

class CpuLinearFactory : public LinearFactory {
 public:
  explicit CpuLinearFactory(const Cpu& device) : device_(device), workspace_(device.threads) {}

  void prepare(const LinearShape& shape) override { product_for(shape); }

  std::unique_ptr<Linear> make(const LinearShape& shape, const void* weight,
                               const float* bias) override {
    Product& product = product_for(shape);
    return std::make_unique<CpuLinear>(product, product.pack(weight, bias));
  }

  std::size_t padded_rows(std::size_t rows) const override { return product_padded_rows(rows); }

  std::string numeric_class() const override {
    const dnnl_version_t& version = *dnnl_version();
    return fmt::format("{} onednn-{}.{}.{}", isa_name(), version.major, version.minor,
                       version.patch);
  }

 private:
  Product& product_for(const LinearShape& shape) {
    for (auto& [known, product] : products_) {
      if (known == shape) return *product;
    }
    const bool widen = shape.dtype == io::DType::bf16 && !multiplies_bf16();
    return *products_.emplace_back(shape, choose(shape, widen)).second;
  }

  std::unique_ptr<Product> product(const LinearShape& shape, const ProductMode& mode, bool widen) {
    return std::make_unique<Product>(workspace_, shape, mode, widen);
  }

  // The fastest way that gives a row the same bits alone and in batches. Whether bits are those of
  // whole products or of slices does not depend on the number of threads.
  std::unique_ptr<Product> choose(const LinearShape& shape, bool widen) {
    if (auto whole = widen ? nullptr : choose_whole(shape)) return whole;
    // The code of a slice is that of all others of its width.
    LinearShape slices = shape;
    slices.out_features = distinct_slice_columns(shape.out_features);
    const ProductProof proof(device_, slices);
    for (const std::size_t tile_rows : {widen ? std::size_t{0} : kTileRows, kTileRows}) {
      const ProductMode mode{.sliced = true, .tile_rows = tile_rows};
      const auto trial = product(slices, mode, widen);
      if (proof.matches(*trial, proof.rows_alone(*trial))) return product(shape, mode, widen);
    }
    return product(shape, {.sliced = true, .tile_rows = 1}, widen);  // each row alone
  }

  // With the bits of the whole product on one thread; null where they depend on the batch.
  std::unique_ptr<Product> choose_whole(const LinearShape& shape) {
    auto reference = product(shape, {.single_thread = true}, false);
    if (!reference->batch_reduce()) return nullptr;  // known without the work of a proof
    const ProductProof proof(device_, shape);
    const auto expected = proof.rows_alone(*reference);
    if (!proof.matches(*reference, expected)) return nullptr;
    if (device_.threads == 1) return reference;
    for (const ProductMode& mode : {ProductMode{}, ProductMode{.sliced = true}}) {
      auto threaded = product(shape, mode, false);
      if (proof.matches(*threaded, expected)) return threaded;
    }
    return reference;
  }

  Cpu device_;
  ProductWorkspace workspace_;
  std::vector<std::pair<LinearShape, std::unique_ptr<Product>>> products_;
};

}  // namespace

std::unique_ptr<LinearFactory> make_linear_factory(const Cpu& device) {
  return std::make_unique<CpuLinearFactory>(device);
}

}  // namespace penstock::model
