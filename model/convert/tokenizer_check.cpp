#include "model/convert/tokenizer_check.hpp"

#include <fmt/format.h>

#include "model/error.hpp"
#include "model/text/tokenizer.hpp"

namespace penstock::model {

void require_usable(const std::string& file, const TokenizerFiles& tokenizer,
                    std::int64_t vocab_size) {
  std::int64_t size = 0;
  try {
    size = static_cast<std::int64_t>(Tokenizer::from_json(tokenizer.tokenizer_json).vocab_size());
  } catch (const ModelError& error) {
    throw ModelError(fmt::format("{}: {}", file, error.what()));
  }
  if (size > vocab_size) {
    throw ModelError(fmt::format("{}: the tokenizer has {} tokens, the model's vocabulary only {}",
                                 file, size, vocab_size));
  }
}

}  // namespace penstock::model
