#pragma once

#include "io/gguf.hpp"
#include "model/text/tokenizer_files.hpp"

namespace penstock::model {

// A GGUF's tokenizer metadata (tokenizer.ggml.*) as the tokenizer.json it was once made from:
// vocabulary, merges, pre-tokenizer by name (tokenizer.ggml.pre), added and special tokens, BOS
// post-processor; the chat template as it stands. Throws ModelError for a kind or a
// pre-tokenizer that is not known, naming those that are.
TokenizerFiles gguf_tokenizer(const io::GgufFile& file);

}  // namespace penstock::model
