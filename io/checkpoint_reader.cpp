#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>

#include "io/checkpoint.hpp"
#include "io/checkpoint_structure.hpp"
#include "io/error.hpp"
#include "io/for_each_parallel.hpp"

namespace penstock::io {
namespace {

// Read and hashed piece by piece, so that the hash finds the bytes in the core's own cache.
constexpr std::uint64_t kPieceBytes = 512u << 10;
constexpr int kVerifyThreads = 4;

}  // namespace

struct CheckpointReader::State {
  std::string path;
  CheckpointStructure structure;
  std::map<std::string, std::size_t, std::less<>> by_name;
  std::atomic<std::uint64_t> bytes_read{0};

  std::size_t index_of(const TensorInfo& tensor) const;
  std::uint64_t block_bytes(const TensorInfo& tensor, std::uint64_t block) const {
    return std::min(kChecksumBlockBytes, tensor.size_bytes - block * kChecksumBlockBytes);
  }
  // Reads one block into `out` (its size); false if its checksum is wrong.
  bool read_block(std::size_t index, std::uint64_t block, std::span<std::byte> out);
  std::string describe_mismatch(std::size_t index, std::uint64_t block) const;
};

std::size_t CheckpointReader::State::index_of(const TensorInfo& tensor) const {
  const auto found = by_name.find(tensor.name);
  if (found == by_name.end()) {
    throw FileError(path, fmt::format("has no tensor {}", quoted(tensor.name)));
  }
  if (structure.header.no_data) {
    throw FileError(path, fmt::format("holds shapes only (no_data = 1), so tensor {} cannot be "
                                      "read; only inspect, plan and the virtual device take such "
                                      "a file",
                                      tensor.name));
  }
  return found->second;
}

bool CheckpointReader::State::read_block(std::size_t index, std::uint64_t block,
                                         std::span<std::byte> out) {
  const TensorInfo& tensor = structure.tensors[index];
  const File& file = structure.files.at(tensor.file);
  const std::uint64_t offset = tensor.offset + block * kChecksumBlockBytes;
  Xxh3 hash;
  for (std::uint64_t done = 0; done < out.size(); done += kPieceBytes) {
    const auto piece = out.subspan(done, std::min(kPieceBytes, out.size() - done));
    file.read_at(offset + done, piece);
    bytes_read += piece.size();
    hash.add(piece);
  }
  return hash.value() == structure.checksums[structure.first_blocks[index] + block];
}

std::string CheckpointReader::State::describe_mismatch(std::size_t index,
                                                       std::uint64_t block) const {
  const TensorInfo& tensor = structure.tensors[index];
  const std::uint64_t first = block * kChecksumBlockBytes;
  return fmt::format(
      "tensor {}, block {} of {} (bytes {} to {} of the tensor, from offset {} of the file): "
      "wrong checksum, the bytes were damaged or changed",
      tensor.name, block, count_blocks(tensor.size_bytes), first,
      first + block_bytes(tensor, block), tensor.offset + first);
}

CheckpointReader::CheckpointReader(std::string path, Contents contents)
    : state_(std::make_unique<State>()) {
  state_->structure = read_structure(path, contents);
  state_->path = std::move(path);
  for (std::size_t i = 0; i < state_->structure.tensors.size(); ++i) {
    state_->by_name.emplace(state_->structure.tensors[i].name, i);
  }
}

CheckpointReader::~CheckpointReader() = default;
CheckpointReader::CheckpointReader(CheckpointReader&&) noexcept = default;
CheckpointReader& CheckpointReader::operator=(CheckpointReader&&) noexcept = default;

const std::string& CheckpointReader::path() const { return state_->path; }
const CheckpointHeader& CheckpointReader::header() const { return state_->structure.header; }
const std::vector<TensorInfo>& CheckpointReader::tensors() const {
  return state_->structure.tensors;
}
std::uint64_t CheckpointReader::size_bytes() const { return state_->structure.size_bytes; }
std::string CheckpointReader::digest() const { return state_->structure.digest; }
std::uint64_t CheckpointReader::bytes_read() const { return state_->bytes_read; }

const TensorInfo* CheckpointReader::find(std::string_view name) const {
  const auto found = state_->by_name.find(name);
  return found == state_->by_name.end() ? nullptr : &state_->structure.tensors[found->second];
}

void CheckpointReader::read(const TensorInfo& tensor, std::span<std::byte> out, int threads) const {
  const TensorInfo& stored = state_->structure.tensors[state_->index_of(tensor)];
  if (out.size() != stored.size_bytes) {
    throw std::logic_error(fmt::format("CheckpointReader::read: {} bytes for tensor {} of {}",
                                       out.size(), stored.name, stored.size_bytes));
  }
  read_range(tensor, 0, out, threads);
}

void CheckpointReader::read_range(const TensorInfo& tensor, std::uint64_t first_byte,
                                  std::span<std::byte> out, int threads) const {
  const std::size_t index = state_->index_of(tensor);
  const TensorInfo& stored = state_->structure.tensors[index];
  const bool inside =
      first_byte <= stored.size_bytes && out.size() <= stored.size_bytes - first_byte;
  const bool to_the_end = inside && out.size() == stored.size_bytes - first_byte;
  if (!inside || first_byte % kChecksumBlockBytes != 0 ||
      (out.size() % kChecksumBlockBytes != 0 && !to_the_end)) {
    throw std::logic_error(
        fmt::format("CheckpointReader::read_range: {} bytes from {} on are no whole blocks of "
                    "tensor {} of {}",
                    out.size(), first_byte, stored.name, stored.size_bytes));
  }
  const std::uint64_t first_block = first_byte / kChecksumBlockBytes;
  for_each_parallel(count_blocks(out.size()), threads, [&](std::uint64_t i) {
    const std::uint64_t block = first_block + i;
    if (!state_->read_block(
            index, block,
            out.subspan(i * kChecksumBlockBytes, state_->block_bytes(stored, block)))) {
      throw FileError(stored.file, state_->describe_mismatch(index, block));
    }
  });
}

std::vector<std::string> CheckpointReader::verify(
    const std::function<void(std::uint64_t bytes_done)>& progress) const {
  std::map<std::uint64_t, std::string> broken;  // by block, so that the order is the file's
  const CheckpointStructure& structure = state_->structure;
  if (structure.header.no_data) {
    throw FileError(state_->path, "holds shapes only (no_data = 1): there is nothing to verify");
  }
  std::mutex mutex;
  std::uint64_t done = 0;
  const int threads =
      std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, kVerifyThreads);
  for_each_parallel(structure.checksums.size(), threads, [&](std::uint64_t block_of_all) {
    const auto after = std::ranges::upper_bound(structure.first_blocks, block_of_all);
    const auto index = static_cast<std::size_t>(after - structure.first_blocks.begin()) - 1;
    const std::uint64_t block = block_of_all - structure.first_blocks[index];
    std::vector<std::byte> buffer(state_->block_bytes(structure.tensors[index], block));
    const bool good = state_->read_block(index, block, buffer);
    const std::lock_guard lock(mutex);
    if (!good) broken.emplace(block_of_all, state_->describe_mismatch(index, block));
    done += buffer.size();
    if (progress) progress(done);
  });
  std::vector<std::string> lines;
  for (auto& [block, line] : broken) lines.push_back(std::move(line));
  return lines;
}

}  // namespace penstock::io
