#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <random>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "io/checkpoint.hpp"
#include "io/checkpoint_checksum.hpp"
#include "io/checkpoint_layout.hpp"
#include "io/error.hpp"

namespace penstock::io {
namespace {

std::string system_words(int error) { return std::generic_category().message(error); }

// A new file in the folder of `path`, under a name that nobody has. Removed by the destructor
// until publish() gave it its final name.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& path) : final_path_(path) {
    if (std::filesystem::is_directory(path)) {
      throw FileError(path, "is a folder; name the checkpoint's file");
    }
    std::random_device random;
    do {
      path_ = fmt::format("{}.partial-{:08x}", path, random());
      descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (descriptor_ < 0 && (errno == EEXIST || errno == EINTR));
    if (descriptor_ < 0) fail("cannot create", errno);
  }
  ~TemporaryFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!published_) ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }

  // Takes the space for `size_bytes` now, where the file system can, so that a full disk is seen
  // before hours of work and the file lies in one piece.
  void reserve(std::uint64_t size_bytes) {
    if (::fallocate(descriptor_, 0, 0, static_cast<off_t>(size_bytes)) == 0) return;
    if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) {
      fail(fmt::format("cannot take {} bytes", size_bytes), errno);
    }
  }

  void write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t written =
          ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (written < 0) {
        if (errno == EINTR) continue;
        fail("cannot write", errno);
      }
      offset += static_cast<std::uint64_t>(written);
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
  }

  void publish() {
    if (::fsync(descriptor_) != 0) fail("cannot sync", errno);
    if (::close(std::exchange(descriptor_, -1)) != 0) fail("cannot write", errno);
    if (::rename(path_.c_str(), final_path_.c_str()) != 0) fail("cannot rename to it", errno);
    published_ = true;
    // The rename is on disk only when the folder is; file systems that cannot sync a folder say
    // EINVAL.
    const auto parent = std::filesystem::path(final_path_).parent_path();
    const std::string folder = parent.empty() ? "." : parent.string();
    const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return;
    const int error = ::fsync(descriptor) == 0 ? 0 : errno;
    ::close(descriptor);
    if (error != 0 && error != EINVAL) fail("cannot sync its folder", error);
  }

 private:
  [[noreturn]] void fail(std::string_view what, int error) const {
    throw FileError(final_path_, fmt::format("{}: {}", what, system_words(error)));
  }

  std::string final_path_;
  std::string path_;
  int descriptor_ = -1;
  bool published_ = false;
};

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
  TemporaryFile file;
  std::vector<Tensor> tensors;
  std::vector<BlockChecksum> checksums;
  std::uint64_t checksums_offset = 0;
  bool finished = false;
};

CheckpointWriter::CheckpointWriter(std::string path, const CheckpointHeader& header,
                                   const std::vector<TensorSpec>& tensors) {
  check_layout(path, header, tensors);
  state_ = std::make_unique<State>(std::move(path), header);
  const CheckpointLayout layout = create_layout(state_->file.path(), state_->path, header, tensors);
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
    file.write_at(tensor.offset + tensor.written, piece);
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
    state_->file.write_at(state_->checksums_offset, std::as_bytes(std::span(state_->checksums)));
  }
  write_digest(state_->file.path(), state_->path,
               checkpoint_digest(state_->header, specs, state_->checksums));
  state_->file.publish();
  state_->finished = true;
}

}  // namespace penstock::io
