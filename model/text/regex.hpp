#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::model {

// What steps that replace may make of a text of this size. Each multiplies what the one before it
// gave: without a limit a few of them in a small file fill any memory.
constexpr std::size_t rewrite_limit(std::size_t size_bytes) { return 64 * size_bytes + 65536; }

[[noreturn]] void fail_rewrite();  // a ModelError

// What one thread needs while it matches; any Regex may use it, one at a time.
class MatchBuffer {
 public:
  MatchBuffer();
  ~MatchBuffer();
  MatchBuffer(MatchBuffer&&) noexcept;
  MatchBuffer& operator=(MatchBuffer&&) noexcept;

 private:
  friend class Regex;
  struct State;
  std::unique_ptr<State> state_;
};

// A compiled pattern of tokenizer.json; immutable, shared by threads.
class Regex {
 public:
  // Throws ModelError for a pattern that does not compile or is not supported (regex_syntax.hpp).
  explicit Regex(std::string_view pattern);
  static Regex literal(std::string_view text);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  struct Match {
    std::size_t begin;
    std::size_t end;
  };
  // The first match at or after `from`, in valid UTF-8. Throws ModelError when the match needs
  // more steps or memory than any sensible pattern does.
  std::optional<Match> find(std::string_view text, std::size_t from, MatchBuffer& buffer) const;

  // All matches as Oniguruma's Rust binding iterates: no empty match right behind a match.
  // Calls `on_match(begin, end)`.
  template <class OnMatch>
  void for_each(std::string_view text, MatchBuffer& buffer, OnMatch&& on_match) const;

  // `text`, which is not empty, with all matches replaced. Throws ModelError for a result above
  // `limit_bytes`.
  std::string replace(std::string_view text, std::string_view content, std::size_t limit_bytes,
                      MatchBuffer& buffer) const;

 private:
  struct State;
  explicit Regex(std::unique_ptr<State> state);
  static std::size_t next_character(std::string_view text, std::size_t at);
  std::unique_ptr<State> state_;
};

template <class OnMatch>
void Regex::for_each(std::string_view text, MatchBuffer& buffer, OnMatch&& on_match) const {
  std::optional<std::size_t> last_match_end;
  for (std::size_t from = 0; from <= text.size();) {
    const std::optional<Match> match = find(text, from, buffer);
    if (!match) return;
    if (match->begin == match->end && last_match_end == match->end) {
      from = next_character(text, from);
      continue;
    }
    from = match->end;
    last_match_end = match->end;
    on_match(match->begin, match->end);
  }
}

}  // namespace penstock::model
