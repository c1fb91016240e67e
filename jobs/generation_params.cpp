#include "jobs/generation_params.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <initializer_list>
#include <utility>

#include "io/error.hpp"
#include "io/json.hpp"
#include "model/error.hpp"

namespace penstock::jobs {
namespace {

using io::type_of;
using nlohmann::json;

// vLLM's limit below which sampling counts as greedy (sampling_params.py, _SAMPLING_EPS).
constexpr double kGreedyBelow = 1e-5;
// A penalty that is smaller would overflow the logits it divides.
constexpr double kLeastRepetitionPenalty = 1e-6;
constexpr double kMostRepetitionPenalty = 1e6;

// One field of a record: its name and how its value is set. The setters throw what is wrong with
// the value as ParameterError with that name.
struct Field {
  std::string_view name;
  void (*set)(const char* name, const json& value, std::int64_t vocab_size,
              GenerationParams& params);
};

double real(const char* name, const json& value) {
  if (!value.is_number()) {
    throw ParameterError(name, fmt::format("must be a number, not {}", type_of(value)));
  }
  const double number = value.get<double>();
  if (!std::isfinite(number) || !std::isfinite(static_cast<float>(number))) {
    throw ParameterError(name, "must be finite");
  }
  return number;
}

void require(const char* name, bool good, std::string_view range, const json& value) {
  if (!good) throw ParameterError(name, fmt::format("must be {}, not {}", range, value.dump()));
}

// The closest integer of 64 bits to an integer of the file.
std::int64_t integer(const char* name, const json& value) {
  if (!value.is_number_integer()) {
    throw ParameterError(name, fmt::format("must be an integer, not {}", type_of(value)));
  }
  if (value.is_number_unsigned()) {
    constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    return static_cast<std::int64_t>(std::min(value.get<std::uint64_t>(), kMost));
  }
  return value.get<std::int64_t>();
}

float penalty(const char* name, const json& value) {
  const double number = real(name, value);
  require(name, number >= -2.0 && number <= 2.0, "between -2 and 2", value);
  return static_cast<float>(number);
}

void set_max_tokens(const char* name, const json& value, std::int64_t, GenerationParams& params) {
  const std::int64_t number = integer(name, value);
  require(name, number >= 1, "1 or more", value);
  params.max_tokens = static_cast<std::uint32_t>(
      std::min<std::int64_t>(number, std::numeric_limits<std::uint32_t>::max()));
}

void set_temperature(const char* name, const json& value, std::int64_t, GenerationParams& params) {
  const double number = real(name, value);
  require(name, number >= 0.0, "0 or more", value);
  params.sampling.temperature = number < kGreedyBelow ? 0.0f : static_cast<float>(number);
}

void set_top_k(const char* name, const json& value, std::int64_t, GenerationParams& params) {
  const std::int64_t number = integer(name, value);
  require(name, number >= -1, "0 or more (0 and -1: off)", value);
  params.sampling.top_k = static_cast<std::int32_t>(
      std::clamp<std::int64_t>(number, 0, std::numeric_limits<std::int32_t>::max()));
}

void set_top_p(const char* name, const json& value, std::int64_t, GenerationParams& params) {
  const double number = real(name, value);
  // Also as float: a smaller number than any float would be 0.
  require(name, static_cast<float>(number) > 0.0f && number <= 1.0, "above 0 and at most 1", value);
  params.sampling.top_p = static_cast<float>(number);
}

void set_min_p(const char* name, const json& value, std::int64_t, GenerationParams& params) {
  const double number = real(name, value);
  require(name, number >= 0.0 && number <= 1.0, "between 0 and 1", value);
  params.sampling.min_p = static_cast<float>(number);
}

void set_repetition_penalty(const char* name, const json& value, std::int64_t,
                            GenerationParams& params) {
  const double number = real(name, value);
  require(name, number >= kLeastRepetitionPenalty && number <= kMostRepetitionPenalty,
          "above 0 (1e-6 to 1e6)", value);
  params.sampling.repetition_penalty = static_cast<float>(number);
}

void set_presence_penalty(const char* name, const json& value, std::int64_t,
                          GenerationParams& params) {
  params.sampling.presence_penalty = penalty(name, value);
}

void set_frequency_penalty(const char* name, const json& value, std::int64_t,
                           GenerationParams& params) {
  params.sampling.frequency_penalty = penalty(name, value);
}

void set_seed(const char* name, const json& value, std::int64_t, GenerationParams& params) {
  if (!value.is_number_unsigned()) {
    throw ParameterError(
        name, fmt::format("must be an integer from 0 to 2^64 - 1, not {}",
                          value.is_number() ? value.dump() : std::string(type_of(value))));
  }
  params.sampling.seed = value.get<std::uint64_t>();
}

void set_stop(const char* name, const json& value, std::int64_t, GenerationParams& params) {
  std::vector<std::string> stop;
  const auto add = [&](const json& text) {
    if (!text.is_string()) {
      throw ParameterError(name,
                           fmt::format("must be a string or a list of strings, not {}{}",
                                       value.is_array() ? "a list with " : "", type_of(text)));
    }
    stop.push_back(text.get<std::string>());
    if (stop.back().empty()) throw ParameterError(name, "must not hold an empty string");
  };
  if (value.is_array()) {
    for (const json& text : value) add(text);
  } else {
    add(value);
  }
  params.stop = std::move(stop);
}

void set_stop_token_ids(const char* name, const json& value, std::int64_t vocab_size,
                        GenerationParams& params) {
  if (!value.is_array()) {
    throw ParameterError(name, fmt::format("must be a list of integers, not {}", type_of(value)));
  }
  std::vector<std::int32_t> ids;
  for (const json& id : value) {
    const std::int64_t number = integer(name, id);
    require(name, number >= 0 && number < vocab_size,
            fmt::format("token ids from 0 to {}", vocab_size - 1), id);
    ids.push_back(static_cast<std::int32_t>(number));
  }
  params.stop_token_ids = std::move(ids);
}

void set_ignore_eos(const char* name, const json& value, std::int64_t, GenerationParams& params) {
  if (!value.is_boolean()) {
    throw ParameterError(name, fmt::format("must be true or false, not {}", type_of(value)));
  }
  params.ignore_eos = value.get<bool>();
}

void check_metadata(const char* name, const json& value, std::int64_t, GenerationParams&) {
  if (!value.is_object()) {
    throw ParameterError(name, fmt::format("must be an object, not {}", type_of(value)));
  }
}

constexpr std::array<Field, 13> kFields = {{
    {"max_tokens", set_max_tokens},
    {"temperature", set_temperature},
    {"top_k", set_top_k},
    {"top_p", set_top_p},
    {"min_p", set_min_p},
    {"repetition_penalty", set_repetition_penalty},
    {"presence_penalty", set_presence_penalty},
    {"frequency_penalty", set_frequency_penalty},
    {"seed", set_seed},
    {"stop", set_stop},
    {"stop_token_ids", set_stop_token_ids},
    {"ignore_eos", set_ignore_eos},
    {"metadata", check_metadata},  // for the user's own use, as OpenAI has it
}};

std::string known_fields() {
  std::string text;
  for (const Field& field : kFields) text += (text.empty() ? "" : ", ") + std::string(field.name);
  return text;
}

json parse_generation_config(std::string_view text) {
  if (text.empty()) return json::object();
  json config;
  try {
    config = io::parse_json(text);
  } catch (const io::JsonError& error) {
    throw model::ModelError(fmt::format("generation_config.json: {}", error.what()));
  }
  if (!config.is_object()) {
    throw model::ModelError("generation_config.json: is not a JSON object");
  }
  return config;
}

json command_line_overrides(const GenerationOptions& options) {
  json overrides = json::object();
  const auto add = [&](const char* name, const auto& value) {
    if (value) overrides[name] = *value;
  };
  add("temperature", options.temperature);
  add("top_k", options.top_k);
  add("top_p", options.top_p);
  add("min_p", options.min_p);
  add("repetition_penalty", options.repetition_penalty);
  add("presence_penalty", options.presence_penalty);
  add("frequency_penalty", options.frequency_penalty);
  add("seed", options.seed);
  add("max_tokens", options.max_tokens);
  add("ignore_eos", options.ignore_eos);
  if (!options.stop.empty()) overrides["stop"] = options.stop;
  return overrides;
}

}  // namespace

ParameterError::ParameterError(std::string name, std::string reason)
    : std::runtime_error(name.starts_with("--") ? name + " " + reason
                                                : io::quoted(name) + " " + reason),
      name_(std::move(name)),
      reason_(std::move(reason)) {}

void apply_overrides(const json& overrides, std::int64_t vocab_size, GenerationParams& params) {
  for (const auto& [name, value] : overrides.items()) {
    const auto* const field =
        std::find_if(kFields.begin(), kFields.end(),
                     [&wanted = name](const Field& known) { return known.name == wanted; });
    if (field == kFields.end()) {
      throw ParameterError(name, "is not a known field; known: " + known_fields());
    }
    if (!value.is_null()) field->set(field->name.data(), value, vocab_size, params);
  }
}

GenerationParams default_params(std::string_view generation_config,
                                const GenerationOptions& options, std::int64_t vocab_size) {
  GenerationParams params;
  const json config = parse_generation_config(generation_config);
  json from_file = json::object();
  const auto take = [&](const char* name) {
    const auto found = config.find(name);
    if (found != config.end() && !found->is_null()) from_file[name] = *found;
  };
  const auto sample = config.find("do_sample");
  if (sample != config.end() && *sample == true) {
    from_file["temperature"] = 1.0;
    from_file["top_k"] = 50;
    for (const char* name : {"temperature", "top_k", "top_p", "min_p"}) take(name);
  }
  take("repetition_penalty");  // it works on greedy answers too
  try {
    apply_overrides(from_file, vocab_size, params);
  } catch (const ParameterError& error) {
    throw model::ModelError(fmt::format("generation_config.json: {}", error.what()));
  }
  try {
    apply_overrides(command_line_overrides(options), vocab_size, params);
  } catch (const ParameterError& error) {
    std::string option = error.name();
    std::replace(option.begin(), option.end(), '_', '-');
    throw ParameterError("--" + option, error.reason());
  }
  return params;
}

std::vector<std::int32_t> eos_token_ids(const model::ModelConfig& config,
                                        std::string_view generation_config) {
  model::ModelConfig both = config;
  if (!generation_config.empty()) {
    try {
      model::add_generation_defaults(generation_config, both);
    } catch (const model::ModelError& error) {
      throw model::ModelError(fmt::format("generation_config.json: {}", error.what()));
    }
  }
  std::vector<std::int32_t>& ids = both.eos_token_ids;
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

std::string describe(const GenerationParams& params) {
  const model::SamplingParams& s = params.sampling;
  std::string text = "greedy";
  const auto add = [&](bool said, std::string_view name, auto value) {
    if (said) text += fmt::format(", {} {}", name, value);
  };
  if (s.temperature > 0) {
    text = fmt::format("temperature {}", s.temperature);
    add(s.top_k > 0, "top-k", s.top_k);
    add(s.top_p < 1, "top-p", s.top_p);
    add(s.min_p > 0, "min-p", s.min_p);
    add(true, "seed", s.seed);
  }
  add(s.repetition_penalty != 1, "repetition penalty", s.repetition_penalty);
  add(s.presence_penalty != 0, "presence penalty", s.presence_penalty);
  add(s.frequency_penalty != 0, "frequency penalty", s.frequency_penalty);
  add(!params.stop.empty(), "stop strings", params.stop.size());
  if (params.ignore_eos) text += ", end-of-sequence ignored";
  return text + fmt::format(", at most {} tokens", params.max_tokens);
}

}  // namespace penstock::jobs
