#include <algorithm>
#include <array>
#include <memory>
#include <string_view>

#include "io/error.hpp"
#include "io/gguf.hpp"
#include "tests/fuzz/memory_file.hpp"
#include "tests/fuzz/read_tensors.hpp"

namespace {

bool is_readable(std::string_view dtype) {
  constexpr std::array<std::string_view, 6> kReadable = {"F32",  "F16",  "BF16",
                                                         "Q8_0", "Q4_0", "Q4_1"};
  return std::find(kReadable.begin(), kReadable.end(), dtype) != kReadable.end();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static penstock::fuzz::MemoryFile file;
  file.assign(data, size);
  std::unique_ptr<penstock::io::GgufFile> source;
  try {
    source = std::make_unique<penstock::io::GgufFile>(file.path());
  } catch (const penstock::io::FileError&) {
    return 0;
  }
  penstock::fuzz::read_tensors(*source, is_readable);
  return 0;
}
