#include "jobs/request.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "model/error.hpp"

namespace penstock::jobs {
namespace {

std::vector<std::int32_t> encode(const io::RecordInput& input, const RequestContext& context) {
  if (const auto* tokens = std::get_if<std::vector<std::int32_t>>(&input)) return *tokens;
  if (const auto* prompt = std::get_if<std::string>(&input)) {
    return context.tokenizer->encode(*prompt, true);
  }
  std::vector<model::ChatMessage> messages;
  for (const io::Message& message : std::get<std::vector<io::Message>>(input)) {
    messages.push_back({message.role, message.content});
  }
  return context.tokenizer->encode(context.chat_template->render(messages), false);
}

void check_prompt(const std::vector<std::int32_t>& prompt, const RequestContext& context) {
  if (prompt.empty()) throw io::RecordError("the prompt has no tokens");
  if (prompt.size() >= context.context_limit) {
    throw io::RecordError(
        prompt.size() == context.context_limit
            ? fmt::format("prompt has {} tokens, the context holds {}: no room for an answer",
                          prompt.size(), context.context_limit)
            : fmt::format("prompt has {} tokens, the context holds {}", prompt.size(),
                          context.context_limit));
  }
  for (std::size_t i = 0; i < prompt.size(); ++i) {
    if (prompt[i] < 0 || prompt[i] >= context.vocab_size) {
      throw io::RecordError(fmt::format("token {} of the prompt is {}, the model knows 0 to {}", i,
                                        prompt[i], context.vocab_size - 1));
    }
  }
}

}  // namespace

RequestBuilder::RequestBuilder(RequestContext context) : context_(std::move(context)) {}

Request RequestBuilder::build(const io::Record& record, std::uint64_t index,
                              std::uint32_t line) const {
  Request request;
  request.index = index;
  request.line = line;
  request.id = record.id;
  request.params = context_.defaults;
  try {
    // First what costs nothing.
    apply_overrides(record.overrides, context_.vocab_size, request.params);
    request.prompt = encode(record.input, context_);
    check_prompt(request.prompt, context_);
  } catch (const ParameterError& error) {
    throw io::RecordError(error.what(), record.id);
  } catch (const model::ModelError& error) {
    throw io::RecordError(error.what(), record.id);
  } catch (const io::RecordError& error) {
    throw io::RecordError(error.what(), record.id);
  }

  GenerationParams& params = request.params;
  const auto room = static_cast<std::uint32_t>(context_.context_limit - request.prompt.size());
  params.max_tokens = std::min(params.max_tokens, room);
  auto& stop_ids = params.stop_token_ids;
  if (!params.ignore_eos) {
    stop_ids.insert(stop_ids.end(), context_.eos_token_ids.begin(), context_.eos_token_ids.end());
  }
  std::sort(stop_ids.begin(), stop_ids.end());
  stop_ids.erase(std::unique(stop_ids.begin(), stop_ids.end()), stop_ids.end());
  return request;
}

}  // namespace penstock::jobs
