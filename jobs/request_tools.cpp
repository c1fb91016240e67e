#include "jobs/request_tools.hpp"

#include "io/error.hpp"
#include "model/error.hpp"
#include "model/text/tokenizer_files.hpp"

namespace penstock::jobs {

RequestTools::RequestTools(const io::CheckpointReader& checkpoint, const std::string& path,
                           const model::ModelConfig& config, const GenerationOptions& options,
                           std::uint32_t context_limit) {
  const auto files = model::from_blobs(checkpoint.header().tokenizer);
  try {
    tokenizer_.emplace(model::Tokenizer::from_json(files.tokenizer_json));
  } catch (const model::ModelError& error) {
    throw io::FileError(path, error.what());
  }
  chat_template_.emplace(files.chat_template);
  context_.tokenizer = &*tokenizer_;
  context_.chat_template = &*chat_template_;
  context_.vocab_size = config.vocab_size;
  context_.eos_token_ids = eos_token_ids(config, files.generation_config);
  context_.defaults = default_params(files.generation_config, options, config.vocab_size);
  context_.context_limit = context_limit;
  builder_.emplace(context_);
}

}  // namespace penstock::jobs
