#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "io/checkpoint.hpp"
#include "jobs/generation_params.hpp"
#include "jobs/request.hpp"
#include "model/config.hpp"
#include "model/text/chat_template.hpp"
#include "model/text/tokenizer.hpp"

namespace penstock::jobs {

// A checkpoint's own tokenizer and template, and the builder of requests that uses them.
class RequestTools {
 public:
  // `context_limit`: tokens of prompt and answer together. Throws io::FileError and ParameterError.
  RequestTools(const io::CheckpointReader& checkpoint, const std::string& path,
               const model::ModelConfig& config, const GenerationOptions& options,
               std::uint32_t context_limit);
  RequestTools(const RequestTools&) = delete;
  RequestTools& operator=(const RequestTools&) = delete;

  const model::Tokenizer& tokenizer() const { return *tokenizer_; }
  const RequestContext& context() const { return context_; }
  const RequestBuilder& builder() const { return *builder_; }

 private:
  std::optional<model::Tokenizer> tokenizer_;
  std::optional<model::ChatTemplate> chat_template_;
  RequestContext context_;
  std::optional<RequestBuilder> builder_;
};

}  // namespace penstock::jobs
