// clang-format off
#include "model/ops/simt_cuda.cuh"
#include "model/ops/sample_kernel.cuh"
// clang-format on

#include <string>

#include "model/error.hpp"
#include "model/ops/launch_cuda.cuh"

namespace penstock::model {
namespace {

constexpr unsigned kThreads = 32 * RowSampler::kMostWarps;

__global__ void __launch_bounds__(kThreads) sample_kernel(const Sample args) { sample_rows(args); }

}  // namespace

void sample(const Cuda& device, const Sample& args) {
  if (args.vocab == 0 || args.vocab > kMostSampleVocab) {
    throw ModelError("sampling on a GPU is made for a vocabulary of at most " +
                     std::to_string(kMostSampleVocab) + " tokens, not " +
                     std::to_string(args.vocab));
  }
  if (args.most == 0) return;
  launch(device, sample_kernel, dim3(static_cast<unsigned>(args.most)), kThreads,
         sizeof(RowSampler::Shared), args);
}

}  // namespace penstock::model
