#include "io/journal_row.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <nlohmann/json.hpp>
#include <stdexcept>

namespace penstock::io {
namespace {

constexpr std::string_view kMember = R"(,"xxh3":")";
constexpr std::string_view kEnd = R"("})";
constexpr std::size_t kDigits = 16;
constexpr std::size_t kTailBytes = kMember.size() + kDigits + kEnd.size();

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

}  // namespace penstock::io
