#include "model/load_weights.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "model/error.hpp"

namespace penstock::model {
namespace {

constexpr std::size_t kConvertPiece = 1u << 16;  // elements a thread converts at a time

bool belongs(const WeightSpec& spec, const StageRange& range) {
  switch (spec.group) {
    case WeightGroup::embedding:
      return range.first;
    case WeightGroup::layer:
      return spec.layer >= range.begin && spec.layer < range.end;
    case WeightGroup::final_norm:
    case WeightGroup::head:
      return range.last;
  }
  return false;
}

std::size_t elements_of(const io::TensorInfo& tensor) {
  return static_cast<std::size_t>(tensor.size_bytes) / io::size_of(tensor.dtype);
}

void convert_with(int threads, const std::byte* from, io::DType from_type, std::byte* to,
                  io::DType to_type, std::size_t count) {
  const auto pieces = static_cast<std::ptrdiff_t>((count + kConvertPiece - 1) / kConvertPiece);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::ptrdiff_t piece = 0; piece < pieces; ++piece) {
    const std::size_t first = static_cast<std::size_t>(piece) * kConvertPiece;
    io::convert(from + first * io::size_of(from_type), from_type, to + first * io::size_of(to_type),
                to_type, std::min(kConvertPiece, count - first));
  }
}

}  // namespace

std::vector<StageTensor> stage_tensors(const io::CheckpointReader& checkpoint,
                                       const ModelConfig& config, const StageRange& range) {
  if (checkpoint.header().no_data) {
    throw ModelError(fmt::format("{}: holds shapes only, no weights", checkpoint.path()));
  }
  std::vector<StageTensor> tensors;
  for (WeightSpec& spec : weight_specs(config)) {
    if (!belongs(spec, range)) continue;
    const io::TensorInfo* tensor = checkpoint.find(spec.name);
    if (tensor == nullptr) {
      throw ModelError(fmt::format("{}: tensor {} is missing", checkpoint.path(), spec.name));
    }
    if (tensor->shape != spec.shape) {
      throw ModelError(fmt::format("{}: tensor {} has shape [{}], the config says [{}]",
                                   checkpoint.path(), spec.name, fmt::join(tensor->shape, ", "),
                                   fmt::join(spec.shape, ", ")));
    }
    tensors.push_back({std::move(spec), tensor});
  }
  return tensors;
}

WeightLoader::WeightLoader(const io::CheckpointReader& checkpoint, const ModelConfig& config,
                           const StageRange& range, const StageOptions& options,
                           const LoadProgress& progress)
    : checkpoint_(&checkpoint),
      dtype_(options.dtype),
      threads_(options.threads),
      progress_(&progress) {
  for (const auto& [spec, tensor] : stage_tensors(checkpoint, config, range)) {
    tensors_.emplace(spec.name, tensor);
    bytes_total_ += tensor->size_bytes;
    const io::DType resident = spec.is_matrix ? dtype_ : io::DType::f32;
    resident_bytes_ += elements_of(*tensor) * io::size_of(resident);
    if (tensor->dtype != resident) {
      largest_converted_bytes_ = std::max(largest_converted_bytes_, tensor->size_bytes);
    }
  }
}

void WeightLoader::read(const io::TensorInfo& tensor, io::DType dtype, std::byte* to) {
  const auto size_bytes = static_cast<std::size_t>(tensor.size_bytes);
  if (tensor.dtype == dtype) {
    checkpoint_->read(tensor, {to, size_bytes}, threads_);
  } else {
    std::vector<std::byte> stored(size_bytes);
    checkpoint_->read(tensor, stored, threads_);
    convert_with(threads_, stored.data(), tensor.dtype, to, dtype, elements_of(tensor));
  }
  bytes_done_ += tensor.size_bytes;
  if (*progress_) (*progress_)(bytes_done_, bytes_total_);
}

HostBuffer WeightLoader::matrices(std::span<const std::string> names) {
  std::size_t elements = 0;
  for (const std::string& name : names) elements += elements_of(*tensors_.at(name));
  HostBuffer fused(elements * io::size_of(dtype_), threads_, "weights");
  std::size_t at = 0;
  for (const std::string& name : names) {
    const io::TensorInfo& tensor = *tensors_.at(name);
    read(tensor, dtype_, fused.data() + at);
    at += elements_of(tensor) * io::size_of(dtype_);
  }
  return fused;
}

std::vector<float> WeightLoader::vectors(std::span<const std::string> names) {
  std::size_t elements = 0;
  for (const std::string& name : names) elements += elements_of(*tensors_.at(name));
  std::vector<float> values(elements);
  std::size_t at = 0;
  for (const std::string& name : names) {
    const io::TensorInfo& tensor = *tensors_.at(name);
    read(tensor, io::DType::f32, reinterpret_cast<std::byte*>(values.data() + at));
    at += elements_of(tensor);
  }
  return values;
}

}  // namespace penstock::model
