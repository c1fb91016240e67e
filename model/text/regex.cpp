#include "model/text/regex.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <limits>

#include "io/error.hpp"
#include "model/error.hpp"
#include "model/text/regex_syntax.hpp"

namespace penstock::model {
namespace {

template <auto function>
struct Free {
  template <class T>
  void operator()(T* handle) const {
    function(handle);
  }
};
using Code = std::unique_ptr<pcre2_code, Free<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Free<pcre2_compile_context_free>>;

std::string error_text(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

PCRE2_SPTR units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

void fail_rewrite() {
  throw ModelError(
      "tokenizer: its normalizer or decoder makes more of a text than 64 times its size and 64 "
      "KiB");
}

struct MatchBuffer::State {
  MatchData data{pcre2_match_data_create(1, nullptr)};
  MatchContext context{pcre2_match_context_create(nullptr)};
};

MatchBuffer::MatchBuffer() : state_(std::make_unique<State>()) {
  if (!state_->data || !state_->context) throw std::bad_alloc();
  pcre2_set_heap_limit(state_->context.get(), 1 << 20);  // KiB, the interpreter's backtracking
  pcre2_set_depth_limit(state_->context.get(), std::numeric_limits<std::uint32_t>::max());
}
MatchBuffer::~MatchBuffer() = default;
MatchBuffer::MatchBuffer(MatchBuffer&&) noexcept = default;
MatchBuffer& MatchBuffer::operator=(MatchBuffer&&) noexcept = default;

struct Regex::State {
  std::string pattern;  // as given
  Code code;
  bool is_jitted = false;
};

Regex::Regex(std::unique_ptr<State> state) : state_(std::move(state)) {}
Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

Regex::Regex(std::string_view pattern) : state_(std::make_unique<State>()) {
  const CompileContext context(pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  // Oniguruma's: only \n ends a line, and ^ and $ stand at lines.
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  const std::string translated = to_pcre2(pattern);
  int code = 0;
  PCRE2_SIZE at = 0;
  state_->pattern = pattern;
  state_->code.reset(
      pcre2_compile(units(translated), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &at,
                    context.get()));
  if (!state_->code) {
    throw ModelError(fmt::format("tokenizer: the pattern {} does not compile: {}",
                                 io::quoted(pattern), error_text(code)));
  }
  // Where the system forbids code that is made at run time, the interpreter matches.
  state_->is_jitted = pcre2_jit_compile(state_->code.get(), PCRE2_JIT_COMPLETE) == 0;
}

Regex Regex::literal(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    if (std::string_view("\\.+*?()|[]{}^$#&-~").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return Regex(pattern);
}

std::optional<Regex::Match> Regex::find(std::string_view text, std::size_t from,
                                        MatchBuffer& buffer) const {
  pcre2_match_context* context = buffer.state_->context.get();
  pcre2_match_data* data = buffer.state_->data.get();
  // A run of blanks is tried at most a few times from its beginning: steps grow with the text, and
  // a limit that does not would turn a long line into an error.
  constexpr std::size_t base = 10'000'000;
  constexpr std::size_t top = std::numeric_limits<std::uint32_t>::max();
  const std::size_t steps = text.size() < (top - base) / 64 ? base + 64 * text.size() : top;
  pcre2_set_match_limit(context, static_cast<std::uint32_t>(steps));
  int found = state_->is_jitted ? pcre2_jit_match(state_->code.get(), units(text), text.size(),
                                                  from, 0, data, context)
                                : pcre2_match(state_->code.get(), units(text), text.size(), from,
                                              PCRE2_NO_UTF_CHECK, data, context);
  if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
    found = pcre2_match(state_->code.get(), units(text), text.size(), from,
                        PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, context);
  }
  if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (found < 0) {
    throw ModelError(fmt::format("tokenizer: the pattern {} gave up on a text of {} bytes: {}",
                                 io::quoted(state_->pattern), text.size(), error_text(found)));
  }
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data);
  return Match{ends[0], ends[1]};
}

std::string Regex::replace(std::string_view text, std::string_view content, std::size_t limit_bytes,
                           MatchBuffer& buffer) const {
  std::string result;
  std::size_t done = 0;
  const auto add = [&](std::string_view part) {
    if (part.size() > limit_bytes - result.size()) fail_rewrite();
    result += part;
  };
  for_each(text, buffer, [&](std::size_t begin, std::size_t end) {
    add(text.substr(done, begin - done));
    add(content);
    done = end;
  });
  add(text.substr(done));
  return result;
}

std::size_t Regex::next_character(std::string_view text, std::size_t at) {
  ++at;
  while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) ++at;
  return at;
}

}  // namespace penstock::model
