#include "jobs/gpu_limits.hpp"
#include "model/error.hpp"

namespace penstock::jobs {

model::MachineLimits measure_gpu(int, io::DType) {
  throw model::ModelError("this program was built without CUDA");
}

}  // namespace penstock::jobs
