#include <fmt/format.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <list>
#include <optional>
#include <span>
#include <stdexcept>
#include <unordered_map>

#include "io/error.hpp"
#include "io/file.hpp"
#include "io/journal.hpp"
#include "io/journal_row.hpp"
#include "io/output_file.hpp"

namespace penstock::io {
namespace {

// Where a record's journal line lies. 16 bytes in the scratch file; zeros: not there.
struct Place {
  std::uint64_t offset = 0;
  std::uint32_t length = 0;  // of the line, without newline
  std::uint32_t journal_plus_1 = 0;
};
static_assert(sizeof(Place) == 16);

// A table of places in a scratch file that goes away by itself. Rows arrive window by window of
// the dataset, so a few windows of the table in memory catch nearly all look-ups.
class PlaceTable {
 public:
  PlaceTable(const std::string& folder, std::uint64_t records)
      : path_(folder + "/merge.XXXXXX"), records_(records) {
    if (records > kMaxRecords) throw FileError(path_, fmt::format("{} records", records));
    descriptor_ = ::mkstemp(path_.data());
    if (descriptor_ < 0) throw_errno(path_, "create a scratch file");
    ::unlink(path_.c_str());
    if (::ftruncate(descriptor_, static_cast<off_t>(records * sizeof(Place))) != 0) {
      const int error = errno;
      ::close(descriptor_);
      errno = error;
      throw_errno(path_, "size a scratch file");
    }
  }
  ~PlaceTable() { ::close(descriptor_); }
  PlaceTable(const PlaceTable&) = delete;
  PlaceTable& operator=(const PlaceTable&) = delete;

  Place& operator[](std::uint64_t record) {
    Window& window = window_of(record / kWindowRecords);
    return window.places[record % kWindowRecords];
  }

 private:
  static constexpr std::uint64_t kWindowRecords = 65536;  // 1 MiB
  static constexpr std::size_t kWindows = 16;
  static constexpr std::uint64_t kMaxRecords = std::uint64_t{1} << 48;

  struct Window {
    std::uint64_t number = 0;
    std::vector<Place> places;
  };

  Window& window_of(std::uint64_t number) {
    if (!windows_.empty() && windows_.front().number == number) return windows_.front();
    const auto found = by_number_.find(number);
    if (found != by_number_.end()) {
      windows_.splice(windows_.begin(), windows_, found->second);
      return windows_.front();
    }
    if (windows_.size() == kWindows) {
      const Window& oldest = windows_.back();
      write_all_at(descriptor_, oldest.number * kWindowRecords * sizeof(Place),
                   {reinterpret_cast<const char*>(oldest.places.data()),
                    oldest.places.size() * sizeof(Place)},
                   path_);
      by_number_.erase(oldest.number);
      windows_.pop_back();
    }
    windows_.push_front(load(number));
    by_number_[number] = windows_.begin();
    return windows_.front();
  }

  Window load(std::uint64_t number) const {
    Window window;
    window.number = number;
    const std::uint64_t first = number * kWindowRecords;
    window.places.resize(std::min(kWindowRecords, records_ - first));
    auto bytes = std::as_writable_bytes(std::span(window.places));
    std::uint64_t offset = first * sizeof(Place);
    while (!bytes.empty()) {
      const ssize_t count =
          ::pread(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw_errno(path_, "read the scratch file");
      if (count == 0) throw FileError(path_, "the scratch file was cut");
      bytes = bytes.subspan(static_cast<std::size_t>(count));
      offset += static_cast<std::uint64_t>(count);
    }
    return window;
  }

  std::string path_;
  std::uint64_t records_ = 0;
  int descriptor_ = -1;
  std::list<Window> windows_;  // latest first
  std::unordered_map<std::uint64_t, std::list<Window>::iterator> by_number_;
};

// Counts rows, and tells of them now and then.
class RowCounter {
 public:
  explicit RowCounter(const std::function<void(std::uint64_t rows)>& on_rows) : on_rows_(on_rows) {}

  void count() {
    if (++rows_ % kRows == 0 && on_rows_) on_rows_(rows_);
  }

 private:
  static constexpr std::uint64_t kRows = 1024;
  const std::function<void(std::uint64_t rows)>& on_rows_;
  std::uint64_t rows_ = 0;
};

// The records of a job and where their rows lie.
struct Rows {
  std::uint64_t first = 0;
  std::uint64_t end = 0;
  PlaceTable places;
  MergeCounts counts;
};

// Notes where each row of one journal lies.
void note_rows(const std::string& path, std::uint32_t journal_plus_1, Rows& rows,
               RowCounter& counter) {
  JournalReader reader(path);
  JournalRow row;
  while (reader.next(row)) {
    counter.count();
    require_in_range(path, row, rows.first, rows.end);
    if (row.partial) continue;
    Place& place = rows.places[row.index - rows.first];
    if (place.journal_plus_1 != 0) {
      ++rows.counts.duplicates;
    } else {
      place = {row.offset, row.length, journal_plus_1};
      ++rows.counts.rows;
    }
  }
  rows.counts.damaged_lines += reader.damaged_lines();
}

std::string names_of(const std::vector<std::string>& journals) {
  if (journals.empty()) return "no journal";
  return journals.size() == 1 ? journals[0]
                              : fmt::format("{} and {} more", journals[0], journals.size() - 1);
}

}  // namespace

MergeCounts merge_journals(const std::vector<std::string>& journals, std::uint64_t first,
                           std::uint64_t end, const std::string& output,
                           const std::string& scratch_folder,
                           const std::function<void(std::uint64_t rows)>& on_rows,
                           const std::function<void()>& before_commit) {
  if (end < first) {
    throw std::invalid_argument(fmt::format("a merge of the records {} to {}", first, end));
  }
  Rows rows{first, end, PlaceTable(scratch_folder, end - first), {}};
  RowCounter counter(on_rows);
  std::vector<File> files;
  files.reserve(journals.size());
  for (const std::string& journal : journals) {
    files.emplace_back(journal);
    note_rows(journal, static_cast<std::uint32_t>(files.size()), rows, counter);
  }

  OutputFile out(output);
  std::string line;
  for (std::uint64_t record = first; record < end; ++record) {
    const Place& place = rows.places[record - first];
    if (place.journal_plus_1 == 0) {
      throw FileError(
          names_of(journals),
          fmt::format("record {} has no row ({} of {} records have one); run the same command "
                      "again, which answers it",
                      record, rows.counts.rows, end - first));
    }
    const File& file = files[place.journal_plus_1 - 1];
    line.resize(place.length);
    file.read_at(place.offset, std::as_writable_bytes(std::span(line)));
    const std::optional<std::string> row = from_journal_line(line);
    if (!row) {
      throw FileError(file.path(), fmt::format("the row of record {} at byte {} is damaged", record,
                                               place.offset));
    }
    out.append(*row);
    out.append("\n");
    counter.count();
  }
  if (before_commit) before_commit();
  out.commit();
  return rows.counts;
}

}  // namespace penstock::io
