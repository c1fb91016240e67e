#include "model/convert/convert.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "io/checkpoint.hpp"
#include "model/convert/model_source.hpp"
#include "model/convert/output.hpp"
#include "model/convert/source_rows.hpp"
#include "model/convert/tensor_map.hpp"
#include "model/error.hpp"
#include "model/weights.hpp"

namespace penstock::model {
namespace {

// Every tensor gives its first elements, so that a type that cannot be read is known before hours
// of writing.
void probe(ModelSource& source, const std::vector<std::size_t>& map) {
  std::vector<float> values;
  for (const std::size_t tensor : map) {
    values.resize(std::min<std::uint64_t>(source.tensors->tensors()[tensor].elements, 256));
    source.tensors->read(tensor, 0, values);
  }
}

// How many heads' rows llama.cpp interleaved in this tensor; 0: none.
std::int64_t interleaved_heads(const ModelSource& source, const WeightSpec& spec) {
  if (source.format != ModelSource::Format::gguf) return 0;
  const auto is = [&](const char* part) {
    return spec.name.ends_with(fmt::format("attn/{}", part)) ||
           spec.name.ends_with(fmt::format("attn/{}_bias", part));
  };
  if (is("q")) return source.config.num_heads;
  if (is("k")) return source.config.num_kv_heads;
  return 0;
}

}  // namespace

void convert_model(const std::string& source_path, const std::string& destination,
                   const ConvertOptions& options, const ConvertProgress& progress) {
  ModelSource source = open_model(source_path);
  const std::vector<WeightSpec> specs = weight_specs(source.config);
  const std::vector<std::size_t> map = map_tensors(source_path, source, specs);
  probe(source, map);

  io::CheckpointHeader header;
  header.architecture = source.config.architecture;
  header.source = source_path;
  header.created_by = options.created_by;
  header.dtype = options.dtype.value_or(source_dtype(source, specs, map));
  header.config = to_attributes(source.config);
  header.config_text = source.config_text;
  header.tokenizer = to_blobs(source.tokenizer);
  source.tokenizer = {};
  const std::vector<io::TensorSpec> tensors = tensor_specs(specs, header.dtype);
  const std::uint64_t total = total_bytes(tensors);
  require_free_space(destination, total, tensors.size());

  io::CheckpointWriter writer(destination, header, tensors);
  std::uint64_t written = 0;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    TensorSink sink(writer, i, tensors[i].dtype, written, total, progress);
    SourceRows rows(*source.tensors, map[i]);
    if (const std::int64_t heads = interleaved_heads(source, specs[i]); heads > 0) {
      rows.copy_deinterleaved(heads, sink);
    } else {
      rows.copy(sink);
    }
  }
  writer.finish();
}

}  // namespace penstock::model
