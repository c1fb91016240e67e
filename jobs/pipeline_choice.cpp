#include "jobs/pipeline_choice.hpp"

#include <algorithm>

namespace penstock::jobs {

void check_choice(const PipelineChoice& choice) {
  if (choice.device != DeviceKind::virtual_device) {
    if (choice.machine) throw UsageError("--virtual describes the devices of --device virtual");
    if (choice.realtime) throw UsageError("--virtual-realtime needs --device virtual");
    return;
  }
  if (!choice.machine) {
    throw UsageError("--device virtual needs --virtual SPEC, for example --virtual h100-sxm");
  }
  if (!choice.stage_dir.empty()) {
    throw UsageError("--stage-dir copies weights, and --device virtual reads none: leave it out");
  }
}

std::uint32_t context_limit(const model::ModelConfig& config, const PipelineChoice& choice) {
  const auto limit = static_cast<std::uint32_t>(config.max_position);
  return choice.max_context == 0 ? limit : std::min(limit, choice.max_context);
}

io::DType compute_dtype(const PipelineChoice& choice, DeviceKind device, io::DType stored) {
  const bool gpu = device == DeviceKind::cuda || device == DeviceKind::virtual_device;
  const bool kept = stored == io::DType::bf16 || (gpu && stored == io::DType::f16);
  const io::DType dtype = choice.dtype.value_or(kept ? stored : io::DType::f32);
  if (dtype == io::DType::f16 && !gpu) {
    throw UsageError("--dtype f16 needs a GPU; use bf16 or f32");
  }
  return dtype;
}

io::DType compute_kv_dtype(const PipelineChoice& choice, DeviceKind device, io::DType dtype) {
  const io::DType kv_dtype = choice.kv_dtype.value_or(dtype);
  if (kv_dtype == io::DType::f16 && device == DeviceKind::cpu) {
    throw UsageError("--kv-dtype f16 needs a GPU; use bf16 or f32");
  }
  return kv_dtype;
}

}  // namespace penstock::jobs
