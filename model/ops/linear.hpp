#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "io/dtype.hpp"
#include "model/ops/device.hpp"

namespace penstock::model {

// The shape of a product out = in * weight^T + bias.
struct LinearShape {
  std::size_t in_features = 0;
  std::size_t out_features = 0;
  io::DType dtype = io::DType::f32;      // of in and weight: f32 or bf16, on a GPU also f16
  io::DType out_dtype = io::DType::f32;  // f32, or dtype
  bool bias = false;
  std::size_t max_rows = 1;

  bool operator==(const LinearShape&) const = default;
};

// A matrix product whose weight is packed in the device's own layout. Sums are f32, rounded once.
// A row's bits depend on nothing but the row and the weight: neither on the other rows, nor on
// their number, nor on the number of threads.
class Linear {
 public:
  virtual ~Linear() = default;
  // `in` is [rows, in_features], `out` [rows, out_features]; both have room for
  // LinearFactory::padded_rows(rows) rows, of which the padding is read and overwritten.
  virtual void apply(std::size_t rows, const void* in, void* out) = 0;
  virtual std::uint64_t weight_bytes() const = 0;  // resident
};

// Makes the products of one stage; products of equal shape share their code. Outlives what it
// makes, and is used by one thread.
class LinearFactory {
 public:
  virtual ~LinearFactory() = default;
  // Chooses how products of this shape are computed, and proves on this machine that a row's bits
  // are the same alone and in batches. Call it before the weight is in memory: the proof needs as
  // much memory itself.
  virtual void prepare(const LinearShape& shape) = 0;
  // Packs `weight` [out_features, in_features]; `bias` [out_features] or null. Both are copied.
  virtual std::unique_ptr<Linear> make(const LinearShape& shape, const void* weight,
                                       const float* bias) = 0;
  // Rows that buffers must have room for.
  virtual std::size_t padded_rows(std::size_t rows) const = 0;
  // What decides about bits, for the numeric class: "avx512_bf16 onednn-2.6.3".
  virtual std::string numeric_class() const = 0;
};

std::unique_ptr<LinearFactory> make_linear_factory(const Cpu& device);

// On a GPU, in f32, bf16 or f16. A weight stays as it is, [out_features, in_features], and a bias
// is kept in out_dtype, rounded. prepare() tries every number of rows that a call may have (a
// second or so for large shapes) and needs memory for a weight and kMostProductRows (2,048) rows of
// input and output; apply() only puts work on the factory's stream and can be captured into a
// graph. Buffers are aligned to 256 bytes.
class CudaLinearFactory : public LinearFactory {
 public:
  // As make(), which takes host memory or a GPU's; `weight` and `bias` are the GPU's, belong to the
  // caller and stay. `bias` is in out_dtype.
  virtual std::unique_ptr<Linear> make_view(const LinearShape& shape, const void* weight,
                                            const void* bias) = 0;
};

std::unique_ptr<CudaLinearFactory> make_linear_factory(const Cuda& device);

}  // namespace penstock::model
