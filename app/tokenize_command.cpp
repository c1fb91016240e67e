#include <fmt/format.h>
#include <fmt/ranges.h>

#include <fstream>
#include <iostream>
#include <sstream>

#include "app/commands.hpp"
#include "app/options.hpp"
#include "io/error.hpp"
#include "jobs/launch.hpp"
#include "model/error.hpp"
#include "model/text/tokenizer.hpp"
#include "model/text/tokenizer_files.hpp"

namespace penstock::app {
namespace {

std::vector<std::int32_t> parse_ids(const std::string& line, std::uint64_t number,
                                    const model::Tokenizer& tokenizer) {
  std::vector<std::int32_t> ids;
  std::istringstream in(line);
  std::int32_t id = 0;
  while (in >> id) ids.push_back(id);
  if (!in.eof()) {
    throw jobs::UsageError(fmt::format("line {}: not a list of token ids", number));
  }
  for (const std::int32_t i : ids) {
    // A vocabulary may have holes, and a token that is empty.
    if (!tokenizer.id_to_token(i).empty() || tokenizer.token_to_id("") == i) continue;
    throw jobs::UsageError(
        fmt::format("line {}: the vocabulary has no token {}; its ids go from 0 to {}", number, i,
                    static_cast<std::int64_t>(tokenizer.vocab_size()) - 1));
  }
  return ids;
}

model::Tokenizer open_tokenizer(const std::string& path, const std::string& json) {
  try {
    return model::Tokenizer::from_json(json);
  } catch (const model::ModelError& error) {
    throw io::FileError(path, error.what());
  }
}

}  // namespace

int tokenize_command(Invocation& invocation) {
  OptionParser parser("penstock tokenize MODEL [options] < TEXT",
                      "Turns each line of standard input into token ids, or ids into text. MODEL "
                      "is a checkpoint,\na Hugging Face folder, a tokenizer.json or a GGUF file "
                      "(also one that holds a vocabulary only).\n",
                      {"MODEL"});
  auto group = parser.group("Tokens");
  group("decode", flag(), "lines of ids in, text out");
  group("no-special", flag(), "encode: no BOS; decode: leave special tokens out");
  group("input", po::value<std::string>()->value_name("FILE"), "instead of standard input");
  po::variables_map values;
  if (!parser.parse(invocation.arguments, values)) return 0;

  const auto files = model::read_tokenizer(values["MODEL"].as<std::string>());
  const model::Tokenizer tokenizer =
      open_tokenizer(values["MODEL"].as<std::string>(), files.tokenizer_json);
  const auto path = given<std::string>(values, "input");
  std::ifstream file;
  if (path) {
    file.open(*path, std::ios::binary);
    if (!file) throw io::FileError(*path, "cannot be read");
  }
  std::istream& in = file.is_open() ? file : std::cin;
  std::ios::sync_with_stdio(false);
  const bool decode = is_on(values, "decode");
  const bool special = !is_on(values, "no-special");
  std::string line;
  // Output that cannot be written ends it too; main() says so.
  for (std::uint64_t number = 1; std::cout && std::getline(in, line); ++number) {
    if (decode) {
      std::cout << tokenizer.decode(parse_ids(line, number, tokenizer), !special) << "\n";
    } else {
      std::cout << fmt::format("{}\n", fmt::join(tokenizer.encode(line, special), " "));
    }
  }
  if (in.bad()) throw io::FileError(path.value_or("standard input"), "cannot be read: a folder?");
  return 0;
}

}  // namespace penstock::app
