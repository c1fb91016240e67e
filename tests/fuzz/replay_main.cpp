#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <system_error>
#include <vector>

// Runs a fuzzer's function over a folder of inputs and over seeded mutations of them, so that
// every compiler's build covers it and two runs see the same inputs.

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Bytes = std::vector<std::uint8_t>;

class Mutator {
 public:
  explicit Mutator(const std::vector<Bytes>& seeds) : seeds_(seeds) {}

  Bytes next() {
    Bytes bytes = seeds_[below(seeds_.size())];
    for (std::size_t changes = 1 + below(4); changes > 0; --changes) change(bytes);
    return bytes;
  }

 private:
  // std::uniform_int_distribution differs between libraries; the bias does not matter here.
  std::size_t below(std::size_t limit) { return static_cast<std::size_t>(random_() % limit); }

  void change(Bytes& bytes) {
    if (bytes.empty()) {
      bytes.push_back(static_cast<std::uint8_t>(below(256)));
      return;
    }
    const std::size_t at = below(bytes.size());
    const auto position = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    switch (below(7)) {
      case 0:
        bytes[at] ^= static_cast<std::uint8_t>(1u << below(8));
        return;
      case 1:
        bytes[at] = static_cast<std::uint8_t>(below(256));
        return;
      case 2:
        bytes.resize(at);
        return;
      case 3:
        bytes.erase(position,
                    position + static_cast<std::ptrdiff_t>(
                                   1 + below(std::min<std::size_t>(bytes.size() - at, 16))));
        return;
      case 4: {  // numbers that sizes and counts break at
        constexpr std::array<std::uint64_t, 9> kNumbers = {0,
                                                           1,
                                                           0x7f,
                                                           0xff,
                                                           0x7fffffff,
                                                           0xffffffff,
                                                           std::uint64_t{1} << 60,
                                                           ~std::uint64_t{0} >> 1,
                                                           ~std::uint64_t{0}};
        const std::uint64_t number = kNumbers[below(kNumbers.size())];
        std::memcpy(&bytes[at], &number, std::min<std::size_t>(sizeof number, bytes.size() - at));
        return;
      }
      case 5: {  // a piece of itself once more
        const Bytes piece(position, bytes.begin() + static_cast<std::ptrdiff_t>(
                                                        at + below(bytes.size() - at) + 1));
        bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(below(bytes.size())),
                     piece.begin(), piece.end());
        return;
      }
      default: {  // the rest of another input
        const Bytes& other = seeds_[below(seeds_.size())];
        bytes.resize(at);
        if (!other.empty()) {
          bytes.insert(bytes.end(),
                       other.begin() + static_cast<std::ptrdiff_t>(below(other.size())),
                       other.end());
        }
      }
    }
  }

  const std::vector<Bytes>& seeds_;
  std::mt19937_64 random_{20240607};
};

std::vector<Bytes> load(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  std::error_code missing;  // then there are no inputs, as main() says
  for (const auto& entry : std::filesystem::directory_iterator(folder, missing)) {
    if (entry.is_regular_file()) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<Bytes> inputs = {{}};  // an empty file is an input too
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return inputs;
}

// The input that an exception came from, for a look at it later.
void keep(const Bytes& input) {
  const auto path = std::filesystem::temp_directory_path() / "penstock-fuzz-failure";
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(input.data()), std::ssize(input));
  std::fprintf(stderr, "the input is in %s\n", path.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s CORPUS_FOLDER MUTATIONS\n", argv[0]);
    return 2;
  }
  const std::vector<Bytes> seeds = load(argv[1]);
  if (seeds.size() < 2) {
    std::fprintf(stderr, "%s holds no inputs\n", argv[1]);
    return 1;
  }
  Mutator mutator(seeds);
  const std::uint64_t mutations = std::strtoull(argv[2], nullptr, 10);
  for (std::uint64_t i = 0; i < seeds.size() + mutations; ++i) {
    const Bytes input = i < seeds.size() ? seeds[i] : mutator.next();
    try {
      LLVMFuzzerTestOneInput(input.data(), input.size());
    } catch (const std::exception& error) {
      std::fprintf(stderr, "input %llu: %s\n", static_cast<unsigned long long>(i), error.what());
      keep(input);
      return 1;
    }
  }
  std::printf("%zu inputs and %llu mutations\n", seeds.size(),
              static_cast<unsigned long long>(mutations));
  return 0;
}
