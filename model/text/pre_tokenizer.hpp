#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "model/text/regex.hpp"

namespace penstock::model {

// Takes the words of a text, in order; a word is valid only during the call.
class WordSink {
 public:
  template <class Take>
  requires(!std::is_same_v<std::remove_cvref_t<Take>, WordSink>) explicit WordSink(Take& take)
      : object_(&take),
        call_([](void* object, std::string_view word) { (*static_cast<Take*>(object))(word); }) {}
  void operator()(std::string_view word) const { call_(object_, word); }

 private:
  void* object_;
  void (*call_)(void*, std::string_view);
};

// The "pre_tokenizer" of tokenizer.json: splits a text into the words BPE works on. Immutable.
class PreTokenizer {
 public:
  PreTokenizer() = default;  // the text is one word
  // Throws ModelError that names what is broken or not supported. `json` may be null.
  explicit PreTokenizer(const nlohmann::json& json);

  // Whether the words are bytes which BPE is to read through byte_alphabet.hpp. The reference
  // rewrites the text instead; the words are the same.
  bool gives_bytes() const { return gives_bytes_; }

  // `at_start`: the text stands at the start of what is encoded.
  void run(std::string_view text, bool at_start, MatchBuffer& buffer, const WordSink& sink) const;

 private:
  enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };
  enum class PrependScheme { first, never, always };
  struct Split {
    Regex pattern;
    Behavior behavior;
    bool invert;
  };
  struct Digits {
    bool individual;
  };
  struct ByteLevel {
    bool add_prefix_space;
    std::optional<Regex> pattern;
    bool rewrites;  // a later step sees the byte alphabet
  };
  struct Metaspace {
    std::string replacement;
    PrependScheme scheme;
    bool split;
  };
  using Step = std::variant<Split, Digits, ByteLevel, Metaspace>;
  struct Piece {
    std::size_t begin;
    std::size_t end;
    bool is_match;
  };
  // A text on its way through the steps.
  struct Run {
    MatchBuffer& buffer;
    const WordSink& sink;
  };

  template <class Kind>
  std::ptrdiff_t count() const;
  void add(const nlohmann::json& json, int depth);
  void add_split(const nlohmann::json& json);
  void add_metaspace(const nlohmann::json& json);
  static Behavior behavior_of(const nlohmann::json& json);
  static std::vector<Piece> fold(const std::vector<Piece>& pieces, Behavior behavior);

  void next(std::size_t step, std::string_view text, bool at_start, const Run& run) const;
  void apply(std::size_t step, const Split&, std::string_view, bool at_start, const Run&) const;
  void apply(std::size_t step, const Digits&, std::string_view, bool at_start, const Run&) const;
  void apply(std::size_t step, const ByteLevel&, std::string_view, bool at_start, const Run&) const;
  void apply(std::size_t step, const Metaspace&, std::string_view, bool at_start, const Run&) const;
  void emit(std::size_t step, const std::vector<Piece>& pieces, Behavior behavior,
            std::string_view text, bool at_start, const Run& run) const;

  std::vector<Step> steps_;
  bool gives_bytes_ = false;
};

}  // namespace penstock::model
