#pragma once

#include <string>
#include <vector>

#include "io/checkpoint.hpp"

namespace penstock::model {

// What a checkpoint's /tokenizer holds, as text. Empty: not there.
struct TokenizerFiles {
  std::string tokenizer_json;
  std::string chat_template;
  std::string generation_config;  // generation_config.json
};

std::vector<io::Blob> to_blobs(const TokenizerFiles& files);
TokenizerFiles from_blobs(const std::vector<io::Blob>& blobs);

// From a Hugging Face folder: tokenizer.json; the chat template from chat_template.jinja or
// tokenizer_config.json (of several templates the one named "default"); generation_config.json.
// Only tokenizer.json must be there. Throws io::FileError.
TokenizerFiles read_hf_tokenizer(const std::string& folder);

// MODEL of the command line: a checkpoint, a Hugging Face folder or a GGUF file, also one that
// holds a vocabulary only. A bare tokenizer.json is accepted too. Throws io::FileError and
// ModelError.
TokenizerFiles read_tokenizer(const std::string& model_path);

}  // namespace penstock::model
