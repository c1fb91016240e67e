#pragma once

#include <cstddef>
#include <vector>

#include "model/ops/host_buffer.hpp"
#include "model/ops/product_cpu.hpp"

namespace penstock::model {

// Numbers and a weight for which a sum in another order gives other bits: each row's sum is the
// small difference of two large sums of full-length f32 or bf16 numbers. Each product shape is
// tried with them on the machine it is to run on.
class ProductProof {
 public:
  // `reversed`: the same numbers, in the opposite order along the sums.
  ProductProof(const Cpu& device, const LinearShape& shape, bool reversed = false);

  // Some rows' results, each row computed alone.
  std::vector<std::byte> rows_alone(Product& product) const;
  // Whether the product gives the very bytes of `expected` when the rows come in batches(), by code
  // whose kernels for all numbers of rows sum alike.
  bool matches(Product& product, const std::vector<std::byte>& expected) const;
  // Every number of rows that a call of a product of this shape may have.
  const std::vector<std::size_t>& batches() const { return batches_; }

 private:
  const std::byte* row(std::size_t index) const;

  LinearShape shape_;
  std::vector<std::size_t> batches_;
  HostBuffer weight_;
  HostBuffer bias_;
  HostBuffer in_;
  HostBuffer out_;
};

}  // namespace penstock::model
