#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.hpp"
#include "model/sampler.hpp"

namespace penstock::jobs {

// How one record is answered.
struct GenerationParams {
  model::SamplingParams sampling;
  std::uint32_t max_tokens = 256;
  std::vector<std::string> stop;  // the answer ends before the first of these
  std::vector<std::int32_t> stop_token_ids;
  bool ignore_eos = false;
};

// What the command line may say; empty: not said.
struct GenerationOptions {
  std::optional<double> temperature;
  std::optional<std::int64_t> top_k;
  std::optional<double> top_p;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
  std::optional<double> presence_penalty;
  std::optional<double> frequency_penalty;
  std::optional<std::uint64_t> seed;
  std::optional<std::int64_t> max_tokens;
  std::vector<std::string> stop;
  std::optional<bool> ignore_eos;
};

// A parameter with a value of the wrong type or out of range, or one that is not known.
class ParameterError : public std::runtime_error {
 public:
  // `name` is the field ("top_p"); `reason` reads on after it: "must be a number, not a string".
  ParameterError(std::string name, std::string reason);
  const std::string& name() const { return name_; }
  const std::string& reason() const { return reason_; }

 private:
  std::string name_;
  std::string reason_;
};

// Sets the fields of `overrides` (an object with the names of the JSONL fields) in `params`. A null
// value leaves the field as it is. Throws ParameterError. A temperature below 1e-5 is 0 (greedy),
// as in vLLM. `vocab_size` bounds stop_token_ids. "metadata" (an object) is ignored.
void apply_overrides(const nlohmann::json& overrides, std::int64_t vocab_size,
                     GenerationParams& params);

// What holds where a record says nothing: built-in defaults, then the checkpoint's
// generation_config.json ("" if it has none), then the command line.
//
// Of generation_config.json, as in transformers: temperature, top_k, top_p and min_p only with
// do_sample (otherwise greedy, and these neutral), where the file leaves them out temperature 1 and
// top_k 50; repetition_penalty always. max_new_tokens is ignored.
// Throws model::ModelError for a broken file, ParameterError for an option ("--top-p").
GenerationParams default_params(std::string_view generation_config,
                                const GenerationOptions& options, std::int64_t vocab_size);

// For people: "greedy, at most 256 tokens"; all that is not neutral is named.
std::string describe(const GenerationParams& params);

// The ids that end an answer unless ignore_eos: those of the config and those of
// generation_config.json, sorted, each once. Throws model::ModelError.
std::vector<std::int32_t> eos_token_ids(const model::ModelConfig& config,
                                        std::string_view generation_config);

}  // namespace penstock::jobs
