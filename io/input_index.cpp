#include "io/input_index.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <sstream>
#include <type_traits>
#include <utility>

#include "io/error.hpp"
#include "io/file.hpp"
#include "io/output_file.hpp"

namespace penstock::io {
namespace {

static_assert(sizeof(IndexEntry) == 32 && std::is_trivially_copyable_v<IndexEntry>);
static_assert(std::endian::native == std::endian::little, "the index is stored as it lies");

constexpr std::array<char, 8> kMagic = {'P', 'E', 'N', 'S', 'T', 'I', 'D', 'X'};
constexpr std::uint32_t kVersion = 3;
constexpr std::size_t kReadBytes = 4u << 20;
constexpr std::uint64_t kFormatBytes = 64u << 10;  // of its start, where the format is looked for
constexpr std::size_t kPrefixBytes = 256;
constexpr std::string_view kBoundField = "\"max_tokens\"";
constexpr std::size_t kBoundBytes = 64;  // of the field with its value, as it is usually written
constexpr int kTellMilliseconds = 1000;  // that standard input still waits
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

// The index file: this, then `count` entries.
struct IndexHeader {
  std::array<char, 8> magic = kMagic;
  std::uint32_t version = kVersion;
  std::uint32_t entry_bytes = sizeof(IndexEntry);
  std::uint64_t count = 0;
  std::uint64_t input_bytes = 0;  // so that an input that has changed is seen
};
static_assert(sizeof(IndexHeader) == 32);

template <typename T>
std::string_view bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(T)};
}

std::uint32_t saturated(std::uint64_t value) {
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(value, std::numeric_limits<std::uint32_t>::max()));
}

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The whole number behind "max_tokens": in `text`; empty where the field, or its value, is not
// there. In JSON a quote inside a string is written \", so the name is hardly ever found elsewhere.
std::optional<std::uint32_t> find_bound(std::string_view text) {
  const void* found = ::memmem(text.data(), text.size(), kBoundField.data(), kBoundField.size());
  if (found == nullptr) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(static_cast<const char*>(found) - text.data()) +
                     kBoundField.size());
  const auto skip_blanks = [&] {
    text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  };
  skip_blanks();
  if (!text.starts_with(':')) return std::nullopt;
  text.remove_prefix(1);
  skip_blanks();
  std::uint64_t value = 0;
  for (; !text.empty() && is_digit(text[0]); text.remove_prefix(1)) {
    value = saturated(value * 10 + static_cast<std::uint64_t>(text[0] - '0'));
  }
  const bool is_whole = text.empty() || text[0] == ',' || text[0] == '}' || is_blank(text[0]);
  return is_whole ? static_cast<std::uint32_t>(value) : 0;
}

// The line that is being read; lines may span reads of the input.
class LineScanner {
 public:
  LineScanner(OutputFile& out, std::uint64_t limit)
      : out_(out), limit_(limit), hash_(XXH3_createState(), XXH3_freeState) {
    if (!hash_) throw std::bad_alloc();
    XXH3_64bits_reset(hash_.get());
  }

  bool full() const { return count_ == limit_; }

  void skip(std::uint64_t bytes) { begin_ += bytes; }

  void feed(std::string_view bytes) {
    while (!bytes.empty() && !full()) {
      const void* found = std::memchr(bytes.data(), '\n', bytes.size());
      if (found == nullptr) return grow(bytes);
      const auto length = static_cast<std::size_t>(static_cast<const char*>(found) - bytes.data());
      grow(bytes.substr(0, length));
      end_line();
      bytes.remove_prefix(length + 1);
    }
  }

  std::uint64_t finish() {
    if (length_ > 0 && !full()) end_line();
    return count_;
  }

 private:
  void grow(std::string_view part) {
    if (part.empty()) return;
    if (prefix_bytes_ < kPrefixBytes) {
      const std::size_t taken = std::min(part.size(), kPrefixBytes - prefix_bytes_);
      std::memcpy(prefix_.data() + prefix_bytes_, part.data(), taken);
      prefix_bytes_ += taken;
    }
    look_for_bound(part);
    if (blank_) blank_ = std::all_of(part.begin(), part.end(), is_blank);
    // A last carriage return is not part of the line.
    if (ends_in_return_) XXH3_64bits_update(hash_.get(), "\r", 1);
    ends_in_return_ = part.back() == '\r';
    XXH3_64bits_update(hash_.get(), part.data(), part.size() - (ends_in_return_ ? 1 : 0));
    length_ += part.size();
  }

  // The field may lie across two parts: what both hold of it is seen together.
  void look_for_bound(std::string_view part) {
    if (!end_of_last_.empty()) {
      end_of_last_ += part.substr(0, kBoundBytes);
      bound_ = find_bound(end_of_last_).value_or(bound_);
    }
    bound_ = find_bound(part).value_or(bound_);
    end_of_last_ = part.substr(part.size() - std::min(part.size(), kBoundBytes));
  }

  void end_line() {
    if (!blank_) {
      const std::uint64_t length = length_ - (ends_in_return_ ? 1 : 0);
      IndexEntry entry;
      entry.offset = begin_;
      entry.length = saturated(length);
      entry.line = saturated(line_);
      entry.prefix_hash = static_cast<std::uint32_t>(
          XXH3_64bits(prefix_.data(), std::min<std::uint64_t>(prefix_bytes_, length)));
      entry.max_tokens = bound_;
      entry.hash = XXH3_64bits_digest(hash_.get());
      out_.append(bytes_of(entry));
      ++count_;
    }
    XXH3_64bits_reset(hash_.get());
    begin_ += length_ + 1;
    ++line_;
    length_ = 0;
    prefix_bytes_ = 0;
    bound_ = 0;
    end_of_last_.clear();
    blank_ = true;
    ends_in_return_ = false;
  }

  OutputFile& out_;
  std::uint64_t limit_;
  std::uint64_t begin_ = 0;  // of the line, in the input
  std::uint64_t line_ = 1;
  std::uint64_t count_ = 0;
  std::uint64_t length_ = 0;
  std::array<char, kPrefixBytes> prefix_{};
  std::size_t prefix_bytes_ = 0;
  std::uint32_t bound_ = 0;
  std::string end_of_last_;  // part of the line; empty at its beginning
  bool blank_ = true;
  bool ends_in_return_ = false;
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> hash_;  // of the line so far
};

// Inputs that would otherwise fail record by record, each with an odd message.
void refuse_foreign(const std::string& path, std::string_view start) {
  const auto starts_with = [&](std::string_view magic) { return start.starts_with(magic); };
  if (starts_with("\x1f\x8b")) {
    throw FileError(path, "is compressed (gzip); decompress it first");
  }
  if (starts_with("\x28\xb5\x2f\xfd")) {
    throw FileError(path, "is compressed (zstd); decompress it first");
  }
  if (starts_with("\xff\xfe") || starts_with("\xfe\xff")) {
    throw FileError(path, "is UTF-16 text; convert it to UTF-8 first");
  }
}

// What shells make of <(command) cannot be read twice; File's own message would not help.
void refuse_pipe(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && S_ISFIFO(status.st_mode)) {
    throw FileError(path, "is a pipe; pipe it into standard input and name the input \"-\"");
  }
}

}  // namespace

std::uint64_t build_index(const std::string& input_path, const std::string& index_path,
                          std::uint64_t limit,
                          const std::function<void(std::uint64_t bytes)>& on_bytes) {
  refuse_pipe(input_path);
  const File input(input_path);
  const std::uint64_t size = input.size_bytes();
  OutputFile out(index_path);
  IndexHeader header;
  header.input_bytes = size;
  out.append(bytes_of(header));

  LineScanner scanner(out, limit);
  std::string buffer(static_cast<std::size_t>(std::min<std::uint64_t>(size, kReadBytes)), '\0');
  for (std::uint64_t offset = 0; offset < size && !scanner.full();) {
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(size - offset, kReadBytes));
    input.read_at(offset, std::as_writable_bytes(std::span(buffer.data(), count)));
    std::string_view bytes(buffer.data(), count);
    if (offset == 0) {
      refuse_foreign(input_path, bytes);
      if (bytes.starts_with(kByteOrderMark)) {
        bytes.remove_prefix(kByteOrderMark.size());
        scanner.skip(kByteOrderMark.size());
      }
    }
    scanner.feed(bytes);
    offset += count;
    if (on_bytes) on_bytes(offset);
  }
  header.count = scanner.finish();
  out.write_at(0, bytes_of(header));
  out.commit();
  return header.count;
}

void spool_standard_input(const std::string& path, std::uint64_t limit,
                          const std::function<void(std::uint64_t bytes)>& on_bytes) {
  OutputFile out(path);
  std::uint64_t done = 0;
  std::string buffer(1u << 20, '\0');
  bool blank = true;  // the line at hand, so far
  while (limit > 0) {
    // What poll cannot tell, read will.
    pollfd input{STDIN_FILENO, POLLIN, 0};
    while (on_bytes && ::poll(&input, 1, kTellMilliseconds) == 0) on_bytes(done);
    const ssize_t count = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_errno("standard input", "read");
    if (count == 0) break;
    const std::string_view bytes(buffer.data(), static_cast<std::size_t>(count));
    std::size_t used = 0;
    while (used < bytes.size() && limit > 0) {
      const char c = bytes[used++];
      if (c == '\n' && !blank) --limit;
      blank = c == '\n' || (blank && is_blank(c));
    }
    out.append(bytes.substr(0, used));
    done += bytes.size();
    if (on_bytes) on_bytes(done);
  }
  out.commit();
}

struct IndexedInput::State {
  File input;
  File index;
  std::uint64_t input_bytes = 0;
  std::uint64_t count = 0;
};

IndexedInput::IndexedInput(const std::string& input_path, const std::string& index_path)
    : state_(std::make_unique<State>()) {
  state_->input = File(input_path);
  state_->index = File(index_path);
  state_->input_bytes = state_->input.size_bytes();
  const std::uint64_t index_bytes = state_->index.size_bytes();
  IndexHeader header;
  if (index_bytes < sizeof(header)) throw FileError(index_path, "is too short for an index");
  state_->index.read_at(0, std::as_writable_bytes(std::span(&header, 1)));
  if (header.magic != kMagic) throw FileError(index_path, "is not an index of records");
  if (header.version != kVersion || header.entry_bytes != sizeof(IndexEntry)) {
    throw FileError(
        index_path,
        fmt::format("has index version {}, this program reads {}: go on with the program that "
                    "made it, or start over",
                    header.version, kVersion));
  }
  if (header.count != (index_bytes - sizeof(header)) / sizeof(IndexEntry) ||
      (index_bytes - sizeof(header)) % sizeof(IndexEntry) != 0) {
    throw FileError(index_path, fmt::format("says {} records but holds {} bytes of entries",
                                            header.count, index_bytes - sizeof(header)));
  }
  if (header.input_bytes != state_->input_bytes) {
    throw FileError(input_path,
                    fmt::format("has {} bytes but had {} when it was indexed: it has changed",
                                state_->input_bytes, header.input_bytes));
  }
  state_->count = header.count;
}

IndexedInput::~IndexedInput() = default;
IndexedInput::IndexedInput(IndexedInput&&) noexcept = default;
IndexedInput& IndexedInput::operator=(IndexedInput&&) noexcept = default;

std::uint64_t IndexedInput::size() const { return state_->count; }

std::vector<IndexEntry> IndexedInput::entries(std::uint64_t first, std::uint64_t count) const {
  if (first > state_->count || count > state_->count - first) {
    throw FileError(state_->index.path(), fmt::format("records {} to {} are asked for, it has {}",
                                                      first, first + count, state_->count));
  }
  std::vector<IndexEntry> entries(count);
  if (count > 0) {
    state_->index.read_at(sizeof(IndexHeader) + first * sizeof(IndexEntry),
                          std::as_writable_bytes(std::span(entries)));
  }
  return entries;
}

std::string IndexedInput::line(const IndexEntry& entry) const {
  if (entry.offset > state_->input_bytes || entry.length > state_->input_bytes - entry.offset) {
    throw FileError(state_->index.path(),
                    fmt::format("places line {} beyond the input's end", entry.line));
  }
  if (entry.length > kMaxLineBytes) {
    const bool is_saturated = entry.length == std::numeric_limits<std::uint32_t>::max();
    throw RecordError(fmt::format("the line has {}{} bytes; a record may have {} (64 MiB)",
                                  is_saturated ? "at least " : "", entry.length, kMaxLineBytes));
  }
  std::string line(entry.length, '\0');
  if (!line.empty()) {
    state_->input.read_at(entry.offset, std::as_writable_bytes(std::span(line)));
  }
  if (XXH3_64bits(line.data(), line.size()) != entry.hash) {
    throw FileError(state_->input.path(),
                    fmt::format("line {} has changed since the input was indexed; put the old "
                                "content back and run the same command again, or start over with "
                                "--fresh",
                                entry.line));
  }
  return line;
}

InputFormat detect_format(const std::string& path, std::string_view shown) {
  const auto ends_with_any = [&](std::initializer_list<std::string_view> ends) {
    return std::any_of(ends.begin(), ends.end(),
                       [&](std::string_view end) { return path.ends_with(end); });
  };
  if (ends_with_any({".txt"})) return InputFormat::text;
  refuse_pipe(path);
  const File file(path);
  std::string start(std::min<std::uint64_t>(file.size_bytes(), kFormatBytes), '\0');
  if (!start.empty()) file.read_at(0, std::as_writable_bytes(std::span(start)));
  std::istringstream lines(start.starts_with(kByteOrderMark) ? start.substr(kByteOrderMark.size())
                                                             : start);
  std::size_t objects = 0;
  std::size_t others = 0;
  char first = 0;
  for (std::string line; std::getline(lines, line);) {
    const std::size_t at = line.find_first_not_of(" \t\r");
    if (at == std::string::npos) continue;
    if (first == 0) first = line[at];
    ++(line[at] == '{' ? objects : others);
  }
  if (ends_with_any({".jsonl", ".ndjson", ".json"})) {
    if (first == '[') throw FileError(shown, "is a JSON list; write one record a line");
    return InputFormat::jsonl;
  }
  if (objects > 0 && others > 0) {
    throw FileError(shown,
                    "is JSONL or text? Some of its first lines begin with { and some do not; say "
                    "--input-format jsonl, for error rows where they do not, or text");
  }
  return objects > 0 ? InputFormat::jsonl : InputFormat::text;
}

}  // namespace penstock::io
