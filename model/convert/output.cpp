#include "model/convert/output.hpp"

#include <fmt/format.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "io/error.hpp"

namespace penstock::model {
namespace {

// Small enough to stay in the cache between conversion, checksum and write.
constexpr std::size_t kSinkBytes = 1u << 20;

}  // namespace

std::uint64_t element_count(const WeightSpec& spec) {
  std::uint64_t count = 1;
  for (const std::uint64_t extent : spec.shape) count *= extent;  // bounded by validate()
  return count;
}

std::vector<io::TensorSpec> tensor_specs(const std::vector<WeightSpec>& specs, io::DType dtype) {
  std::vector<io::TensorSpec> tensors;
  tensors.reserve(specs.size());
  for (const WeightSpec& spec : specs) {
    tensors.push_back({spec.name, spec.is_matrix ? dtype : io::DType::f32, spec.shape});
  }
  return tensors;
}

std::uint64_t total_bytes(const std::vector<io::TensorSpec>& tensors) {
  std::uint64_t total = 0;
  for (const io::TensorSpec& tensor : tensors) {
    std::uint64_t bytes = io::size_of(tensor.dtype);
    for (const std::uint64_t extent : tensor.shape) bytes *= extent;
    total += bytes;
  }
  return total;
}

void require_free_space(const std::string& destination, std::uint64_t data_bytes,
                        std::size_t tensors) {
  std::filesystem::path folder = std::filesystem::path(destination).parent_path();
  if (folder.empty()) folder = ".";
  struct statvfs status {};
  if (statvfs(folder.c_str(), &status) != 0) {
    throw io::FileError(destination, fmt::format("folder {} cannot be used: {}", folder.string(),
                                                 std::strerror(errno)));
  }
  const std::uint64_t free_bytes = std::uint64_t{status.f_bavail} * status.f_frsize;
  const std::uint64_t needed =
      data_bytes + data_bytes / io::kChecksumBlockBytes * 16 + tensors * 8192;
  if (free_bytes < needed) {
    throw io::FileError(destination,
                        fmt::format("needs {:.2f} GB, but the file system of {} has {:.2f} GB free",
                                    static_cast<double>(needed) * 1e-9, folder.string(),
                                    static_cast<double>(free_bytes) * 1e-9));
  }
}

TensorSink::TensorSink(io::CheckpointWriter& writer, std::size_t tensor, io::DType dtype,
                       std::uint64_t& written, std::uint64_t total, const ConvertProgress& progress)
    : writer_(writer),
      progress_(progress),
      written_(written),
      total_(total),
      tensor_(tensor),
      dtype_(dtype),
      buffer_(kSinkBytes) {}

void TensorSink::push(std::span<const float> values) {
  const std::size_t size = io::size_of(dtype_);
  while (!values.empty()) {
    const std::size_t count = std::min(values.size(), (buffer_.size() - used_) / size);
    io::convert(values.data(), io::DType::f32, buffer_.data() + used_, dtype_, count);
    used_ += count * size;
    values = values.subspan(count);
    if (used_ == buffer_.size()) flush();
  }
}

void TensorSink::flush() {
  if (used_ == 0) return;
  writer_.append(tensor_, std::span(buffer_).first(used_));
  written_ += used_;
  used_ = 0;
  if (progress_) progress_(written_, total_);
}

}  // namespace penstock::model
