#pragma once

#include <boost/program_options.hpp>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/dtype.hpp"

namespace penstock::app {

namespace po = boost::program_options;

// The options of one command and how they are read: the command line, then --config FILE (INI, the
// same names). Every command has --help and --config.
class OptionParser {
 public:
  // `usage`: "penstock run CKPT --input D --output O"; `positional`: names of the operands.
  OptionParser(std::string usage, std::string description, std::vector<std::string> positional);

  // A group of options, shown under its title. Options are added by calling the result.
  po::options_description_easy_init group(const std::string& title);

  // False: --help was asked for, and printed. Throws jobs::UsageError with a hint at --help.
  bool parse(const std::vector<std::string>& arguments, po::variables_map& values);

 private:
  std::string usage_;
  std::string description_;
  std::vector<std::string> positional_;
  std::deque<po::options_description> groups_;  // addresses stay valid
};

// Whether --help is among the arguments: no ranks are needed to answer that.
bool asks_for_help(const std::vector<std::string>& arguments);

// Throws jobs::UsageError if a command would write over the file, or a file of the folder, that it
// reads.
void refuse_same_file(const std::string& source, const std::string& destination);

// The path that a command which makes one file writes to: DST, or the option `name`, or what that
// is a link to. Throws jobs::UsageError if a file is there already and --force was not given, and
// if what is there is no regular file.
std::string destination(const po::variables_map& values, const char* name = "DST");

// "4G", "512M", "1.5GiB", "1000000": bytes; suffixes are powers of 1024. Throws jobs::UsageError.
std::uint64_t parse_bytes(const std::string& option, const std::string& text);
// "1,8,32": numbers from 1 to 65536. Throws jobs::UsageError.
std::vector<std::uint32_t> parse_counts(const std::string& option, const std::string& text);
// "f32", "bf16", "f16"; "auto" is empty. Throws jobs::UsageError.
std::optional<io::DType> parse_dtype_option(const std::string& option, const std::string& text);

// An option of type std::string as a number; empty: not given. Boost's own conversion to an
// unsigned type makes a huge number of -1. Throws jobs::UsageError.
std::optional<std::uint64_t> parse_unsigned(const po::variables_map& values, const char* name);

// The same, from 1 to `most`; 0: not given.
std::uint64_t long_count_option(const po::variables_map& values, const char* name,
                                std::uint64_t most);
std::uint32_t count_option(const po::variables_map& values, const char* name,
                           std::uint32_t most = UINT32_MAX);

// A switch: --NAME on the command line, NAME = true or false (yes, no, on, off, 1, 0) in a file.
inline auto* flag() { return po::bool_switch(); }
inline bool is_on(const po::variables_map& values, const char* name) {
  return values[name].as<bool>();
}

template <class T>
std::optional<T> given(const po::variables_map& values, const char* name) {
  if (values.count(name) == 0) return std::nullopt;
  return values[name].as<T>();
}

}  // namespace penstock::app
