#pragma once

#include <cstddef>

#include "io/dtype.hpp"
#include "model/ops/device.hpp"

namespace penstock::model {

// out = a + b, `count` elements of f32 or bf16 (or f16 on a GPU), added in f32 and rounded once,
// the very arithmetic of rms_norm's addition.
void add(const Cpu& device, io::DType dtype, const void* a, const void* b, std::size_t count,
         void* out);
void add(const Cuda& device, io::DType dtype, const void* a, const void* b, std::size_t count,
         void* out);

}  // namespace penstock::model
