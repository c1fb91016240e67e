#include "model/convert/tensor_map.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "io/error.hpp"
#include "model/error.hpp"

namespace penstock::model {
namespace {

constexpr std::size_t kNamesShown = 5;

std::string shortened(const std::vector<std::string>& names) {
  const std::size_t shown = std::min(names.size(), kNamesShown);
  std::string text =
      fmt::format("{}", fmt::join(names.begin(), names.begin() + static_cast<long>(shown), ", "));
  if (names.size() > shown) text += fmt::format(", … ({} in all)", names.size());
  return text;
}

// Tensors that hold nothing a checkpoint needs: rotary tables, which follow from the config.
bool is_ignored(const ModelSource& source, std::string_view name) {
  if (source.format == ModelSource::Format::gguf) {
    return name == "rope_freqs.weight" || name.ends_with(".attn_rot_embd.weight");
  }
  return name.ends_with("rotary_emb.inv_freq") ||
         (source.config.tie_word_embeddings && name == "lm_head.weight");
}

}  // namespace

std::vector<std::size_t> map_tensors(const std::string& path, const ModelSource& source,
                                     const std::vector<WeightSpec>& specs) {
  const auto& tensors = source.tensors->tensors();
  std::unordered_map<std::string_view, std::size_t> by_name;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!by_name.emplace(tensors[i].name, i).second) {
      throw ModelError(
          fmt::format("{}: tensor {} is there twice", path, io::quoted(tensors[i].name)));
    }
  }
  const auto foreign_name = [&](const WeightSpec& spec) -> const std::string& {
    const bool tied = spec.group == WeightGroup::head && source.config.tie_word_embeddings;
    const WeightSpec& origin = tied ? specs.front() : spec;
    return source.format == ModelSource::Format::gguf ? origin.gguf_name : origin.hf_name;
  };

  std::vector<std::size_t> map;
  std::vector<bool> used(tensors.size(), false);
  std::vector<std::string> missing;
  std::vector<std::string> misshapen;
  for (const WeightSpec& spec : specs) {
    const auto it = by_name.find(foreign_name(spec));
    if (it == by_name.end()) {
      missing.push_back(foreign_name(spec));
      continue;
    }
    const io::SourceTensor& tensor = tensors[it->second];
    if (tensor.shape != spec.shape) {
      misshapen.push_back(fmt::format("{} is [{}], the config asks for [{}]", tensor.name,
                                      fmt::join(tensor.shape, ", "), fmt::join(spec.shape, ", ")));
    }
    used[it->second] = true;
    map.push_back(it->second);
  }
  if (!missing.empty()) {
    throw ModelError(fmt::format("{}: missing tensors: {}", path, shortened(missing)));
  }
  if (!misshapen.empty()) {
    throw ModelError(fmt::format("{}: misshapen tensors: {}", path, shortened(misshapen)));
  }
  std::vector<std::string> surplus;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!used[i] && !is_ignored(source, tensors[i].name)) {
      surplus.push_back(io::quoted(tensors[i].name));
    }
  }
  if (!surplus.empty()) {
    throw ModelError(fmt::format("{}: tensors that the config's model has no place for: {}", path,
                                 shortened(surplus)));
  }
  return map;
}

io::DType source_dtype(const ModelSource& source, const std::vector<WeightSpec>& specs,
                       const std::vector<std::size_t>& map) {
  std::optional<io::DType> common;
  bool mixed = false;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    if (!specs[i].is_matrix) continue;
    std::string name = source.tensors->tensors()[map[i]].dtype;
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    const auto dtype = io::parse_dtype(name);
    if (!dtype) return io::DType::bf16;  // quantized
    mixed = mixed || (common && *common != *dtype);
    common = dtype;
  }
  return mixed || !common ? io::DType::f32 : *common;
}

}  // namespace penstock::model
