#include "io/safetensors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "io/dtype.hpp"
#include "io/error.hpp"
#include "io/file.hpp"
#include "io/safetensors_header.hpp"

namespace penstock::io {
namespace {

constexpr const char* kSingleName = "model.safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr std::size_t kReadElements = 1u << 18;  // per read of the file; at most 1 MiB

std::optional<DType> readable(std::string_view dtype) {
  if (dtype == "F32") return DType::f32;
  if (dtype == "F16") return DType::f16;
  if (dtype == "BF16") return DType::bf16;
  return std::nullopt;
}

}  // namespace

struct SafetensorsFolder::State {
  struct Place {
    std::size_t file;
    std::uint64_t offset;
  };

  void add_all(const std::string& path) {
    File file(path);
    for (SafetensorsTensor& tensor : read_safetensors_header(file)) add(std::move(tensor));
    files.push_back(std::move(file));
  }

  // The index says which tensors there are; what else a shard holds is left alone.
  void add_shards(const std::filesystem::path& folder, const std::string& index_path) {
    const auto shard_of = read_safetensors_index(index_path);
    std::map<std::string, std::set<std::string_view>> wanted;  // in order of the shards' names
    for (const auto& [tensor, shard] : shard_of) wanted[shard].insert(tensor);
    for (auto& [shard, names] : wanted) {
      const std::string path = (folder / shard).string();
      if (!std::filesystem::exists(path)) {
        throw FileError(index_path, fmt::format("names the shard {}, which is not in the folder",
                                                io::quoted(shard)));
      }
      File file(path);
      for (SafetensorsTensor& tensor : read_safetensors_header(file)) {
        if (names.erase(tensor.info.name) != 0) add(std::move(tensor));
      }
      if (!names.empty()) {
        throw FileError(path, fmt::format("does not hold tensor {}, which {} puts there",
                                          io::quoted(*names.begin()), kIndexName));
      }
      files.push_back(std::move(file));
    }
  }

  void add(SafetensorsTensor&& tensor) {
    listing.push_back(std::move(tensor.info));
    places.push_back({files.size(), tensor.offset});
  }

  std::vector<File> files;
  std::vector<SourceTensor> listing;
  std::vector<Place> places;  // of each tensor in `listing`
  std::vector<std::byte> buffer;
};

SafetensorsFolder::SafetensorsFolder(const std::string& folder)
    : state_(std::make_unique<State>()) {
  const std::filesystem::path base(folder);
  const std::string single = (base / kSingleName).string();
  const std::string index = (base / kIndexName).string();
  if (std::filesystem::exists(single)) {
    state_->add_all(single);
  } else if (std::filesystem::exists(index)) {
    state_->add_shards(base, index);
  } else {
    throw FileError(folder, fmt::format("holds neither {} nor {}", kSingleName, kIndexName));
  }
}

SafetensorsFolder::~SafetensorsFolder() = default;

const std::vector<SourceTensor>& SafetensorsFolder::tensors() const { return state_->listing; }

void SafetensorsFolder::read(std::size_t tensor, std::uint64_t first, std::span<float> out) {
  const SourceTensor& info = state_->listing.at(tensor);
  const State::Place& place = state_->places[tensor];
  const std::optional<DType> dtype = readable(info.dtype);
  if (!dtype) {
    throw FileError(info.file, fmt::format("tensor {} is of dtype {}; F32, F16 and BF16 are read",
                                           io::quoted(info.name), info.dtype));
  }
  check_read_range(info, first, out.size());
  const File& file = state_->files[place.file];
  const std::size_t width = size_of(*dtype);
  while (!out.empty()) {
    const std::span<float> part = out.first(std::min(out.size(), kReadElements));
    state_->buffer.resize(part.size() * width);
    file.read_at(place.offset + first * width, state_->buffer);
    convert(state_->buffer.data(), *dtype, part.data(), DType::f32, part.size());
    first += part.size();
    out = out.subspan(part.size());
  }
}

}  // namespace penstock::io
