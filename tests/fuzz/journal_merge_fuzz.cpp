#include <stdlib.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "io/error.hpp"
#include "io/journal.hpp"
#include "io/journal_row.hpp"
#include "io/journal_scan.hpp"
#include "tests/fuzz/memory_file.hpp"

namespace {

using namespace penstock;

// In memory, where there is such a folder: a merge syncs.
class Folder {
 public:
  Folder() {
    std::error_code error;
    const std::filesystem::path memory = "/dev/shm";
    std::string name = std::filesystem::is_directory(memory, error)
                           ? memory.string()
                           : std::filesystem::temp_directory_path().string();
    name += "/penstock_fuzz.XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~Folder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// What the journals hold, the slow way.
struct Expected {
  std::map<std::uint64_t, std::string> rows;
  std::map<std::uint64_t, std::vector<std::int32_t>> partial;
  std::uint64_t duplicates = 0;
  std::uint64_t damaged = 0;
  bool foreign = false;
};

// Each line of the input gets its checksum, unless it begins with '!'.
std::string journal_of(std::string_view text, std::uint64_t first, std::uint64_t end,
                       Expected& expected) {
  std::string journal;
  std::map<std::uint64_t, std::vector<std::int32_t>> latest;  // partial rows of this journal
  while (!text.empty()) {
    const std::size_t size = std::min(text.find('\n'), text.size());
    const std::string_view row = text.substr(0, size);
    text.remove_prefix(std::min(size + 1, text.size()));
    std::string line;
    try {
      if (!row.starts_with('!')) line = io::to_journal_line(row);
    } catch (const std::invalid_argument&) {
    }
    if (line.empty()) {
      if (!row.empty()) ++expected.damaged;
      journal += row;
      journal += '\n';
      continue;
    }
    journal += line;
    std::vector<std::int32_t> tokens;
    const bool partial = io::is_partial_row(row);
    const auto index = partial ? io::from_partial_row(row, tokens) : io::row_index(row);
    if (!index) {
      ++expected.damaged;
    } else if (*index < first || *index >= end) {
      expected.foreign = true;
    } else if (partial) {
      if (!expected.rows.contains(*index)) latest[*index] = tokens;
    } else if (expected.rows.emplace(*index, row).second) {
      expected.partial.erase(*index);
      latest.erase(*index);
    } else {
      ++expected.duplicates;
    }
  }
  for (const auto& [record, ids] : latest) {
    auto& longest = expected.partial[record];
    if (ids.size() > longest.size()) longest = ids;
  }
  return journal;
}

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

// The first and last record, a byte each; then rows of two journals, parted by a zero byte.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  static fuzz::MemoryFile files[2];
  static const Folder folder;
  const std::uint64_t first = std::min(data[0], data[1]);
  const std::uint64_t end = std::uint64_t{std::max(data[0], data[1])} + 1;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const std::size_t cut = std::min(text.find('\0'), text.size());
  Expected expected;
  const std::string_view parts[2] = {text.substr(0, cut),
                                     text.substr(std::min(cut + 1, text.size()))};
  for (int i = 0; i < 2; ++i) {
    const std::string journal = journal_of(parts[i], first, end, expected);
    files[i].assign(reinterpret_cast<const std::uint8_t*>(journal.data()), journal.size());
  }
  const std::vector<std::string> journals = {files[0].path(), files[1].path()};

  std::uint64_t calls = 0;
  std::optional<io::JournalScan> scan;
  try {
    scan = io::scan_journals(journals, first, end, [&](std::string_view) { ++calls; });
  } catch (const io::FileError&) {
  }
  require(scan.has_value() == !expected.foreign);
  if (scan) {
    require(scan->rows == expected.rows.size() && scan->finished.size() == scan->rows);
    require(calls == scan->rows);
    require(scan->duplicates == expected.duplicates && scan->damaged_lines == expected.damaged);
    for (const auto& [record, row] : expected.rows) require(scan->finished.contains(record));
    require(scan->partial.size() == expected.partial.size());
    for (const auto& [record, tokens] : expected.partial) {
      require(scan->partial.at(record) == tokens);
    }
  }

  const std::string output = folder.file("out");
  std::filesystem::remove(output);
  try {
    const io::MergeCounts counts = io::merge_journals(journals, first, end, output, folder.path());
    require(scan && counts.rows == scan->rows && counts.duplicates == scan->duplicates &&
            counts.damaged_lines == scan->damaged_lines && counts.rows == end - first);
    std::string merged;
    for (const auto& [record, row] : expected.rows) merged += row + "\n";
    std::ifstream file(output, std::ios::binary);
    require(std::string(std::istreambuf_iterator<char>(file), {}) == merged);
  } catch (const io::FileError&) {
    require((!scan || scan->rows < end - first) && !std::filesystem::exists(output));
  }
  return 0;
}
