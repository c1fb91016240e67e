#include "io/journal.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <span>
#include <stdexcept>
#include <utility>

#include "io/error.hpp"
#include "io/file.hpp"
#include "io/journal_row.hpp"
#include "io/output_file.hpp"

namespace penstock::io {
namespace {

constexpr std::size_t kWriteBytes = 1u << 20;
constexpr std::size_t kReadBytes = 1u << 20;

// Where the whole rows of a journal end: a last line that is torn or damaged is not counted, so
// that what is appended next does not stick to it.
std::uint64_t end_of_whole_rows(const std::string& path) {
  const File file(path);
  const std::uint64_t size = file.size_bytes();
  std::string tail;  // the file's last bytes, from before the last line
  std::uint64_t begin = size;
  std::size_t newline = std::string::npos;  // before the last line, in tail
  while (begin > 0 && newline == std::string::npos) {
    if (tail.size() > kMaxRowBytes) throw FileError(path, "ends in a line too long for a row");
    const std::uint64_t count = std::min<std::uint64_t>(begin, kReadBytes);
    std::string part(static_cast<std::size_t>(count), '\0');
    begin -= count;
    file.read_at(begin, std::as_writable_bytes(std::span(part)));
    tail.insert(0, part);
    if (tail.size() >= 2) newline = tail.rfind('\n', tail.size() - 2);
  }
  const std::size_t last = newline == std::string::npos ? 0 : newline + 1;
  std::string_view line = std::string_view(tail).substr(last);
  if (!line.ends_with('\n')) return begin + last;
  const std::optional<std::string> row = from_journal_line(line.substr(0, line.size() - 1));
  return row && row_index(*row) ? size : begin + last;
}

}  // namespace

struct JournalWriter::State {
  std::string path;
  int descriptor = -1;
  std::uint64_t written_bytes = 0;  // whole rows in the file
  std::string buffer;

  ~State() {
    if (descriptor >= 0) ::close(descriptor);
  }

  void flush() {
    if (buffer.empty()) return;
    try {
      write_all(descriptor, buffer, path);
    } catch (const FileError&) {
      // Half a row must not lie in front of the next one. If this fails too, the reader still
      // takes the torn row for the end.
      [[maybe_unused]] const int result =
          ::ftruncate(descriptor, static_cast<off_t>(written_bytes));
      throw;
    }
    written_bytes += buffer.size();
    buffer.clear();
  }
};

JournalWriter::JournalWriter(const std::string& path) : state_(std::make_unique<State>()) {
  state_->path = path;
  state_->descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (state_->descriptor < 0) throw_errno(path, "open");
  struct stat status {};
  if (::fstat(state_->descriptor, &status) != 0) throw_errno(path, "look at");
  if (status.st_size > 0) {
    state_->written_bytes = end_of_whole_rows(path);
    if (state_->written_bytes < static_cast<std::uint64_t>(status.st_size) &&
        ::ftruncate(state_->descriptor, static_cast<off_t>(state_->written_bytes)) != 0) {
      throw_errno(path, "cut off a torn row");
    }
  }
}

JournalWriter::~JournalWriter() {
  if (state_ == nullptr) return;
  try {
    state_->flush();
  } catch (const FileError&) {  // whoever must know calls flush() or sync()
  }
}

JournalWriter::JournalWriter(JournalWriter&&) noexcept = default;
JournalWriter& JournalWriter::operator=(JournalWriter&& other) noexcept {
  if (this != &other) {
    const JournalWriter old(std::move(*this));  // flushes what was ours
    state_ = std::move(other.state_);
  }
  return *this;
}

void JournalWriter::append(std::uint64_t index, std::string_view row) {
  if (row.size() > kMaxRowBytes) {
    throw FileError(state_->path, fmt::format("the row of record {} has {} bytes, the most is {}",
                                              index, row.size(), kMaxRowBytes));
  }
  if (row_index(row) != index) {
    throw std::invalid_argument(fmt::format("the row of record {} has another index", index));
  }
  const std::string line = to_journal_line(row);
  if (!state_->buffer.empty() && state_->buffer.size() + line.size() > kWriteBytes) {
    state_->flush();
  }
  state_->buffer += line;
}

void JournalWriter::flush() { state_->flush(); }

void JournalWriter::sync() {
  state_->flush();
  if (::fdatasync(state_->descriptor) != 0) throw_errno(state_->path, "sync");
}

struct JournalReader::State {
  File file;
  std::uint64_t size = 0;
  std::uint64_t offset = 0;  // of the bytes not read yet
  std::string buffer;
  std::size_t begin = 0;  // of the next line, in buffer
  std::uint64_t line = 0;
  std::uint64_t valid_bytes = 0;
  bool ended = false;

  // The next whole line without its newline; empty at the end and for a line without newline.
  std::optional<std::string_view> next_line() {
    std::size_t searched = begin;
    while (true) {
      const std::size_t newline = buffer.find('\n', searched);
      if (newline != std::string::npos) {
        const std::string_view text = std::string_view(buffer).substr(begin, newline - begin);
        begin = newline + 1;
        ++line;
        return text;
      }
      if (offset == size) return std::nullopt;
      if (buffer.size() - begin > kMaxRowBytes) {
        throw FileError(file.path(), fmt::format("line {} is too long for a row", line + 1));
      }
      buffer.erase(0, begin);
      begin = 0;
      searched = buffer.size();
      const auto count = static_cast<std::size_t>(
          std::min<std::uint64_t>(size - offset, std::max(kReadBytes, buffer.size())));
      buffer.resize(searched + count);
      file.read_at(offset, std::as_writable_bytes(std::span(buffer).subspan(searched)));
      offset += count;
    }
  }

  bool at_end() const { return offset == size && begin == buffer.size(); }
};

JournalReader::JournalReader(const std::string& path) : state_(std::make_unique<State>()) {
  state_->file = File(path);
  state_->size = state_->file.size_bytes();
}

JournalReader::~JournalReader() = default;

bool JournalReader::next(std::uint64_t& index, std::string& row) {
  State& state = *state_;
  if (state.ended) return false;
  const std::optional<std::string_view> line = state.next_line();
  if (line) {
    std::optional<std::string> found = from_journal_line(*line);
    const std::optional<std::uint64_t> number = found ? row_index(*found) : std::nullopt;
    if (number) {
      state.valid_bytes += line->size() + 1;
      index = *number;
      row = std::move(*found);
      return true;
    }
    if (!state.at_end()) {
      throw FileError(state.file.path(),
                      found ? fmt::format("line {} has no record index", state.line)
                            : fmt::format("line {} is damaged: its checksum is wrong", state.line));
    }
  }
  state.ended = true;
  return false;
}

std::uint64_t JournalReader::valid_bytes() const { return state_->valid_bytes; }

}  // namespace penstock::io
