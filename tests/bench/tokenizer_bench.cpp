// MB/s of Tokenizer::encode on one thread, over the lines of text files; in seconds of the
// processor, so that other work on the machine does not count.
// usage: tokenizer_bench MODEL FILE...    MODEL: a tokenizer.json or a GGUF
// tokenizer_bench.py runs it beside the tokenizers library on the same lines.
#include <fmt/format.h>

#include <ctime>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "io/gguf.hpp"
#include "model/text/gguf_tokenizer.hpp"
#include "model/text/tokenizer.hpp"

namespace {

using penstock::model::Tokenizer;

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  std::ostringstream text;
  text << in.rdbuf();
  return std::move(text).str();
}

Tokenizer load(const std::string& path) {
  if (!penstock::io::is_gguf(path)) return Tokenizer::from_json(read_file(path));
  const penstock::io::GgufFile file(path);
  return Tokenizer::from_json(penstock::model::gguf_tokenizer(file).tokenizer_json);
}

double processor_seconds() {
  return static_cast<double>(std::clock()) / static_cast<double>(CLOCKS_PER_SEC);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: tokenizer_bench MODEL FILE...\n";
    return 1;
  }
  try {
    const double load_start = processor_seconds();
    const Tokenizer tokenizer = load(argv[1]);
    fmt::print("load {:.2f} s\n", processor_seconds() - load_start);
    std::vector<std::string> lines;
    std::size_t size_bytes = 0;
    for (int i = 2; i < argc; ++i) {
      std::istringstream text(read_file(argv[i]));
      for (std::string line; std::getline(text, line);) {
        line += '\n';
        size_bytes += line.size();
        lines.push_back(std::move(line));
      }
    }
    for (int repeat = 0; repeat < 3; ++repeat) {
      const double start = processor_seconds();
      std::size_t count = 0;
      for (const std::string& line : lines) count += tokenizer.encode(line, false).size();
      const double seconds = processor_seconds() - start;
      fmt::print("{:.1f} MB/s  ({} lines, {} bytes, {} tokens, {:.3f} s)\n",
                 static_cast<double>(size_bytes) / seconds / 1e6, lines.size(), size_bytes, count,
                 seconds);
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
