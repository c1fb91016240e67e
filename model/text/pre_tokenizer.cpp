#include "model/text/pre_tokenizer.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "io/error.hpp"
#include "model/error.hpp"
#include "model/text/byte_alphabet.hpp"
#include "model/text/json_fields.hpp"
#include "model/text/unicode_class.hpp"
#include "model/text/utf8.hpp"

namespace penstock::model {
namespace {

// Source: github.com/openai/gpt-2, src/encoder.py.
constexpr std::string_view gpt2_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

}  // namespace

template <class Kind>
std::ptrdiff_t PreTokenizer::count() const {
  return std::count_if(steps_.begin(), steps_.end(),
                       [](const Step& step) { return std::holds_alternative<Kind>(step); });
}

PreTokenizer::PreTokenizer(const nlohmann::json& json) {
  if (json.is_null()) return;
  add(json, 0);
  if (steps_.empty()) return;
  // These rewrite the text, and several would multiply it: each ByteLevel may double its bytes, and
  // a Metaspace splits at what the one before it put in.
  if (count<ByteLevel>() > 1 || count<Metaspace>() > 1) {
    throw ModelError("tokenizer: the pre_tokenizer has more than one ByteLevel or Metaspace");
  }
  if (auto* last = std::get_if<ByteLevel>(&steps_.back())) {
    last->rewrites = false;
    gives_bytes_ = true;
  }
}

void PreTokenizer::add(const nlohmann::json& json, int depth) {
  const std::string type = part_type(json, depth, "the pre_tokenizer");
  const std::string where = fmt::format("pre_tokenizer {}", type);
  if (type == "Sequence") {
    for (const auto& part : part_list(json, "pretokenizers", where)) add(part, depth + 1);
  } else if (type == "ByteLevel") {
    ByteLevel step{flag_field(json, "add_prefix_space", where), std::nullopt, true};
    if (flag_field_or(json, "use_regex", true, where)) step.pattern.emplace(gpt2_pattern);
    steps_.push_back(std::move(step));
  } else if (type == "Digits") {
    steps_.push_back(Digits{flag_field(json, "individual_digits", where)});
  } else if (type == "Split") {
    add_split(json);
  } else if (type == "Metaspace") {
    add_metaspace(json);
  } else {
    throw ModelError(
        fmt::format("tokenizer: the pre_tokenizer {} is not supported (known: Sequence, "
                    "ByteLevel, Split, Digits, Metaspace)",
                    io::quoted(type)));
  }
  if (steps_.size() > max_parts) {
    throw ModelError("tokenizer: the pre_tokenizer has too many parts");
  }
}

void PreTokenizer::add_split(const nlohmann::json& json) {
  constexpr std::string_view where = "pre_tokenizer Split";
  steps_.push_back(
      Split{pattern_field(json, where), behavior_of(json), flag_field(json, "invert", where)});
}

PreTokenizer::Behavior PreTokenizer::behavior_of(const nlohmann::json& json) {
  const std::string name = text_field(json, "behavior", "pre_tokenizer Split");
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  throw ModelError(
      fmt::format("tokenizer: pre_tokenizer Split has an unknown behavior {}", io::quoted(name)));
}

void PreTokenizer::add_metaspace(const nlohmann::json& json) {
  constexpr std::string_view where = "pre_tokenizer Metaspace";
  Metaspace step{text_field(json, "replacement", where), PrependScheme::always,
                 flag_field_or(json, "split", true, where)};
  if (step.replacement.empty() ||
      decode_utf8(step.replacement, 0).size_bytes != step.replacement.size()) {
    throw ModelError("tokenizer: 'replacement' of pre_tokenizer Metaspace is not one character");
  }
  if (json.contains("prepend_scheme")) {
    const std::string scheme = text_field(json, "prepend_scheme", where);
    if (scheme == "first") {
      step.scheme = PrependScheme::first;
    } else if (scheme == "never") {
      step.scheme = PrependScheme::never;
    } else if (scheme != "always") {
      throw ModelError(
          fmt::format("tokenizer: pre_tokenizer Metaspace has an unknown prepend_scheme {}",
                      io::quoted(scheme)));
    }
  }
  if (json.contains("add_prefix_space") && !flag_field(json, "add_prefix_space", where)) {
    step.scheme = PrependScheme::never;
  }
  steps_.push_back(std::move(step));
}

void PreTokenizer::run(std::string_view text, bool at_start, MatchBuffer& buffer,
                       const WordSink& sink) const {
  next(0, text, at_start, Run{buffer, sink});
}

void PreTokenizer::next(std::size_t step, std::string_view text, bool at_start,
                        const Run& run) const {
  if (text.empty()) return;
  if (step == steps_.size()) {
    run.sink(text);
    return;
  }
  std::visit([&](const auto& s) { apply(step, s, text, at_start, run); }, steps_[step]);
}

void PreTokenizer::apply(std::size_t step, const Split& split, std::string_view text, bool at_start,
                         const Run& run) const {
  if (split.behavior == Behavior::isolated) {
    std::size_t done = 0;
    split.pattern.for_each(text, run.buffer, [&](std::size_t begin, std::size_t end) {
      next(step + 1, text.substr(done, begin - done), at_start && done == 0, run);
      next(step + 1, text.substr(begin, end - begin), at_start && begin == 0, run);
      done = end;
    });
    next(step + 1, text.substr(done), at_start && done == 0, run);
    return;
  }
  std::vector<Piece> pieces;
  std::size_t done = 0;
  split.pattern.for_each(text, run.buffer, [&](std::size_t begin, std::size_t end) {
    if (done != begin) pieces.push_back({done, begin, split.invert});
    pieces.push_back({begin, end, !split.invert});
    done = end;
  });
  if (done != text.size()) pieces.push_back({done, text.size(), split.invert});
  emit(step, pieces, split.behavior, text, at_start, run);
}

void PreTokenizer::apply(std::size_t step, const Digits& digits, std::string_view text,
                         bool at_start, const Run& run) const {
  // Alone, each digit is a piece; together, a run of digits is. The rest are runs of the others.
  std::size_t done = 0;
  bool in_digits = false;
  const auto flush = [&](std::size_t end) {
    next(step + 1, text.substr(done, end - done), at_start && done == 0, run);
    done = end;
  };
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = decode_utf8(text, at);
    const bool is_digit = is_numeric(c.value);
    if (is_digit != in_digits || (is_digit && digits.individual)) flush(at);
    in_digits = is_digit;
    at += c.size_bytes;
  }
  flush(text.size());
}

void PreTokenizer::apply(std::size_t step, const ByteLevel& level, std::string_view text,
                         bool at_start, const Run& run) const {
  std::string prefixed;
  if (level.add_prefix_space && !text.starts_with(' ')) {
    prefixed.reserve(text.size() + 1);
    prefixed += ' ';
    prefixed += text;
    text = prefixed;
  }
  const auto give = [&](std::size_t begin, std::size_t end) {
    const std::string_view word = text.substr(begin, end - begin);
    if (!level.rewrites) {
      if (!word.empty()) run.sink(word);  // rewriting is left to BPE only where no step follows
    } else {
      next(step + 1, to_byte_alphabet(word), at_start && begin == 0, run);
    }
  };
  std::size_t done = 0;
  if (level.pattern) {
    level.pattern->for_each(text, run.buffer, [&](std::size_t begin, std::size_t end) {
      give(done, begin);
      give(begin, end);
      done = end;
    });
  }
  give(done, text.size());
}

void PreTokenizer::apply(std::size_t step, const Metaspace& meta, std::string_view text,
                         bool at_start, const Run& run) const {
  std::string replaced;
  replaced.reserve(text.size() + meta.replacement.size());
  for (const char c : text) {
    if (c == ' ') {
      replaced += meta.replacement;
    } else {
      replaced += c;
    }
  }
  const bool prepend =
      meta.scheme == PrependScheme::always || (meta.scheme == PrependScheme::first && at_start);
  if (prepend && !replaced.starts_with(meta.replacement)) replaced.insert(0, meta.replacement);
  std::vector<Piece> pieces;
  std::size_t done = 0;
  while (meta.split) {
    const std::size_t found = replaced.find(meta.replacement, done);
    if (found == std::string::npos) break;
    if (found != done) pieces.push_back({done, found, false});
    done = found + meta.replacement.size();
    pieces.push_back({found, done, true});
  }
  if (done != replaced.size()) pieces.push_back({done, replaced.size(), false});
  emit(step, pieces, Behavior::merged_with_next, replaced, at_start, run);
}

void PreTokenizer::emit(std::size_t step, const std::vector<Piece>& pieces, Behavior behavior,
                        std::string_view text, bool at_start, const Run& run) const {
  for (const Piece& piece : fold(pieces, behavior)) {
    next(step + 1, text.substr(piece.begin, piece.end - piece.begin), at_start && piece.begin == 0,
         run);
  }
}

// Source: github.com/huggingface/tokenizers, tokenizers/src/tokenizer/normalizer.rs, split.
std::vector<PreTokenizer::Piece> PreTokenizer::fold(const std::vector<Piece>& pieces,
                                                    Behavior behavior) {
  if (behavior == Behavior::isolated) return pieces;
  std::vector<Piece> folded;
  bool previous = false;
  const auto visit = [&](const Piece& piece) {
    const bool joins =
        behavior == Behavior::contiguous ? piece.is_match == previous : piece.is_match && !previous;
    previous = piece.is_match;
    if (!joins || folded.empty()) {
      folded.push_back(piece);
    } else {
      folded.back().begin = std::min(folded.back().begin, piece.begin);
      folded.back().end = std::max(folded.back().end, piece.end);
    }
  };
  switch (behavior) {
    case Behavior::removed:
      std::copy_if(pieces.begin(), pieces.end(), std::back_inserter(folded),
                   [](const Piece& piece) { return !piece.is_match; });
      break;
    case Behavior::merged_with_next:
      std::for_each(pieces.rbegin(), pieces.rend(), visit);
      std::reverse(folded.begin(), folded.end());
      break;
    default:
      std::for_each(pieces.begin(), pieces.end(), visit);
  }
  return folded;
}

}  // namespace penstock::model
