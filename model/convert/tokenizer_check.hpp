#pragma once

#include <cstdint>
#include <string>

#include "model/text/tokenizer_files.hpp"

namespace penstock::model {

// Throws ModelError, which names `file`, unless a run could use this tokenizer with a model of this
// vocabulary: it is found out before a checkpoint is written, not hours later.
void require_usable(const std::string& file, const TokenizerFiles& tokenizer,
                    std::int64_t vocab_size);

}  // namespace penstock::model
