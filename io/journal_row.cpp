#include "io/journal_row.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <system_error>

namespace penstock::io {
namespace {

constexpr std::string_view kMember = R"(,"xxh3":")";
constexpr std::string_view kEnd = R"("})";
constexpr std::size_t kDigits = 16;
constexpr std::size_t kTailBytes = kMember.size() + kDigits + kEnd.size();
constexpr std::string_view kPartial = R"({"partial":[)";
constexpr std::string_view kPartialIndex = R"(],"index":)";

// Stops at the top-level "index", so that long texts after it are not parsed.
class IndexFinder : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::optional<std::uint64_t> found;

  bool key(string_t& name) override {
    at_index_ = depth_ == 1 && name == "index";
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (at_index_) found = value;
    return !at_index_;
  }
  bool number_integer(number_integer_t) override { return !at_index_; }
  bool number_float(number_float_t, const string_t&) override { return !at_index_; }
  bool null() override { return !at_index_; }
  bool boolean(bool) override { return !at_index_; }
  bool string(string_t&) override { return !at_index_; }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(); }
  bool start_array(std::size_t) override { return open(); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception&) override {
    return false;
  }

 private:
  bool open() {
    ++depth_;
    return !at_index_;
  }
  bool close() {
    --depth_;
    return true;
  }
  std::size_t depth_ = 0;
  bool at_index_ = false;
};

// Takes a number as this program writes it, without sign and leading zeros, off the start of
// `text`.
template <typename Number>
bool take_number(std::string_view& text, Number& number) {
  const char* const begin = text.data();
  const auto [end, error] = std::from_chars(begin, begin + text.size(), number);
  if (error != std::errc{} || *begin == '-' || (*begin == '0' && end != begin + 1)) return false;
  text.remove_prefix(static_cast<std::size_t>(end - begin));
  return true;
}

bool take(std::string_view& text, std::string_view word) {
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  return true;
}

}  // namespace

std::string to_journal_line(std::string_view row) {
  if (row.size() < 3 || row.front() != '{' || row.back() != '}' ||
      row.find('\n') != std::string_view::npos) {
    throw std::invalid_argument("a journal row must be a JSON object with members on one line");
  }
  row.remove_suffix(1);
  std::string line;
  line.reserve(row.size() + kTailBytes + 1);
  line += row;
  line += kMember;
  line += fmt::format("{:016x}", XXH3_64bits(row.data(), row.size()));
  line += kEnd;
  line += '\n';
  return line;
}

std::optional<std::string> from_journal_line(std::string_view line) {
  if (line.size() <= kTailBytes || !line.ends_with(kEnd)) return std::nullopt;
  const std::string_view body = line.substr(0, line.size() - kTailBytes);
  const std::string_view tail = line.substr(body.size());
  if (!tail.starts_with(kMember)) return std::nullopt;
  if (tail.substr(kMember.size(), kDigits) !=
      fmt::format("{:016x}", XXH3_64bits(body.data(), body.size()))) {
    return std::nullopt;
  }
  std::string row;
  row.reserve(body.size() + 1);
  row += body;
  row += '}';
  return row;
}

std::optional<std::uint64_t> row_index(std::string_view row) {
  IndexFinder finder;
  nlohmann::json::sax_parse(row, &finder);
  return finder.found;
}

bool is_partial_row(std::string_view row) { return row.starts_with(kPartial); }

std::string to_partial_row(std::uint64_t index, std::span<const std::int32_t> tokens) {
  std::string row(kPartial);
  for (const std::int32_t token : tokens) {
    if (token < 0) throw std::invalid_argument(fmt::format("token {} of a partial row", token));
    if (row.size() > kPartial.size()) row += ',';
    row += fmt::format_int(token).c_str();
  }
  row += kPartialIndex;
  row += fmt::format_int(index).c_str();
  row += '}';
  return row;
}

std::optional<std::uint64_t> from_partial_row(std::string_view row,
                                              std::vector<std::int32_t>& tokens) {
  tokens.clear();
  if (!take(row, kPartial)) return std::nullopt;
  if (!row.starts_with(']')) {
    do {
      std::int32_t token = 0;
      if (!take_number(row, token)) return std::nullopt;
      tokens.push_back(token);
    } while (take(row, ","));
  }
  std::uint64_t index = 0;
  if (!take(row, kPartialIndex) || !take_number(row, index) || row != "}") return std::nullopt;
  return index;
}

}  // namespace penstock::io
