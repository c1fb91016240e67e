#include "model/step_graph_cuda.hpp"

#include <cuda_runtime_api.h>

#include <memory>
#include <type_traits>

#include "comm/device/error.hpp"

namespace penstock::model {
namespace {

struct DestroyGraph {
  void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
};
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, DestroyGraph>;

}  // namespace

StepGraph StepGraph::capture(const comm::device::Stream& stream,
                             const std::function<void()>& body) {
  const auto handle = static_cast<cudaStream_t>(stream.get());
  // What other threads of the process do meanwhile, for stages or links of their own, is no concern
  // of this capture.
  PENSTOCK_CUDA_CALL(cudaStreamBeginCapture(handle, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t captured = nullptr;
  try {
    body();
  } catch (...) {
    if (cudaStreamEndCapture(handle, &captured) != cudaSuccess) cudaGetLastError();
    const Graph graph(captured);
    throw;
  }
  const cudaError_t ended = cudaStreamEndCapture(handle, &captured);
  const Graph graph(captured);
  comm::device::check_cuda(ended, "cudaStreamEndCapture", __FILE__, __LINE__);
  cudaGraphExec_t executable = nullptr;
  PENSTOCK_CUDA_CALL(cudaGraphInstantiate(&executable, graph.get(), 0));
  StepGraph result(executable);
  PENSTOCK_CUDA_CALL(cudaGraphUpload(executable, handle));
  return result;
}

void StepGraph::launch(const comm::device::Stream& stream) const {
  PENSTOCK_CUDA_CALL(cudaGraphLaunch(static_cast<cudaGraphExec_t>(handle_),
                                     static_cast<cudaStream_t>(stream.get())));
}

void StepGraph::reset() noexcept {
  if (handle_ != nullptr) cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(handle_));
  handle_ = nullptr;
}

}  // namespace penstock::model
