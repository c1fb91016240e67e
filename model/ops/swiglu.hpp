#pragma once

#include <cstddef>

#include "io/dtype.hpp"
#include "model/ops/device.hpp"

namespace penstock::model {

// out = silu(gate) * up with silu(v) = v / (1 + exp(-v)), in f32, rounded once.
// `gate_up` is [rows, 2 * width], gate before up in each row; `out` is [rows, width].
// Source: transformers, LlamaMLP.
void swiglu(const Cpu& device, io::DType dtype, std::size_t rows, std::size_t width,
            const void* gate_up, void* out);
void swiglu(const Cuda& device, io::DType dtype, std::size_t rows, std::size_t width,
            const void* gate_up, void* out);

}  // namespace penstock::model
