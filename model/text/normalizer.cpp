#include "model/text/normalizer.hpp"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>

#include "io/error.hpp"
#include "model/error.hpp"
#include "model/text/json_fields.hpp"
#include "model/text/unicode_class.hpp"
#include "model/text/utf8.hpp"

namespace penstock::model {
namespace {

// Characters that every normalization form leaves alone wherever they stand (they are starters
// that neither decompose nor compose with what is before them). Texts are mostly these.
bool is_inert(char32_t c, bool composed, bool compatible) {
  if (c < 0x80) return true;
  if (!composed) return false;
  return (c < 0x300 && !compatible) || (c >= 0x0400 && c <= 0x0482) ||
         (c >= 0x2018 && c <= 0x201D) || (c >= 0x3041 && c <= 0x3096) ||
         (c >= 0x4E00 && c <= 0x9FEF);
}

// Newer than the reference's normalization, to which they are letters like any other: nothing
// composes or changes places across them.
struct Range {
  char32_t first;
  char32_t last;
};
constexpr auto after_unicode_9 = std::to_array<Range>({
#include "model/text/unicode_after_9.inc"
});

bool is_unknown(char32_t c) {
  const auto* found =
      std::lower_bound(after_unicode_9.begin(), after_unicode_9.end(), c,
                       [](const Range& r, char32_t value) { return r.last < value; });
  return found != after_unicode_9.end() && found->first <= c;
}

void append_normalized(std::string_view text, bool composed, bool compatible, std::string& result) {
  int options = UTF8PROC_STABLE | (composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE);
  if (compatible) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* raw = nullptr;
  const utf8proc_ssize_t size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                             static_cast<utf8proc_ssize_t>(text.size()), &raw,
                                             static_cast<utf8proc_option_t>(options));
  if (size < 0) {
    throw ModelError(fmt::format("tokenizer: Unicode normalization of {} bytes failed: {}",
                                 text.size(), utf8proc_errmsg(size)));
  }
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(raw, &std::free);
  result.append(reinterpret_cast<const char*>(raw), static_cast<std::size_t>(size));
}

}  // namespace

Normalizer::Normalizer(const nlohmann::json& json) {
  if (!json.is_null()) add(json, 0);
}

void Normalizer::add(const nlohmann::json& json, int depth) {
  const std::string type = part_type(json, depth, "the normalizer");
  const std::string where = fmt::format("normalizer {}", type);
  if (type == "Sequence") {
    for (const nlohmann::json& part : part_list(json, "normalizers", where)) add(part, depth + 1);
  } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    steps_.push_back(Unicode{type.back() == 'C', type[2] == 'K'});
  } else if (type == "Prepend") {
    steps_.push_back(Prepend{text_field(json, "prepend", where)});
  } else if (type == "Replace") {
    steps_.push_back(Replace{pattern_field(json, where), text_field(json, "content", where)});
  } else if (type == "Lowercase") {
    steps_.push_back(Lowercase{});
  } else if (type == "Strip") {
    steps_.push_back(
        Strip{flag_field(json, "strip_left", where), flag_field(json, "strip_right", where)});
  } else {
    throw ModelError(
        fmt::format("tokenizer: the normalizer {} is not supported (known: Sequence, NFC, NFD, "
                    "NFKC, NFKD, Prepend, Replace, Lowercase, Strip)",
                    io::quoted(type)));
  }
  if (steps_.size() > max_parts) throw ModelError("tokenizer: the normalizer has too many parts");
}

std::string Normalizer::apply(std::string_view text, std::size_t limit_bytes,
                              MatchBuffer& buffer) const {
  const Work work{limit_bytes, buffer};
  std::string result(text);
  for (const Step& step : steps_) {
    result = std::visit([&](const auto& s) { return run(s, std::move(result), work); }, step);
  }
  return result;
}

std::string Normalizer::run(const Unicode& step, std::string text, const Work&) {
  const std::string_view all = text;
  const auto is_still = [&](char32_t c) {
    return is_inert(c, step.composed, step.compatible) || is_unknown(c);
  };
  std::string result;
  std::size_t done = 0;  // all[0, done) is in `result`
  std::size_t base = 0;  // where a run that begins here takes up the character before it
  for (std::size_t at = 0; at < all.size();) {
    const CodePoint c = decode_utf8(all, at);
    if (is_still(c.value)) {
      base = is_unknown(c.value) ? at + c.size_bytes : at;
      at += c.size_bytes;
      continue;
    }
    std::size_t end = at;
    while (end < all.size()) {
      const CodePoint next = decode_utf8(all, end);
      if (is_still(next.value)) break;
      end += next.size_bytes;
    }
    result += all.substr(done, base - done);
    append_normalized(all.substr(base, end - base), step.composed, step.compatible, result);
    done = base = at = end;
  }
  if (done == 0) return text;
  result += all.substr(done);
  return result;
}

std::string Normalizer::run(const Prepend& step, std::string text, const Work& work) {
  if (text.empty()) return text;
  if (step.text.size() + text.size() > work.limit_bytes) fail_rewrite();
  return step.text + text;
}

std::string Normalizer::run(const Replace& step, std::string text, const Work& work) {
  if (text.empty()) return text;
  return step.pattern.replace(text, step.content, work.limit_bytes, work.buffer);
}

std::string Normalizer::run(const Lowercase&, std::string text, const Work&) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = decode_utf8(text, at);
    at += c.size_bytes;
    if (c.value == 0x130) {
      result += "i\xCC\x87";  // the only character whose lower case is two
    } else {
      append_utf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.value))),
                  result);
    }
  }
  return result;
}

std::string Normalizer::run(const Strip& step, std::string text, const Work&) {
  std::size_t begin = 0;
  std::size_t end = text.size();
  while (step.left && begin < end) {
    const CodePoint c = decode_utf8(text, begin);
    if (!is_whitespace(c.value)) break;
    begin += c.size_bytes;
  }
  while (step.right && begin < end) {
    const CodePoint c = decode_utf8_before(text, end);
    if (!is_whitespace(c.value)) break;
    end -= c.size_bytes;
  }
  return text.substr(begin, end - begin);
}

}  // namespace penstock::model
