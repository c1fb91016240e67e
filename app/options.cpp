#include "app/options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <system_error>

#include "io/output_file.hpp"
#include "jobs/launch.hpp"

namespace penstock::app {

using jobs::UsageError;

OptionParser::OptionParser(std::string usage, std::string description,
                           std::vector<std::string> positional)
    : usage_(std::move(usage)),
      description_(std::move(description)),
      positional_(std::move(positional)) {
  group("General")("help,h", "show this text")(
      "config", po::value<std::string>()->value_name("FILE"),
      "read options from an INI file too (NAME = VALUE); the command line wins");
}

po::options_description_easy_init OptionParser::group(const std::string& title) {
  return groups_.emplace_back(title, 100).add_options();
}

bool OptionParser::parse(const std::vector<std::string>& arguments, po::variables_map& values) {
  po::options_description visible;
  for (auto it = groups_.begin() + 1; it != groups_.end(); ++it) visible.add(*it);
  visible.add(groups_.front());
  po::options_description all;
  all.add(visible);
  po::positional_options_description operands;
  for (const std::string& name : positional_) {
    all.add_options()(name.c_str(), po::value<std::string>());
    operands.add(name.c_str(), 1);
  }
  try {
    po::store(
        po::command_line_parser(arguments)
            .options(all)
            .positional(operands)
            .style(po::command_line_style::default_style & ~po::command_line_style::allow_guessing)
            .run(),
        values);
    if (values.count("help") > 0) {
      std::cout << "usage: " << usage_ << "\n\n" << description_ << "\n" << visible;
      return false;
    }
    if (const auto file = given<std::string>(values, "config")) {
      // Without --help and --config, which would be passed over in silence there.
      po::options_description known;
      for (auto it = groups_.begin() + 1; it != groups_.end(); ++it) known.add(*it);
      std::ifstream in(*file);
      if (!in) throw UsageError(*file + ": this --config file cannot be read");
      const auto options = po::parse_config_file(in, known);
      if (in.bad()) throw UsageError(*file + ": this --config file cannot be read");  // a folder, …
      po::store(options, values);
    }
    po::notify(values);
  } catch (const po::error& e) {
    throw UsageError(fmt::format("{} (see: {} --help)", e.what(),
                                 usage_.substr(0, usage_.find(' ', usage_.find(' ') + 1))));
  }
  for (const std::string& name : positional_) {
    if (values.count(name) == 0) {
      throw UsageError(fmt::format("{} is missing; usage: {}", name, usage_));
    }
  }
  return true;
}

bool asks_for_help(const std::vector<std::string>& arguments) {
  // Behind "--" all are operands.
  const auto end = std::find(arguments.begin(), arguments.end(), "--");
  return std::any_of(arguments.begin(), end,
                     [](const std::string& a) { return a == "--help" || a == "-h"; });
}

void refuse_same_file(const std::string& source, const std::string& destination) {
  namespace fs = std::filesystem;
  std::error_code error;  // one of them is not there: two files
  // Of a source that is a folder, any file in it may be the one.
  const bool inside = fs::exists(destination, error) && fs::is_directory(source, error) &&
                      fs::equivalent(fs::absolute(destination).parent_path(), source, error);
  if (inside || fs::equivalent(source, destination, error)) {
    throw UsageError(
        fmt::format("{}: would be written over {}; name another file", destination, source));
  }
}

std::string destination(const po::variables_map& values, const char* name) {
  namespace fs = std::filesystem;
  const auto path = values[name].as<std::string>();
  std::error_code error;
  const fs::file_status there = fs::status(path, error);
  if (fs::is_directory(there)) throw UsageError(path + ": is a folder; name a file in it");
  if (fs::exists(there) && !fs::is_regular_file(there)) {
    throw UsageError(path + ": is not a regular file; name a file to be made");
  }
  if (fs::exists(there) && !is_on(values, "force")) {
    throw UsageError(path + ": exists already; --force replaces it");
  }
  return io::follow_links(path);
}

std::optional<std::uint64_t> parse_unsigned(const po::variables_map& values, const char* name) {
  const auto text = given<std::string>(values, name);
  if (!text) return std::nullopt;
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  if (error != std::errc() || end != text->data() + text->size()) {
    throw UsageError(
        fmt::format("--{} '{}' is not a whole number from 0 to 2^64 - 1", name, *text));
  }
  return number;
}

std::uint64_t long_count_option(const po::variables_map& values, const char* name,
                                std::uint64_t most) {
  const auto value = parse_unsigned(values, name);
  if (!value) return 0;
  if (*value == 0 || *value > most) {
    throw UsageError(fmt::format("--{} {} is out of range: give 1 to {}", name, *value, most));
  }
  return *value;
}

std::uint32_t count_option(const po::variables_map& values, const char* name, std::uint32_t most) {
  return static_cast<std::uint32_t>(long_count_option(values, name, most));
}

std::uint64_t parse_bytes(const std::string& option, const std::string& text) {
  std::size_t end = 0;
  double number = 0;
  try {
    number = std::stod(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  std::string unit = text.substr(end);
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  if (unit.ends_with("IB")) unit.resize(unit.size() - 2);
  if (unit.ends_with("B")) unit.pop_back();
  const std::string_view units = "KMGT";
  const bool known = unit.empty() || (unit.size() == 1 && units.find(unit) != units.npos);
  if (end == 0 || !known || !(number > 0) || number > 1e18) {
    throw UsageError(
        fmt::format("{} '{}' is not a size: give bytes, or 512M, 4G, 1.5T", option, text));
  }
  const std::size_t power = unit.empty() ? 0 : units.find(unit) + 1;
  const double bytes = number * std::pow(1024.0, static_cast<double>(power));
  if (bytes > 1e18) throw UsageError(fmt::format("{} '{}' is too large", option, text));
  return static_cast<std::uint64_t>(bytes);
}

std::vector<std::uint32_t> parse_counts(const std::string& option, const std::string& text) {
  const auto refuse = [&] {
    throw UsageError(
        fmt::format("{} '{}': give numbers from 1 on, with commas: 1,8,32", option, text));
  };
  if (text.empty() || text.ends_with(',')) refuse();
  std::vector<std::uint32_t> counts;
  std::istringstream in(text);
  for (std::string item; std::getline(in, item, ',');) {
    std::size_t end = 0;
    unsigned long value = 0;
    try {
      value = std::stoul(item, &end);
    } catch (const std::exception&) {
      end = 0;
    }
    if (end == 0 || end != item.size() || value == 0 || value > 65536) refuse();
    counts.push_back(static_cast<std::uint32_t>(value));
  }
  return counts;
}

std::optional<io::DType> parse_dtype_option(const std::string& option, const std::string& text) {
  if (text == "auto") return std::nullopt;
  const auto dtype = io::parse_dtype(text);
  if (!dtype) {
    throw UsageError(fmt::format("{} '{}' is not known: auto, f32, f16, bf16", option, text));
  }
  return dtype;
}

}  // namespace penstock::app
