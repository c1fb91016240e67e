#include <cstdint>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "io/error.hpp"
#include "io/journal.hpp"
#include "io/journal_row.hpp"
#include "tests/fuzz/memory_file.hpp"

namespace {

using namespace penstock;

// The rows up to the end or the first damage.
struct Rows {
  std::uint64_t count = 0;
  std::uint64_t valid_bytes = 0;
  bool damaged = false;
};

Rows read_rows(const std::string& path) {
  Rows rows;
  io::JournalReader reader(path);
  std::uint64_t index = 0;
  std::string row;
  try {
    while (reader.next(index, row)) {
      if (io::row_index(row) != index) std::abort();
      ++rows.count;
    }
  } catch (const io::FileError&) {
    rows.damaged = true;
  }
  rows.valid_bytes = reader.valid_bytes();
  return rows;
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
}

}  // namespace

// A journal. Appending to it must keep what was readable, and be readable itself.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static fuzz::MemoryFile file;
  file.assign(data, size);
  check_row({reinterpret_cast<const char*>(data), size});

  const Rows before = read_rows(file.path());
  if (before.valid_bytes > size) std::abort();
  io::JournalWriter(file.path()).append(7, R"({"index":7})");
  const Rows after = read_rows(file.path());
  if (before.damaged) return 0;
  if (after.damaged || after.count != before.count + 1) std::abort();
  return 0;
}
