#pragma once

#include <string>
#include <vector>

namespace penstock::comm::device {

// What one rank sees, in the order in which CUDA numbers its GPUs.
struct VisibleGpus {
  std::string host;
  std::vector<std::string> uuids;
};

struct GpuChoice {
  int gpu = -1;     // position in the rank's own list; -1: it sees none
  int sharers = 0;  // ranks that were given this GPU, this one included
};

// Which GPU each rank takes. On a host where all ranks see the same GPUs, the n-th rank takes the
// n-th one. Where they see different ones (CUDA_VISIBLE_DEVICES, Slurm's --gpus-per-task and
// --gpu-bind), each gets one of its own as far as possible: GPUs are told apart by UUID, since each
// rank numbers from 0 what it sees. Ranks beyond the GPUs share those that have the fewest. Pure:
// all ranks compute the same from the same list.
std::vector<GpuChoice> choose_gpus(const std::vector<VisibleGpus>& ranks);

}  // namespace penstock::comm::device
