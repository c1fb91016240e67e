#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <vector>

#include "io/records.hpp"
#include "jobs/answer_lengths.hpp"
#include "jobs/generation_params.hpp"
#include "model/config.hpp"
#include "model/text/chat_template.hpp"
#include "model/text/tokenizer.hpp"

namespace penstock::jobs {

// A record that is ready to be computed.
struct Request {
  std::uint64_t index = 0;  // in the dataset
  std::uint32_t line = 0;   // of the input, 1-based
  nlohmann::json id;        // as the input gave it; null if it gave none
  std::vector<std::int32_t> prompt;
  // max_tokens is clipped to what the context leaves; stop_token_ids holds every id that ends the
  // answer, EOS included unless ignore_eos, sorted.
  GenerationParams params;
  RecordKind kind = 0;  // set by the dataset, which learns by it
};

// What requests are made with. The tokenizer and the template must outlive the builder.
struct RequestContext {
  const model::Tokenizer* tokenizer = nullptr;
  const model::ChatTemplate* chat_template = nullptr;
  std::int64_t vocab_size = 0;              // of the model
  std::vector<std::int32_t> eos_token_ids;  // eos_token_ids()
  std::uint32_t context_limit = 0;          // tokens of prompt and answer together
  GenerationParams defaults;
};

// Turns records into requests. const and thread-safe.
class RequestBuilder {
 public:
  explicit RequestBuilder(RequestContext context);

  // Prompts are encoded with special tokens, rendered conversations without (the template writes
  // them), tokens are taken as they are. Throws io::RecordError, with the record's id: no tokens, a
  // token outside the vocabulary, a prompt that leaves no room in the context, a role or template
  // that is not known, an unknown or bad parameter.
  Request build(const io::Record& record, std::uint64_t index, std::uint32_t line) const;

  const RequestContext& context() const { return context_; }

 private:
  RequestContext context_;
};

}  // namespace penstock::jobs
