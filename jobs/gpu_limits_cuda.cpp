#include "comm/device/stream.hpp"
#include "jobs/gpu_limits.hpp"

namespace penstock::jobs {

model::MachineLimits measure_gpu(int gpu, io::DType dtype) {
  const auto stream = comm::device::Stream::create();
  return model::measure_machine(model::Cuda{stream.get(), gpu}, dtype);
}

}  // namespace penstock::jobs
