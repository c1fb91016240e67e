#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "io/error.hpp"
#include "io/safetensors.hpp"
#include "tests/fuzz/memory_file.hpp"
#include "tests/fuzz/read_tensors.hpp"

namespace {

// A model folder whose model.safetensors, or whose index and one shard, are files in memory.
class ModelFolder {
 public:
  explicit ModelFolder(bool sharded) {
    std::string path = (std::filesystem::temp_directory_path() / "penstock-fuzz-XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr) std::abort();
    path_ = path;
    if (!sharded) {
      std::filesystem::create_symlink(fuzzed.path(), path_ / "model.safetensors");
      return;
    }
    constexpr std::string_view kShard(
        "\x36\0\0\0\0\0\0\0"
        R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}} )"
        "\0\0\x80\x3f",
        8 + 54 + 4);
    shard_.assign(reinterpret_cast<const std::uint8_t*>(kShard.data()), kShard.size());
    std::filesystem::create_symlink(fuzzed.path(), path_ / "model.safetensors.index.json");
    std::filesystem::create_symlink(shard_.path(), path_ / "s");
  }
  ~ModelFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  std::string path() const { return path_.string(); }

  penstock::fuzz::MemoryFile fuzzed;

 private:
  penstock::fuzz::MemoryFile shard_;
  std::filesystem::path path_;
};

bool is_readable(std::string_view dtype) {
  return dtype == "F32" || dtype == "F16" || dtype == "BF16";
}

}  // namespace

// The first byte chooses: 'i' for an index of shards, anything else for a file of tensors.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  static ModelFolder single(false);
  static ModelFolder sharded(true);
  ModelFolder& folder = data[0] == 'i' ? sharded : single;
  folder.fuzzed.assign(data + 1, size - 1);
  std::unique_ptr<penstock::io::SafetensorsFolder> source;
  try {
    source = std::make_unique<penstock::io::SafetensorsFolder>(folder.path());
  } catch (const penstock::io::FileError&) {
    return 0;
  }
  penstock::fuzz::read_tensors(*source, is_readable);
  return 0;
}
