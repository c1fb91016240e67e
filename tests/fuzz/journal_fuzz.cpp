#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "io/journal.hpp"
#include "io/journal_row.hpp"
#include "tests/fuzz/memory_file.hpp"

namespace {

using namespace penstock;

// Checks that each row lies where it is said to.
std::vector<std::uint64_t> read_rows(const std::string& path, std::string_view content) {
  std::vector<std::uint64_t> indices;
  io::JournalReader reader(path);
  io::JournalRow row;
  std::uint64_t end = 0;
  while (reader.next(row)) {
    if (row.offset < end || row.offset > content.size()) std::abort();
    end = row.offset + row.length + 1;
    if (end > content.size() || content[end - 1] != '\n') std::abort();
    const auto line = content.substr(row.offset, row.length);
    const std::string text = row.partial ? io::to_partial_row(row.index, row.tokens) : row.row;
    if (io::from_journal_line(line) != text) std::abort();
    if (!row.partial && io::row_index(row.row) != row.index) std::abort();
    indices.push_back(row.index);
  }
  if (reader.next(row)) std::abort();
  return indices;
}

// Checksums keep most mutations from getting far, so lines are also taken for rows.
void check_row(std::string_view row) {
  try {
    const std::string line = io::to_journal_line(row);
    if (io::from_journal_line(std::string_view(line).substr(0, line.size() - 1)) != row) {
      std::abort();
    }
  } catch (const std::invalid_argument&) {
  }
  (void)io::row_index(row);
  std::vector<std::int32_t> tokens;
  const auto index = io::from_partial_row(row, tokens);
  if (index && io::to_partial_row(*index, tokens) != row) std::abort();
}

}  // namespace

// A journal. Appending to it must keep what was readable, and be readable itself.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static fuzz::MemoryFile file;
  file.assign(data, size);
  const std::string content(reinterpret_cast<const char*>(data), size);
  check_row(content);
  for (std::size_t begin = 0; begin < size;) {
    const std::size_t end = std::min(content.find('\n', begin), size);
    check_row(std::string_view(content).substr(begin, end - begin));
    begin = end + 1;
  }

  std::vector<std::uint64_t> rows = read_rows(file.path(), content);
  {
    io::JournalWriter writer(file.path());
    writer.append(7, R"({"index":7})");
    writer.append_partial(8, std::vector<std::int32_t>{1, 2});
  }
  rows.push_back(7);
  rows.push_back(8);
  const std::size_t newline = content.rfind('\n');
  const std::string kept = newline == std::string::npos ? "" : content.substr(0, newline + 1);
  const std::string appended =
      io::to_journal_line(R"({"index":7})") + io::to_journal_line(R"({"partial":[1,2],"index":8})");
  if (read_rows(file.path(), kept + appended) != rows) std::abort();
  return 0;
}
