#include <fmt/format.h>

#include <span>
#include <stdexcept>
#include <utility>

#include "io/checkpoint.hpp"
#include "io/checkpoint_checksum.hpp"
#include "io/checkpoint_layout.hpp"
#include "io/error.hpp"
#include "io/output_file.hpp"

namespace penstock::io {
namespace {

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

struct CheckpointWriter::State {
  struct Tensor {
    TensorSpec spec;
    std::uint64_t size_bytes = 0;
    std::uint64_t offset = 0;
    std::uint64_t first_block = 0;
    std::uint64_t written = 0;
    std::unique_ptr<Xxh3> block;  // while a block of it is open
  };

  State(std::string destination, const CheckpointHeader& checkpoint_header)
      : path(std::move(destination)), header(checkpoint_header), file(path) {}

  void append(Tensor& tensor, std::span<const std::byte> bytes);

  std::string path;
  CheckpointHeader header;
  OutputFile file;
  std::vector<Tensor> tensors;
  std::vector<BlockChecksum> checksums;
  std::uint64_t checksums_offset = 0;
  bool finished = false;
};

CheckpointWriter::CheckpointWriter(std::string path, const CheckpointHeader& header,
                                   const std::vector<TensorSpec>& tensors) {
  check_layout(path, header, tensors);
  state_ = std::make_unique<State>(std::move(path), header);
  const CheckpointLayout layout =
      create_layout(state_->file.temporary_path(), state_->path, header, tensors);
  std::uint64_t blocks = 0;
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    State::Tensor tensor;
    tensor.spec = tensors[i];
    tensor_bytes(tensors[i], tensor.size_bytes);  // check_layout has seen that it fits
    tensor.first_block = blocks;
    blocks += count_blocks(tensor.size_bytes);
    if (!header.no_data) {
      tensor.offset = layout.offsets[i];
      end = tensor.offset + tensor.size_bytes;
    }
    state_->tensors.push_back(std::move(tensor));
  }
  if (header.no_data) return;
  state_->checksums.resize(blocks);
  state_->checksums_offset = layout.checksums_offset;
  state_->file.reserve(end);
}

CheckpointWriter::~CheckpointWriter() = default;
CheckpointWriter::CheckpointWriter(CheckpointWriter&&) noexcept = default;
CheckpointWriter& CheckpointWriter::operator=(CheckpointWriter&&) noexcept = default;

void CheckpointWriter::State::append(Tensor& tensor, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (!tensor.block) tensor.block = std::make_unique<Xxh3>();
    const std::uint64_t in_block = tensor.written % kChecksumBlockBytes;
    const auto piece =
        bytes.first(std::min<std::uint64_t>(bytes.size(), kChecksumBlockBytes - in_block));
    file.write_at(tensor.offset + tensor.written, text_of(piece));
    tensor.block->add(piece);
    const std::uint64_t block = tensor.first_block + tensor.written / kChecksumBlockBytes;
    tensor.written += piece.size();
    if (tensor.written % kChecksumBlockBytes == 0 || tensor.written == tensor.size_bytes) {
      checksums[block] = tensor.block->value();
      tensor.block.reset();
    }
    bytes = bytes.subspan(piece.size());
  }
}

void CheckpointWriter::append(std::size_t tensor, std::span<const std::byte> bytes) {
  if (state_->finished || tensor >= state_->tensors.size()) {
    throw std::logic_error("CheckpointWriter::append: finished, or no such tensor");
  }
  State::Tensor& target = state_->tensors[tensor];
  if (state_->header.no_data) {
    throw FileError(state_->path, "takes no tensor data: it was declared shapes-only");
  }
  if (bytes.size() > target.size_bytes - target.written) {
    throw FileError(
        state_->path,
        fmt::format("tensor {} has {} bytes, and {} more were given than that", target.spec.name,
                    target.size_bytes, bytes.size() - (target.size_bytes - target.written)));
  }
  state_->append(target, bytes);
}

void CheckpointWriter::finish() {
  if (state_->finished) throw std::logic_error("CheckpointWriter::finish: called twice");
  std::vector<const TensorSpec*> specs;
  for (const State::Tensor& tensor : state_->tensors) {
    if (!state_->header.no_data && tensor.written != tensor.size_bytes) {
      throw FileError(state_->path,
                      fmt::format("tensor {} is not complete: {} of {} bytes were written",
                                  tensor.spec.name, tensor.written, tensor.size_bytes));
    }
    specs.push_back(&tensor.spec);
  }
  if (!state_->header.no_data) {
    state_->file.write_at(state_->checksums_offset,
                          text_of(std::as_bytes(std::span(state_->checksums))));
  }
  write_digest(state_->file.temporary_path(), state_->path,
               checkpoint_digest(state_->header, specs, state_->checksums));
  state_->file.commit();
  state_->finished = true;
}

}  // namespace penstock::io
