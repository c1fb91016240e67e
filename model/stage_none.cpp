#include "model/error.hpp"
#include "model/stage.hpp"

namespace penstock::model {
namespace {

[[noreturn]] void refuse() {
  throw ModelError(
      "this penstock was built without CUDA: build it with -D PENSTOCK_CUDA=ON (preset "
      "cuda-release), or compute on the CPU");
}

}  // namespace

std::unique_ptr<Stage> make_cuda_stage(const io::CheckpointReader& /*checkpoint*/,
                                       const ModelConfig& /*config*/, const StageRange& /*range*/,
                                       const StageOptions& /*options*/,
                                       const LoadProgress& /*progress*/) {
  refuse();
}

std::unique_ptr<Stage> make_idle_cuda_stage(std::size_t /*row_bytes*/) { refuse(); }

}  // namespace penstock::model
