#include "model/convert/inspect.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <set>
#include <string_view>
#include <variant>
#include <vector>

#include "io/checkpoint_format.hpp"
#include "io/error.hpp"
#include "io/json.hpp"

namespace penstock::model {
namespace {

using nlohmann::json;

// The parts of a model, by the first component of a tensor's name.
constexpr std::string_view kOther = "other";
constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kGroups = {{
    {"embed", "embedding"},
    {"layers", "layers"},
    {"final", "final norm"},
    {"head", "head"},
}};

std::string_view first_component(std::string_view name) {
  name.remove_prefix(1);
  return name.substr(0, name.find('/'));
}

std::string_view group_of(std::string_view name) {
  const std::string_view first = first_component(name);
  for (const auto& [component, group] : kGroups) {
    if (component == first) return group;
  }
  return kOther;
}

// "0003" of "/layers/0003/attn/q"; empty elsewhere.
std::string_view layer_of(std::string_view name) {
  constexpr std::string_view kPrefix = "/layers/";
  if (!name.starts_with(kPrefix)) return {};
  name.remove_prefix(kPrefix.size());
  return name.substr(0, name.find('/'));
}

std::uint64_t elements_of(const io::TensorInfo& tensor) {
  return tensor.size_bytes / io::size_of(tensor.dtype);
}

json describe_tensor(const io::TensorInfo& tensor, bool no_data) {
  json description = {{"name", tensor.name},
                      {"dtype", io::to_string(tensor.dtype)},
                      {"shape", tensor.shape},
                      {"size_bytes", tensor.size_bytes}};
  if (!no_data) {
    description["file"] = tensor.file;
    description["offset"] = tensor.offset;
  }
  return description;
}

json describe_groups(const std::vector<io::TensorInfo>& tensors) {
  json groups = json::array();
  const auto add = [&](std::string_view group) {
    std::uint64_t count = 0;
    std::uint64_t parameters = 0;
    std::uint64_t bytes = 0;
    for (const io::TensorInfo& tensor : tensors) {
      if (group_of(tensor.name) != group) continue;
      ++count;
      parameters += elements_of(tensor);
      bytes += tensor.size_bytes;
    }
    if (count == 0) return;
    groups.push_back(
        {{"name", group}, {"tensors", count}, {"parameters", parameters}, {"size_bytes", bytes}});
  };
  for (const auto& [component, group] : kGroups) add(group);
  add(kOther);
  return groups;
}

// nullptr if `value` is no object or has no such member.
const json* member(const json& value, const char* name) {
  const auto found = value.find(name);
  return found == value.end() ? nullptr : &*found;
}

// Kind and size of the vocabulary as tokenizer.json has them. The file may be anything: what it
// does not say is left out, and a broken one is called so.
json describe_tokenizer(const std::vector<io::Blob>& blobs) {
  json description = {{"files", json::array()}};
  for (const io::Blob& blob : blobs) {
    description["files"].push_back({{"name", blob.name}, {"size_bytes", blob.bytes.size()}});
    if (blob.name != "tokenizer.json") continue;
    json tokenizer;
    try {
      tokenizer = io::parse_json(blob.bytes);
    } catch (const io::JsonError&) {  // stays null
    }
    if (!tokenizer.is_object()) {
      description["kind"] = "broken tokenizer.json";
      continue;
    }
    std::set<std::int64_t> ids;
    const auto keep = [&ids](const json& id) {
      if (id.is_number_integer()) ids.insert(id.get<std::int64_t>());
    };
    const json* const model = member(tokenizer, "model");
    if (model == nullptr) continue;
    const json* const type = member(*model, "type");
    if (type != nullptr && type->is_string()) description["kind"] = *type;
    const json* const vocab = member(*model, "vocab");
    if (vocab != nullptr && vocab->is_object()) {
      for (const json& id : *vocab) keep(id);
    }
    const json* const added = member(tokenizer, "added_tokens");
    if (added != nullptr && added->is_array()) {
      for (const json& token : *added) {
        if (const json* const id = member(token, "id")) keep(*id);
      }
    }
    description["vocab_size"] = ids.size();
  }
  return description;
}

// "134,515,008"
std::string with_separators(std::uint64_t number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3;) {
    at -= 3;
    digits.insert(at, ",");
  }
  return digits;
}

// "134.5 M"; units of 1000, as parameters and disks are counted.
std::string in_units(std::uint64_t number, std::string_view unit) {
  constexpr std::array<const char*, 7> kPrefixes = {"", "k", "M", "G", "T", "P", "E"};
  double value = static_cast<double>(number);
  std::size_t prefix = 0;
  // 999.96 would be printed as 1000.0.
  while (value >= 999.95 && prefix + 1 < kPrefixes.size()) {
    value /= 1000;
    ++prefix;
  }
  if (prefix == 0) return fmt::format("{} {}", number, unit);
  return fmt::format("{:.1f} {}{}", value, kPrefixes[prefix], unit);
}

// People count parameters in billions.
std::string count_in_units(std::uint64_t number) {
  std::string text = in_units(number, "");
  if (text.ends_with('G')) text.back() = 'B';
  while (text.ends_with(' ')) text.pop_back();
  return text;
}

std::string shape_text(const json& shape) {
  std::vector<std::string> extents;
  for (const json& extent : shape) extents.push_back(with_separators(extent.get<std::uint64_t>()));
  return fmt::format("[{}]", fmt::join(extents, " × "));
}

// Names and texts come from the file: control characters must not reach the terminal.
std::string printable(const json& value) {
  const std::string text = io::quoted(value.is_string() ? value.get<std::string>() : value.dump());
  return text.substr(1, text.size() - 2);
}

// The dtypes that occur, with their share: "bf16 134.5 M, f32 35.1 k".
std::string dtypes_text(const json& tensors) {
  std::vector<std::pair<std::string, std::uint64_t>> counts;
  for (const json& tensor : tensors) {
    const auto dtype = tensor.at("dtype").get<std::string>();
    const std::uint64_t elements = tensor.at("size_bytes").get<std::uint64_t>() /
                                   io::size_of(io::parse_dtype(dtype).value_or(io::DType::f32));
    const auto found = std::ranges::find(counts, dtype, &decltype(counts)::value_type::first);
    if (found == counts.end()) {
      counts.emplace_back(dtype, elements);
    } else {
      found->second += elements;
    }
  }
  std::vector<std::string> texts;
  for (const auto& [dtype, elements] : counts) {
    texts.push_back(fmt::format("{} {}", dtype, count_in_units(elements)));
  }
  return fmt::format("{}", fmt::join(texts, ", "));
}

std::string tokenizer_text(const json& tokenizer) {
  if (tokenizer.at("files").empty()) return "none";
  std::string text = tokenizer.contains("kind") ? printable(tokenizer["kind"]) : "unknown kind";
  if (tokenizer.contains("vocab_size")) {
    text += fmt::format(", {} tokens", with_separators(tokenizer["vocab_size"]));
  }
  std::vector<std::string> files;
  for (const json& file : tokenizer["files"]) {
    files.push_back(
        fmt::format("{} {}", printable(file.at("name")), in_units(file.at("size_bytes"), "B")));
  }
  return fmt::format("{} ({})", text, fmt::join(files, ", "));
}

}  // namespace

json describe_checkpoint(const io::CheckpointReader& checkpoint) {
  const io::CheckpointHeader& header = checkpoint.header();
  json config = json::object();
  for (const io::NamedAttribute& field : header.config) {
    std::visit([&](const auto& value) { config[field.name] = value; }, field.value);
  }
  std::uint64_t parameters = 0;
  std::uint64_t tensor_bytes = 0;
  std::set<std::string_view> layers;
  std::set<std::string_view> files{checkpoint.path()};
  json tensors = json::array();
  for (const io::TensorInfo& tensor : checkpoint.tensors()) {
    parameters += elements_of(tensor);
    tensor_bytes += tensor.size_bytes;
    if (const auto layer = layer_of(tensor.name); !layer.empty()) layers.insert(layer);
    files.insert(tensor.file);
    tensors.push_back(describe_tensor(tensor, header.no_data));
  }
  return {{"path", checkpoint.path()},
          {"format", io::kFormatName},
          {"schema", io::kSchema},
          {"architecture", header.architecture},
          {"source", header.source},
          {"created_by", header.created_by},
          {"dtype", io::to_string(header.dtype)},
          {"no_data", header.no_data},
          {"digest", checkpoint.digest()},
          {"files", files.size()},
          {"size_bytes", checkpoint.size_bytes()},
          {"tensor_bytes", tensor_bytes},
          {"parameters", parameters},
          {"layers", layers.size()},
          {"config", std::move(config)},
          {"tokenizer", describe_tokenizer(header.tokenizer)},
          {"groups", describe_groups(checkpoint.tensors())},
          {"tensors", std::move(tensors)}};
}

std::string format_description(const json& description, bool all_tensors) {
  std::string text;
  const auto line = [&](std::string_view name, std::string_view value) {
    text += fmt::format("{:<14}{}\n", name, value);
  };
  const auto number = [&](const char* key) { return description.at(key).get<std::uint64_t>(); };
  const bool no_data = description.at("no_data").get<bool>();

  text += printable(description.at("path")) + "\n\n";
  line("format", fmt::format("{} checkpoint, schema {}", printable(description.at("format")),
                             number("schema")));
  line("architecture", printable(description.at("architecture")));
  line("source", printable(description.at("source")));
  line("created by", printable(description.at("created_by")));
  line("digest", printable(description.at("digest")));
  line("size",
       fmt::format("{} bytes ({}){}", with_separators(number("size_bytes")),
                   in_units(number("size_bytes"), "B"),
                   number("files") > 1 ? fmt::format(" in {} files", number("files")) : ""));
  if (no_data) line("data", "none: shapes only");
  std::string parameters = count_in_units(number("parameters"));
  if (description.at("config").value("tie_word_embeddings", json()) == json(1)) {
    for (const json& group : description.at("groups")) {
      if (group.at("name") != "head") continue;
      parameters += fmt::format(
          "; {} without the head, which is a copy of the embedding",
          count_in_units(number("parameters") - group.at("parameters").get<std::uint64_t>()));
    }
  }
  line("parameters", fmt::format("{} ({})", with_separators(number("parameters")), parameters));
  line("dtype", fmt::format("{} ({})", printable(description.at("dtype")),
                            dtypes_text(description.at("tensors"))));
  line("layers", with_separators(number("layers")));
  line("tokenizer", tokenizer_text(description.at("tokenizer")));

  text += fmt::format("\n{:<14}{:>9}{:>22}{:>12}\n", "part", "tensors", "parameters", "bytes");
  for (const json& group : description.at("groups")) {
    std::string name = group.at("name").get<std::string>();
    if (name == "layers") name = fmt::format("{} layers", number("layers"));
    text +=
        fmt::format("{:<14}{:>9}{:>22}{:>12}\n", name, with_separators(group.at("tensors")),
                    with_separators(group.at("parameters")), in_units(group.at("size_bytes"), "B"));
  }
  text += fmt::format("{:<14}{:>9}{:>22}{:>12}\n", "together",
                      with_separators(description.at("tensors").size()),
                      with_separators(number("parameters")), in_units(number("tensor_bytes"), "B"));

  const json& config = description.at("config");
  std::size_t width = 0;
  for (const auto& [name, value] : config.items()) width = std::max(width, name.size());
  if (!config.empty()) text += "\nconfig\n";
  for (const auto& [name, value] : config.items()) {
    text += fmt::format("  {:<{}}  {}\n", printable(name), width, printable(value));
  }

  if (!all_tensors) return text;
  width = 0;
  for (const json& tensor : description.at("tensors")) {
    width = std::max(width, tensor.at("name").get_ref<const std::string&>().size());
  }
  text += "\ntensors\n";
  for (const json& tensor : description.at("tensors")) {
    text += fmt::format("  {:<{}}  {:<4}  {:<22}{:>10}", printable(tensor.at("name")), width,
                        tensor.at("dtype").get<std::string>(), shape_text(tensor.at("shape")),
                        in_units(tensor.at("size_bytes"), "B"));
    if (!no_data) {
      text += fmt::format("  at {}", with_separators(tensor.at("offset").get<std::uint64_t>()));
      if (number("files") > 1) text += " of " + printable(tensor.at("file"));
    }
    text += "\n";
  }
  return text;
}

}  // namespace penstock::model
