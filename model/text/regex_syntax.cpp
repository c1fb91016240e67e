#include "model/text/regex_syntax.hpp"

#include <fmt/format.h>

#include <array>
#include <cctype>
#include <vector>

#include "io/error.hpp"
#include "model/error.hpp"
#include "model/text/unicode_class.hpp"

namespace penstock::model {
namespace {

constexpr std::string_view white_space =
    R"(\x09-\x0d\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view not_white_space =
    R"(\x00-\x08\x0e-\x1f\x21-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";

// ASCII members first: PCRE2 answers them from a bitmap, without a look at the property.
struct Property {
  std::string_view name;
  std::string_view ascii;
  bool cased;  // PCRE2 makes Lu, Ll and Lt one class where case is ignored
};
constexpr auto properties = std::to_array<Property>({
    {"L", "A-Za-z", false},
    {"Lu", "A-Z", true},
    {"Ll", "a-z", true},
    {"Lt", "", true},
    {"Lm", "", false},
    {"Lo", "", false},
    {"M", "", false},
    {"N", "0-9", false},
    {"Nd", "0-9", false},
    {"Nl", "", false},
    {"No", "", false},
    {"P", "", false},
    {"S", "", false},
    {"Z", "", false},
});

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    while (!at_end()) item();
    return std::move(result_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    throw ModelError(fmt::format("tokenizer: the pattern {} has {}, which is not supported",
                                 io::quoted(pattern_), what));
  }

  bool at_end() const { return at_ == pattern_.size(); }
  bool ahead(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  char take() {
    if (at_end()) refuse("an end where more is expected");
    return pattern_[at_++];
  }

  void item() {
    const char c = pattern_[at_];
    switch (c) {
      case '\\':
        escape(false);
        break;
      case '[':
        ++at_;
        character_class();
        break;
      case '(':
        group();
        break;
      case ')':
        if (!ignores_case_.empty()) ignores_case_.pop_back();
        result_ += take();
        break;
      case '{':
        counted();
        break;
      case ']':
      case '}':
        result_ += '\\';
        result_ += take();
        break;
      default:
        result_ += take();
    }
  }

  void group() {
    constexpr auto openings =
        std::to_array<std::string_view>({"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"});
    const bool inherited = ignoring_case();
    for (const std::string_view opening : openings) {
      if (!ahead(opening)) continue;
      ignores_case_.push_back(inherited || opening == "(?i:");
      result_ += opening;
      at_ += opening.size();
      return;
    }
    if (ahead("(?") || ahead("(*")) refuse(io::quoted(pattern_.substr(at_, 4)));
    ignores_case_.push_back(inherited);
    result_ += take();
  }

  bool ignoring_case() const { return !ignores_case_.empty() && ignores_case_.back(); }

  // {n}, {n,}, {n,m}, {,m}; any other brace is a letter.
  void counted() {
    std::size_t end = at_ + 1;
    std::array<std::string, 2> bounds;
    std::size_t which = 0;
    for (; end < pattern_.size(); ++end) {
      const char c = pattern_[end];
      if (std::isdigit(static_cast<unsigned char>(c)) != 0) {
        bounds[which] += c;
      } else if (c == ',' && which == 0) {
        which = 1;
      } else {
        break;
      }
    }
    const bool is_count =
        end < pattern_.size() && pattern_[end] == '}' && !(bounds[0].empty() && bounds[1].empty());
    if (!is_count) {
      result_ += '\\';
      result_ += take();
      return;
    }
    at_ = end + 1;
    if (ahead("+") || ahead("?")) refuse("a '+' or '?' behind a counted repetition");
    if (bounds[0].empty()) bounds[0] += '0';
    result_ += which == 0 ? fmt::format("{{{}}}", bounds[0])
                          : fmt::format("{{{},{}}}", bounds[0], bounds[1]);
  }

  // Returns whether it stands for a set of characters.
  bool escape(bool in_class) {
    ++at_;
    const char c = take();
    switch (c) {
      case 'p':
      case 'P':
        property(c == 'P', in_class);
        return true;
      case 's':
        set(white_space, false, in_class);
        return true;
      case 'S':
        if (in_class) {
          result_ += not_white_space;
        } else {
          set(white_space, true, in_class);
        }
        return true;
      case 'd':
        set(members("Nd"), false, in_class);
        return true;
      case 'D':
        if (in_class) refuse("'\\D' inside of []");
        set(members("Nd"), true, in_class);
        return true;
      case 'n':
      case 'r':
      case 't':
      case 'f':
        result_ += '\\';
        result_ += c;
        return false;
      case 'v':
        result_ += "\\x0b";
        return false;
      case 'x':
      case 'u':
        code_point(c);
        return false;
      default:
        break;
    }
    if (static_cast<unsigned char>(c) < 0x80 && std::isalnum(static_cast<unsigned char>(c)) == 0) {
      result_ += '\\';
      result_ += c;
      return false;
    }
    refuse(io::quoted(std::string("\\") + c));
  }

  void set(std::string_view content, bool negated, bool in_class) {
    if (in_class) {
      result_ += content;
    } else {
      result_ += fmt::format("[{}{}]", negated ? "^" : "", content);
    }
  }

  static std::string members(std::string_view name) {
    std::string content;
    for (const Property& property : properties) {
      if (property.name == name) content += property.ascii;
    }
    content += fmt::format("\\p{{{}}}", name);
    for (const CategoryRange& range : unicode_supplement()) {
      if (!std::string_view(range.category).starts_with(name)) continue;
      content += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", static_cast<std::uint32_t>(range.first),
                             static_cast<std::uint32_t>(range.last));
    }
    return content;
  }

  void property(bool negated, bool in_class) {
    std::string name(1, take());
    if (name == "{") {
      name.clear();
      for (char c = take(); c != '}'; c = take()) name += c;
    }
    if (name.starts_with('^')) {
      negated = !negated;
      name.erase(0, 1);
    }
    for (const Property& known : properties) {
      if (known.name != name) continue;
      if (known.cased && ignoring_case()) refuse("a cased property inside of (?i:)");
      if (negated && in_class) refuse("a negated property inside of []");
      set(members(name), negated, in_class);
      return;
    }
    refuse("the property " + io::quoted(name));
  }

  // \xHH, \x{H...}, \uHHHH
  void code_point(char kind) {
    std::string digits;
    const bool braces = kind == 'x' && ahead("{");
    if (braces) {
      ++at_;
      for (char c = take(); c != '}'; c = take()) digits += c;
    } else {
      const std::size_t limit = kind == 'x' ? 2 : 4;
      while (digits.size() < limit && !at_end() &&
             std::isxdigit(static_cast<unsigned char>(pattern_[at_])) != 0) {
        digits += take();
      }
      if (digits.size() != limit) refuse("a short character code");
    }
    const bool is_hex = !digits.empty() && digits.size() <= 6 &&
                        digits.find_first_not_of("0123456789abcdefABCDEF") == digits.npos;
    if (!is_hex) refuse("a broken character code");
    // A single \xHH above 7F is a byte to Oniguruma, not a character.
    if (kind == 'x' && !braces && digits[0] >= '8') refuse("a byte code above 7F");
    result_ += fmt::format("\\x{{{}}}", digits);
  }

  void character_class() {
    result_ += '[';
    if (ahead("^")) result_ += take();
    if (ahead("]")) refuse("an empty []");
    bool was_set = false;  // a '-' beside a set is a letter, never a range
    bool is_first = true;
    for (; !ahead("]"); is_first = false) {
      if (at_end()) refuse("a [ without ]");
      if (ahead("&&")) refuse("'&&'");
      const char c = pattern_[at_];
      if (c == '[') refuse("a nested [");
      if (c == '\\') {
        was_set = escape(true);
      } else if (c == '-') {
        ++at_;
        const bool set_follows = ahead("\\p") || ahead("\\P") || ahead("\\s") || ahead("\\S") ||
                                 ahead("\\d") || ahead("\\D");
        result_ += was_set || is_first || set_follows || ahead("]") ? "\\-" : "-";
        was_set = false;
      } else {
        if (c == '^') result_ += '\\';
        result_ += take();
        was_set = false;
      }
    }
    result_ += take();
  }

  std::string_view pattern_;
  std::size_t at_ = 0;
  std::string result_;
  std::vector<bool> ignores_case_;  // of the open groups
};

}  // namespace

std::string to_pcre2(std::string_view pattern) { return Translator(pattern).run(); }

}  // namespace penstock::model
