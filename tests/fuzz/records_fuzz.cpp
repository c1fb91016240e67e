#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "io/records.hpp"
#include "io/utf8.hpp"

// The first byte chooses the format, the rest is a line.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace penstock::io;
  if (size == 0) return 0;
  const std::string_view line(reinterpret_cast<const char*>(data + 1), size - 1);
  const InputFormat format = data[0] == 't' ? InputFormat::text : InputFormat::jsonl;
  try {
    const Record record = parse_record(line, format);
    // What was accepted can be copied and written out again.
    const Record copy = record;
    if (copy.id.dump() != record.id.dump() || !copy.overrides.is_object()) std::abort();
    if (!is_valid_utf8(copy.overrides.dump())) std::abort();
    if (const auto* prompt = std::get_if<std::string>(&copy.input)) {
      if (prompt->empty() || !is_valid_utf8(*prompt)) std::abort();
    }
  } catch (const RecordError& error) {
    if (!is_valid_utf8(error.what()) || std::string_view(error.what()).size() > 4096) std::abort();
  }
  return 0;
}
