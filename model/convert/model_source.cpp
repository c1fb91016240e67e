#include "model/convert/model_source.hpp"

#include <fmt/format.h>

#include <filesystem>

#include "io/error.hpp"
#include "io/file.hpp"
#include "io/gguf.hpp"
#include "io/safetensors.hpp"
#include "model/convert/gguf_config.hpp"
#include "model/convert/tokenizer_check.hpp"
#include "model/error.hpp"
#include "model/text/gguf_tokenizer.hpp"

namespace penstock::model {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxConfigBytes = 1u << 20;

// The parsers of JSON and of metadata know no file name.
template <typename F>
auto naming(const std::string& file, F&& parse) {
  try {
    return parse();
  } catch (const ModelError& error) {
    throw ModelError(fmt::format("{}: {}", file, error.what()));
  }
}

ModelSource open_folder(const fs::path& folder) {
  ModelSource source;
  source.format = ModelSource::Format::hugging_face;
  const std::string config_path = (folder / "config.json").string();
  source.config_text = io::read_text(config_path, kMaxConfigBytes);
  source.config = naming(config_path, [&] { return parse_hf_config(source.config_text); });
  source.tokenizer = read_hf_tokenizer(folder.string());
  require_usable((folder / "tokenizer.json").string(), source.tokenizer, source.config.vocab_size);
  if (!source.tokenizer.generation_config.empty()) {
    naming((folder / "generation_config.json").string(),
           [&] { add_generation_defaults(source.tokenizer.generation_config, source.config); });
  }
  source.tensors = std::make_unique<io::SafetensorsFolder>(folder.string());
  return source;
}

ModelSource open_gguf(const std::string& path) {
  ModelSource source;
  source.format = ModelSource::Format::gguf;
  auto file = std::make_unique<io::GgufFile>(path);
  source.config = naming(path, [&] { return gguf_config(*file); });
  source.config_text = gguf_config_text(*file);
  source.tokenizer = gguf_tokenizer(*file);
  require_usable(path, source.tokenizer, source.config.vocab_size);
  source.tensors = std::move(file);
  return source;
}

}  // namespace

ModelSource open_model(const std::string& path) {
  if (!fs::exists(path)) throw io::FileError(path, "no such file or folder");
  if (fs::is_directory(path)) return open_folder(path);
  if (io::is_gguf(path)) return open_gguf(path);
  throw io::FileError(path, "is neither a Hugging Face folder nor a GGUF file");
}

}  // namespace penstock::model
