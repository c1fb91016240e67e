// Damages a small sound checkpoint as the input says and reads all of it. Only FileError may come
// out. The input is a list of edits, so that random bytes already make interesting files: HDF5's
// own checksums are made right again, or nothing behind them would ever be reached.

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "io/error.hpp"
#include "tests/io/checkpoint_bytes.hpp"

namespace {

using namespace penstock::io;

// Where the tensors of the base file begin: what lies before is structure.
struct Base {
  std::string bytes;
  std::uint64_t structure_bytes = 0;
};

// HDF5 opens files by their real path, so this one has a name: in memory where that is possible.
class ScratchFile {
 public:
  ScratchFile() {
    const char* const in_memory = "/dev/shm";
    const std::filesystem::path folder = std::filesystem::is_directory(in_memory)
                                             ? std::filesystem::path(in_memory)
                                             : std::filesystem::temp_directory_path();
    path_ = (folder / ("penstock_checkpoint_fuzz_" + std::to_string(::getpid()))).string();
  }
  ~ScratchFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A sound file must be readable, or the fuzzer would see nothing behind the first check.
Base make_base(const std::string& path) {
  test::write_checkpoint(path, test::small_header(), test::small_tensors());
  return {test::read_file(path), CheckpointReader(path).tensors().front().offset};
}

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  bool empty() const { return size_ == 0; }
  std::uint64_t number(std::size_t bytes) {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < bytes && size_ > 0; ++i, ++data_, --size_) {
      value |= std::uint64_t{*data_} << (8 * i);
    }
    return value;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

void edit(std::string& bytes, std::uint64_t structure_bytes, Input& input) {
  const std::uint64_t kind = input.number(1);
  // Behind the signature: other files are refused at once.
  const std::uint64_t at = 8 + input.number(2) % (structure_bytes - 8);
  switch (kind % 8) {
    case 0:
      return test::set_number(bytes, at, input.number(1), 1);
    case 1:
      return test::set_number(bytes, at, input.number(2), 2);
    case 2:
      return test::set_number(bytes, at, input.number(8), 8);
    case 3: {  // sizes and addresses that are edges
      const std::uint64_t edges[] = {0,         1,        UINT64_MAX, UINT64_MAX - 1, bytes.size(),
                                     INT64_MAX, 1u << 31, at};
      return test::set_number(bytes, at, edges[input.number(1) % 8], 8);
    }
    case 4: {  // structure from elsewhere
      const std::uint64_t from = input.number(2) % structure_bytes;
      const std::string piece = bytes.substr(std::min(from, bytes.size()), input.number(1));
      if (at + piece.size() <= bytes.size()) bytes.replace(at, piece.size(), piece);
      return;
    }
    case 5:
      if (at < bytes.size())
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << (input.number(1) % 8)));
      return;
    case 6:
      return bytes.resize(std::min(bytes.size(), input.number(3) % 200000 + 1));
    default: {  // a header message of any object becomes another one, or gets another size
      std::vector<test::RawMessage> all;
      for (std::size_t object = bytes.find("OHDR"); object != std::string::npos;
           object = bytes.find("OHDR", object + 4)) {
        const auto messages = test::walk_object(bytes, object, false);
        all.insert(all.end(), messages.begin(), messages.end());
      }
      if (all.empty()) return;
      const test::RawMessage& message = all[at % all.size()];
      // Type 1, size 2, flags 1, creation order 2 stand before the content.
      const std::uint64_t field = input.number(1) % 16;
      if (field < 2) return test::set_number(bytes, message.offset - 6 + field, input.number(1), 1);
      if (message.size == 0) return;
      return test::set_number(bytes, message.offset + input.number(1) % message.size,
                              input.number(1), 1);
    }
  }
}

void read_all(const std::string& path) {
  try {
    const CheckpointReader reader(path);
    for (const TensorInfo& tensor : reader.tensors()) {
      if (reader.header().no_data) break;
      std::vector<std::byte> out(tensor.size_bytes);
      reader.read(tensor, out);
    }
    if (!reader.header().no_data) reader.verify({});
  } catch (const FileError&) {
    return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const ScratchFile file;
  static const Base base = make_base(file.path());
  std::string bytes = base.bytes;
  Input input(data, size);
  for (int edits = 0; !input.empty() && edits < 6; ++edits) {
    edit(bytes, base.structure_bytes, input);
  }
  test::repair_checksums(bytes);
  test::write_file(file.path(), bytes);
  read_all(file.path());
  return 0;
}
