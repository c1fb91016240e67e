#include "model/text/tokenizer_files.hpp"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/error.hpp"
#include "io/file.hpp"
#include "io/gguf.hpp"
#include "io/json.hpp"
#include "model/text/gguf_tokenizer.hpp"

namespace penstock::model {
namespace {

using nlohmann::json;

constexpr const char* kTokenizerName = "tokenizer.json";
constexpr const char* kTemplateName = "chat_template";
constexpr const char* kGenerationName = "generation_config.json";

// The largest tokenizer.json in use is below 40 MB; a limit keeps a hostile file out of memory.
constexpr std::uint64_t kMaxTokenizerBytes = 128u << 20;
constexpr std::uint64_t kMaxConfigBytes = 16u << 20;
constexpr std::uint64_t kMaxGenerationBytes = 1u << 20;

// "" if the file is not there; any other trouble is read_text's error.
std::string read_optional(const std::filesystem::path& path, std::uint64_t limit_bytes) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return "";
  return io::read_text(path.string(), limit_bytes);
}

// chat_template is a string, or a list of named templates of which "default" is taken.
std::string template_of(const std::string& path, const std::string& text) {
  json config;
  try {
    config = io::parse_json(text);
  } catch (const io::JsonError& error) {
    throw io::FileError(path, error.what());
  }
  if (!config.is_object()) throw io::FileError(path, "is not a JSON object");
  const auto value = config.find("chat_template");
  if (value == config.end() || value->is_null()) return "";
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_array()) {
    throw io::FileError(path, "chat_template is neither a string nor a list of templates");
  }
  for (const json& entry : *value) {
    const bool usable = entry.is_object() && entry.contains("name") && entry.contains("template") &&
                        entry["template"].is_string();
    if (!usable) throw io::FileError(path, "chat_template has an entry without name and template");
    if (entry["name"] == "default") return entry["template"].get<std::string>();
  }
  return "";
}

// The first bytes, as far as the file has them.
std::string magic(const std::string& path) {
  const io::File file(path);
  std::string bytes(std::min<std::uint64_t>(file.size_bytes(), 8), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

}  // namespace

std::vector<io::Blob> to_blobs(const TokenizerFiles& files) {
  std::vector<io::Blob> blobs;
  const auto add = [&](const char* name, const std::string& bytes) {
    if (!bytes.empty()) blobs.push_back({name, bytes});
  };
  add(kTokenizerName, files.tokenizer_json);
  add(kTemplateName, files.chat_template);
  add(kGenerationName, files.generation_config);
  return blobs;
}

TokenizerFiles from_blobs(const std::vector<io::Blob>& blobs) {
  TokenizerFiles files;
  for (const io::Blob& blob : blobs) {
    if (blob.name == kTokenizerName) files.tokenizer_json = blob.bytes;
    if (blob.name == kTemplateName) files.chat_template = blob.bytes;
    if (blob.name == kGenerationName) files.generation_config = blob.bytes;
  }
  return files;
}

TokenizerFiles read_hf_tokenizer(const std::string& folder) {
  const std::filesystem::path root(folder);
  TokenizerFiles files;
  files.tokenizer_json = read_optional(root / "tokenizer.json", kMaxTokenizerBytes);
  if (files.tokenizer_json.empty()) {
    throw io::FileError((root / "tokenizer.json").string(),
                        "is missing or empty; only tokenizers in this format are supported");
  }
  files.chat_template = read_optional(root / "chat_template.jinja", kMaxConfigBytes);
  if (files.chat_template.empty()) {
    const auto path = root / "tokenizer_config.json";
    const std::string text = read_optional(path, kMaxConfigBytes);
    if (!text.empty()) files.chat_template = template_of(path.string(), text);
  }
  files.generation_config = read_optional(root / "generation_config.json", kMaxGenerationBytes);
  return files;
}

TokenizerFiles read_tokenizer(const std::string& model_path) {
  if (std::filesystem::is_directory(model_path)) return read_hf_tokenizer(model_path);
  if (io::is_gguf(model_path)) return gguf_tokenizer(io::GgufFile(model_path));
  const std::string first = magic(model_path);
  if (first == "\x89HDF\r\n\x1a\n") {
    TokenizerFiles files = from_blobs(io::CheckpointReader(model_path).header().tokenizer);
    if (files.tokenizer_json.empty()) throw io::FileError(model_path, "holds no tokenizer");
    return files;
  }
  if (first.starts_with('{')) {
    TokenizerFiles files;
    files.tokenizer_json = io::read_text(model_path, kMaxTokenizerBytes);
    return files;
  }
  throw io::FileError(model_path,
                      "is not a model: expected a checkpoint, a Hugging Face folder, a GGUF file "
                      "or a tokenizer.json");
}

}  // namespace penstock::model
