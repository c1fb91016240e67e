#pragma once

#include "io/dtype.hpp"
#include "model/ops/device.hpp"

namespace penstock::model {

// What a device can do.
struct MachineLimits {
  double flops_per_second = 0;  // matrix products in the compute dtype
  double bytes_per_second = 0;  // reading memory
};

// Measures, in about half a second each: a matrix product of 256 x 1024 x 1024 by oneDNN whose
// operands stay in cache (in f32 where oneDNN has no bf16, as Linear), and reading a buffer of 512
// MB on all threads. Medians of many rounds.
MachineLimits measure_machine(const Cpu& device, io::DType dtype);

// A product of 8192 x 8192 x 8192 by cuBLASLt and a copy of 1 GiB within the GPU's memory, bytes
// read and written counted, less where that is not free. Waits for the GPU.
MachineLimits measure_machine(const Cuda& device, io::DType dtype);

}  // namespace penstock::model
