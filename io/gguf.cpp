#include "io/gguf.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "io/error.hpp"
#include "io/file.hpp"
#include "io/gguf_header.hpp"
#include "io/gguf_types.hpp"

namespace penstock::io {
namespace {

constexpr std::uint64_t kReadElements = 1u << 18;  // per read of the file; at most 1 MiB

}  // namespace

struct GgufFile::State {
  explicit State(std::string path) : file(std::move(path)), header(read_gguf_header(file)) {
    for (const GgufTensor& tensor : header.tensors) listing.push_back(tensor.info);
  }

  const GgufValue& require(std::string_view key) const {
    const auto found = header.metadata.find(key);
    if (found != header.metadata.end()) return found->second;
    throw FileError(file.path(), fmt::format("metadata key {} is missing", io::quoted(key)));
  }

  [[noreturn]] void wrong_type(std::string_view key, std::string_view wanted) const {
    throw FileError(file.path(), fmt::format("metadata key {} is not {}", io::quoted(key), wanted));
  }

  File file;
  GgufHeader header;
  std::vector<SourceTensor> listing;
  std::vector<std::byte> buffer;
};

GgufFile::GgufFile(std::string path) : state_(std::make_unique<State>(std::move(path))) {
  const auto* parts = find("split.count");
  if (parts == nullptr) return;
  if (const std::int64_t count = integer("split.count"); count > 1) {
    throw FileError(state_->file.path(),
                    fmt::format("is one of {} parts of a split GGUF; join them first "
                                "(llama-gguf-split --merge)",
                                count));
  }
}

GgufFile::~GgufFile() = default;

const std::string& GgufFile::path() const { return state_->file.path(); }

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto found = state_->header.metadata.find(key);
  return found == state_->header.metadata.end() ? nullptr : &found->second;
}

std::int64_t GgufFile::integer(std::string_view key) const {
  const GgufValue& value = state_->require(key);
  if (const auto* number = std::get_if<std::int64_t>(&value)) return *number;
  const auto* number = std::get_if<std::uint64_t>(&value);
  if (number == nullptr) state_->wrong_type(key, "an integer");
  if (*number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    state_->wrong_type(key, fmt::format("a 64-bit signed integer: {}", *number));
  }
  return static_cast<std::int64_t>(*number);
}

double GgufFile::real(std::string_view key) const {
  const GgufValue& value = state_->require(key);
  if (const auto* number = std::get_if<double>(&value)) return *number;
  if (const auto* number = std::get_if<std::int64_t>(&value)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<std::uint64_t>(&value)) return static_cast<double>(*number);
  state_->wrong_type(key, "a number");
}

const std::string& GgufFile::text(std::string_view key) const {
  const auto* value = std::get_if<std::string>(&state_->require(key));
  if (value == nullptr) state_->wrong_type(key, "a string");
  return *value;
}

const std::vector<std::string>& GgufFile::texts(std::string_view key) const {
  const auto* value = std::get_if<std::vector<std::string>>(&state_->require(key));
  if (value == nullptr) state_->wrong_type(key, "an array of strings");
  return *value;
}

const std::vector<SourceTensor>& GgufFile::tensors() const { return state_->listing; }

void GgufFile::read(std::size_t tensor, std::uint64_t first, std::span<float> out) {
  const GgufTensor& source = state_->header.tensors.at(tensor);
  if (!is_readable(source.type)) {
    throw FileError(path(), fmt::format("tensor {} is of type {}; F32, F16, BF16, Q8_0, Q4_0 and "
                                        "Q4_1 are read",
                                        io::quoted(source.info.name), source.info.dtype));
  }
  check_read_range(source.info, first, out.size());
  while (!out.empty()) {
    const std::span<float> part = out.first(std::min<std::size_t>(out.size(), kReadElements));
    const std::uint64_t bytes = part.size() / source.block_elements * source.block_bytes;
    state_->buffer.resize(bytes);
    state_->file.read_at(source.offset + first / source.block_elements * source.block_bytes,
                         state_->buffer);
    dequantize(source.type, state_->buffer, part);
    first += part.size();
    out = out.subspan(part.size());
  }
}

bool is_gguf(const std::string& path) {
  try {
    char magic[4];
    File(path).read_at(0, std::as_writable_bytes(std::span(magic)));
    return std::string_view(magic, sizeof magic) == "GGUF";
  } catch (const FileError&) {
    return false;
  }
}

}  // namespace penstock::io
