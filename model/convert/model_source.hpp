#pragma once

#include <memory>
#include <string>

#include "io/tensor_source.hpp"
#include "model/config.hpp"
#include "model/text/tokenizer_files.hpp"

namespace penstock::model {

// A foreign model, opened: its tensors, and everything else a checkpoint holds.
struct ModelSource {
  enum class Format { hugging_face, gguf } format = Format::hugging_face;
  std::unique_ptr<io::TensorSource> tensors;
  ModelConfig config;
  std::string config_text;  // JSON, as the source gave it; of a GGUF its metadata
  TokenizerFiles tokenizer;
};

// A Hugging Face folder or a GGUF file. A model whose tokenizer no run can use is refused: a
// checkpoint is all that a job needs. Throws io::FileError, and ModelError that names the file.
ModelSource open_model(const std::string& path);

}  // namespace penstock::model
