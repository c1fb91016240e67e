#include "model/text/tokenizer.hpp"
#include "model/text/tokenizer_state.hpp"

namespace penstock::model {

struct StreamDecoder::State {
  std::shared_ptr<const Tokenizer::State> tokenizer;
  std::string text;  // decoded and not yet taken
  std::unique_ptr<DecodeStage> chain;
};

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer) : state_(std::make_unique<State>()) {
  state_->tokenizer = tokenizer.state_;
  state_->chain = tokenizer.state_->decoder.start(state_->text);
}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(std::int32_t id) {
  const Tokenizer::State::Shown* token = state_->tokenizer->shown(id);
  if (token != nullptr && !token->special) state_->chain->push(token->text, true);
  return std::exchange(state_->text, {});
}

std::string StreamDecoder::finish() {
  state_->chain->finish();
  return std::exchange(state_->text, {});
}

}  // namespace penstock::model
