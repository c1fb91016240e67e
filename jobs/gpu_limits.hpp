#pragma once

#include "io/dtype.hpp"
#include "model/ops/machine_limits.hpp"

namespace penstock::jobs {

// model::measure_machine() of the thread's current GPU, `gpu` by CUDA's number. Throws
// model::ModelError in a program built without CUDA.
model::MachineLimits measure_gpu(int gpu, io::DType dtype);

}  // namespace penstock::jobs
