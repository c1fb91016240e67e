#include "model/convert/synth.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <thread>

#include "io/checkpoint.hpp"
#include "io/error.hpp"
#include "io/file.hpp"
#include "model/convert/byte_tokenizer.hpp"
#include "model/convert/output.hpp"
#include "model/convert/random_weights.hpp"
#include "model/convert/synth_presets.hpp"
#include "model/convert/tokenizer_check.hpp"
#include "model/error.hpp"
#include "model/text/tokenizer_files.hpp"
#include "model/weights.hpp"

namespace penstock::model {
namespace {

constexpr std::uint64_t kMaxConfigBytes = 1u << 20;
constexpr unsigned kMaxThreads = 8;  // beyond, the one writer is the slower part

std::string config_text(const std::string& shape) {
  if (auto text = preset_config(shape)) return *text;
  namespace fs = std::filesystem;
  const fs::path path = fs::is_directory(shape) ? fs::path(shape) / "config.json" : fs::path(shape);
  if (!fs::exists(path)) {
    throw ModelError(fmt::format("{} is neither a preset ({}) nor a config.json", shape,
                                 fmt::join(synth_presets(), ", ")));
  }
  return io::read_text(path.string(), kMaxConfigBytes);
}

TokenizerFiles tokenizer_of(const SynthOptions& options, ModelConfig& config) {
  if (options.tokenizer.empty()) {
    TokenizerFiles files;
    files.tokenizer_json = byte_tokenizer_json(config.vocab_size);
    config.bos_token_id = kByteTokenizerBos;
    config.eos_token_ids = {kByteTokenizerEos};
    return files;
  }
  TokenizerFiles files = read_tokenizer(options.tokenizer);
  require_usable(options.tokenizer, files, config.vocab_size);
  return files;
}

// The values of a block do not depend on how threads share it.
void fill_parallel(std::uint64_t key, std::uint64_t first, float scale, std::span<float> out) {
  const unsigned threads = std::clamp(std::thread::hardware_concurrency(), 1u, kMaxThreads);
  const std::size_t share = (out.size() + threads - 1) / threads;
  std::vector<std::jthread> workers;
  for (std::size_t begin = share; begin < out.size(); begin += share) {
    const auto part = out.subspan(begin, std::min(share, out.size() - begin));
    workers.emplace_back([=] { fill_random(key, first + begin, scale, part); });
  }
  fill_random(key, first, scale, out.first(std::min(share, out.size())));
}

void write_tensor(const ModelConfig& config, const WeightSpec& spec, std::uint64_t seed,
                  std::vector<float>& block, TensorSink& sink) {
  const std::uint64_t count = element_count(spec);
  const std::uint64_t key = stream_key(seed, config, spec);
  const float scale = weight_scale(config, spec);
  for (std::uint64_t first = 0; first < count; first += kBlockElements) {
    block.resize(std::min(kBlockElements, count - first));
    if (scale == 0.0f) {
      std::fill(block.begin(), block.end(), 1.0f);
    } else {
      fill_parallel(key, first, scale, block);
    }
    sink.push(block);
  }
  sink.flush();
}

}  // namespace

void synthesize(const std::string& shape, const std::string& destination,
                const SynthOptions& options, const ConvertProgress& progress) {
  io::CheckpointHeader header;
  header.config_text = config_text(shape);
  ModelConfig config;
  try {
    config = parse_hf_config(header.config_text);
  } catch (const ModelError& error) {
    throw ModelError(fmt::format("{}: {}", shape, error.what()));
  }
  header.tokenizer = to_blobs(tokenizer_of(options, config));
  header.architecture = config.architecture;
  header.source = fmt::format("random weights, shape {}, seed {}", shape, options.seed);
  header.created_by = options.created_by;
  header.dtype = options.dtype;
  header.no_data = options.no_data;
  header.config = to_attributes(config);

  const std::vector<WeightSpec> specs = weight_specs(config);
  const std::vector<io::TensorSpec> tensors = tensor_specs(specs, options.dtype);
  const std::uint64_t total = total_bytes(tensors);
  require_free_space(destination, options.no_data ? 0 : total, tensors.size());
  io::CheckpointWriter writer(destination, header, tensors);
  if (!options.no_data) {
    std::uint64_t written = 0;
    std::vector<float> block;
    for (std::size_t i = 0; i < specs.size(); ++i) {
      TensorSink sink(writer, i, tensors[i].dtype, written, total, progress);
      write_tensor(config, specs[i], options.seed, block, sink);
    }
  }
  writer.finish();
}

}  // namespace penstock::model
