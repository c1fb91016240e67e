#include "model/convert/source_rows.hpp"

#include <algorithm>

namespace penstock::model {
namespace {

constexpr std::uint64_t kAlignment = 256;  // of TensorSource::read

}  // namespace

SourceRows::SourceRows(io::TensorSource& source, std::size_t tensor)
    : source_(source), tensor_(tensor) {
  const io::SourceTensor& info = source.tensors()[tensor];
  total_ = info.elements;
  if (info.shape.size() > 1) columns_ = info.shape.back();
}

std::span<const float> SourceRows::elements(std::uint64_t first, std::uint64_t count) {
  if (first < begin_ || first + count > begin_ + buffer_.size()) {
    begin_ = first / kAlignment * kAlignment;
    const std::uint64_t end =
        std::min(total_, (first + count + kAlignment - 1) / kAlignment * kAlignment);
    buffer_.resize(end - begin_);
    source_.read(tensor_, begin_, buffer_);
  }
  return std::span<const float>(buffer_).subspan(first - begin_, count);
}

void SourceRows::copy(TensorSink& sink) {
  for (std::uint64_t first = 0; first < total_; first += kBlockElements) {
    sink.push(elements(first, std::min(kBlockElements, total_ - first)));
  }
  sink.flush();
}

void SourceRows::copy_deinterleaved(std::int64_t heads, TensorSink& sink) {
  const std::uint64_t head_elements = total_ / static_cast<std::uint64_t>(heads);
  const std::uint64_t head_rows = head_elements / columns_;
  for (std::uint64_t head = 0; head < total_; head += head_elements) {
    // A whole head at once where it fits; its rows are then served from the buffer.
    if (head_elements <= kBlockElements) elements(head, head_elements);
    for (std::uint64_t half = 0; half < 2; ++half) {
      for (std::uint64_t i = 0; i < head_rows / 2; ++i) {
        sink.push(elements(head + (2 * i + half) * columns_, columns_));
      }
    }
  }
  sink.flush();
}

}  // namespace penstock::model
