#include "jobs/manifest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "io/utf8.hpp"

namespace penstock::jobs {
namespace {

using nlohmann::json;

// Bump it when the meaning of a member changes.
constexpr int kSchema = 1;

// Also what stands in a broken manifest goes to a terminal.
std::string in_short(std::string text) {
  constexpr std::size_t kMost = 80;
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  }
  return text.size() <= kMost ? text : io::to_valid_utf8(text.substr(0, kMost)) + "…";
}

// How users know a member: by its option, if there is one.
std::string name_of(const std::string& pointer) {
  if (pointer.empty()) return "the manifest";  // that is no object
  if (pointer == "/schema") return "the manifest's schema";
  if (pointer == "/version") return "the program";
  if (pointer == "/task") return "--task";
  if (pointer == "/checkpoint/digest") return "the checkpoint";
  if (pointer == "/numeric_class") return "the numeric class (device, instruction set, data types)";
  if (pointer == "/rehearsed") return "the rehearsed device (--device virtual; \"\": a real one)";
  if (pointer == "/input/format") return "--input-format";
  if (pointer == "/input/records") return "the number of records (--input, --limit)";
  if (pointer == "/input/first" || pointer == "/input/end") return "the share of records (--part)";
  if (pointer == "/input/size_bytes") return "the input's size";
  if (pointer == "/input/head_xxh3") return "the input's beginning";
  if (pointer == "/input/tail_xxh3") return "the input's end";
  if (pointer == "/input/index_xxh3") return "the input's lines";
  constexpr std::string_view kParameters = "/parameters/";
  if (!pointer.starts_with(kParameters)) return in_short(pointer.substr(1));
  std::string option = pointer.substr(kParameters.size());
  option = option.substr(0, option.find('/'));  // the n-th of --stop
  std::replace(option.begin(), option.end(), '_', '-');
  return in_short("--" + option);
}

bool is_compared(const std::string& pointer) {
  static const std::set<std::string> kNever = {"/checkpoint/path", "/input/path", "/input/mtime_ns",
                                               "/input/limit"};
  return !kNever.contains(pointer);
}

std::string shown(const json& value) {
  if (value.is_null()) return "not given";
  if (value.is_number_float()) {
    const auto number = value.get<double>();
    // Parameters are floats: 0.7, as it was given, not 0.699999988.
    if (std::abs(number) <= std::numeric_limits<float>::max()) {
      return fmt::format("{}", static_cast<float>(number));
    }
  }
  return in_short(value.dump(-1, ' ', true, json::error_handler_t::replace));
}

}  // namespace

json to_manifest(const std::string& version, const std::string& checkpoint,
                 const std::string& checkpoint_digest, const ManifestInput& input,
                 const GenerationParams& defaults, std::uint32_t context_limit) {
  const model::SamplingParams& sampling = defaults.sampling;
  const json manifest = {{"schema", kSchema},
                         {"version", version},
                         {"task", "generate"},
                         {"checkpoint", {{"path", checkpoint}, {"digest", checkpoint_digest}}},
                         {"input",
                          {{"path", input.path},
                           {"format", io::to_string(input.format)},
                           {"limit", input.limit},
                           {"records", input.records},
                           {"first", input.range.first},
                           {"end", input.range.end},
                           {"size_bytes", input.fingerprint.size_bytes},
                           {"mtime_ns", input.fingerprint.mtime_ns},
                           {"head_xxh3", input.fingerprint.head_xxh3},
                           {"tail_xxh3", input.fingerprint.tail_xxh3},
                           {"index_xxh3", input.index_xxh3}}},
                         {"parameters",
                          {{"temperature", sampling.temperature},
                           {"top_k", sampling.top_k},
                           {"top_p", sampling.top_p},
                           {"min_p", sampling.min_p},
                           {"repetition_penalty", sampling.repetition_penalty},
                           {"presence_penalty", sampling.presence_penalty},
                           {"frequency_penalty", sampling.frequency_penalty},
                           {"seed", sampling.seed},
                           {"max_tokens", defaults.max_tokens},
                           {"stop", defaults.stop},
                           {"ignore_eos", defaults.ignore_eos},
                           {"max_context", context_limit}}}};
  // As it will be read again: paths and stop strings may be no UTF-8.
  return json::parse(manifest.dump(-1, ' ', false, json::error_handler_t::replace));
}

std::vector<std::string> differences(const json& before, const json& now) {
  const json flat_before = before.flatten();
  const json flat_now = now.flatten();
  std::set<std::string> pointers;
  for (const json& flat : {flat_before, flat_now}) {
    for (const auto& item : flat.items()) pointers.insert(item.key());
  }
  std::vector<std::string> lines;
  for (const std::string& pointer : pointers) {
    const auto found = [&](const json& flat) {
      const auto member = flat.find(pointer);
      return member == flat.end() ? json() : *member;
    };
    const json was = found(flat_before);
    const json is = found(flat_now);
    if (was == is || !is_compared(pointer)) continue;
    lines.push_back(fmt::format("{} was {}, is {}", name_of(pointer), shown(was), shown(is)));
  }
  return lines;
}

}  // namespace penstock::jobs
