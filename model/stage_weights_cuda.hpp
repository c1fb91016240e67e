#pragma once

#include "comm/device/buffer.hpp"
#include "io/checkpoint.hpp"
#include "model/gpu_network.hpp"
#include "model/ops/linear.hpp"
#include "model/stage.hpp"
#include "model/stage_weights.hpp"
#include "model/weight_places.hpp"

namespace penstock::model {

struct CudaStageWeights {
  comm::device::DeviceBuffer memory;  // all of them
  GpuWeights views;
};

// Reads the weights to their places on `options.threads` threads, each through two pinned buffers
// and a stream of its own. Products were prepared.
CudaStageWeights load_cuda_weights(const io::CheckpointReader& checkpoint,
                                   const WeightPlaces& places, CudaLinearFactory& factory,
                                   const StageShapes& shapes, const StageRange& range,
                                   const StageOptions& options, const LoadProgress& progress);

}  // namespace penstock::model
