#include "jobs/generation_params.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/error.hpp"

namespace penstock::jobs {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr std::int64_t kVocab = 100;

GenerationParams with(std::string_view overrides, GenerationParams params = {}) {
  apply_overrides(nlohmann::json::parse(overrides), kVocab, params);
  return params;
}

std::string error_of(std::string_view overrides) {
  try {
    with(overrides);
  } catch (const ParameterError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(GenerationParams, EachField) {
  EXPECT_EQ(with(R"({"max_tokens": 7})").max_tokens, 7u);
  EXPECT_EQ(with(R"({"temperature": 0.5})").sampling.temperature, 0.5f);
  EXPECT_EQ(with(R"({"temperature": 1})").sampling.temperature, 1.0f);
  EXPECT_EQ(with(R"({"top_k": 40})").sampling.top_k, 40);
  EXPECT_EQ(with(R"({"top_p": 0.25})").sampling.top_p, 0.25f);
  EXPECT_EQ(with(R"({"min_p": 0.125})").sampling.min_p, 0.125f);
  EXPECT_EQ(with(R"({"repetition_penalty": 1.5})").sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(with(R"({"presence_penalty": -2})").sampling.presence_penalty, -2.0f);
  EXPECT_EQ(with(R"({"frequency_penalty": 2.0})").sampling.frequency_penalty, 2.0f);
  EXPECT_EQ(with(R"({"seed": 18446744073709551615})").sampling.seed, UINT64_MAX);
  EXPECT_THAT(with(R"({"stop": "END"})").stop, ElementsAre("END"));
  EXPECT_THAT(with(R"({"stop": ["a", "b"]})").stop, ElementsAre("a", "b"));
  EXPECT_THAT(with(R"({"stop": []})").stop, IsEmpty());
  EXPECT_THAT(with(R"({"stop_token_ids": [0, 99]})").stop_token_ids, ElementsAre(0, 99));
  EXPECT_TRUE(with(R"({"ignore_eos": true})").ignore_eos);
  EXPECT_EQ(with(R"({"metadata": {"any": [1]}})").max_tokens, GenerationParams().max_tokens);
}

TEST(GenerationParams, Edges) {
  EXPECT_EQ(with(R"({"max_tokens": 99999999999})").max_tokens, UINT32_MAX);
  EXPECT_EQ(with(R"({"max_tokens": 18446744073709551615})").max_tokens, UINT32_MAX);
  EXPECT_EQ(with(R"({"temperature": 0})").sampling.temperature, 0.0f);
  EXPECT_EQ(with(R"({"temperature": 9.9e-6})").sampling.temperature, 0.0f);
  EXPECT_EQ(with(R"({"temperature": 1e-5})").sampling.temperature, 1e-5f);
  EXPECT_EQ(with(R"({"top_k": -1})").sampling.top_k, 0);
  EXPECT_EQ(with(R"({"top_k": 99999999999})").sampling.top_k, INT32_MAX);
  EXPECT_EQ(with(R"({"top_p": 1})").sampling.top_p, 1.0f);
  EXPECT_EQ(with(R"({"min_p": 0})").sampling.min_p, 0.0f);
  EXPECT_EQ(with(R"({"min_p": 1})").sampling.min_p, 1.0f);
}

TEST(GenerationParams, NullLeavesTheDefault) {
  GenerationParams params;
  params.max_tokens = 5;
  params.stop = {"x"};
  params = with(R"({"max_tokens": null, "stop": null, "metadata": null})", params);
  EXPECT_EQ(params.max_tokens, 5u);
  EXPECT_THAT(params.stop, ElementsAre("x"));
}

TEST(GenerationParams, Errors) {
  const auto expect = [](std::string_view overrides, std::string_view message) {
    EXPECT_EQ(error_of(overrides), message) << overrides;
  };
  expect(R"({"temprature": 1})",
         "'temprature' is not a known field; known: max_tokens, temperature, top_k, top_p, min_p, "
         "repetition_penalty, presence_penalty, frequency_penalty, seed, stop, stop_token_ids, "
         "ignore_eos, metadata");
  expect(R"({"unknown": null})", error_of(R"({"unknown": 1})"));
  expect(R"({"max_tokens": 0})", "'max_tokens' must be 1 or more, not 0");
  expect(R"({"max_tokens": -3})", "'max_tokens' must be 1 or more, not -3");
  expect(R"({"max_tokens": 1.0})", "'max_tokens' must be an integer, not a fraction");
  expect(R"({"max_tokens": "9"})", "'max_tokens' must be an integer, not a string");
  expect(R"({"temperature": -0.1})", "'temperature' must be 0 or more, not -0.1");
  expect(R"({"temperature": "hot"})", "'temperature' must be a number, not a string");
  expect(R"({"temperature": 1e300})", "'temperature' must be finite");
  expect(R"({"top_k": -2})", "'top_k' must be 0 or more (0 and -1: off), not -2");
  expect(R"({"top_k": 1.5})", "'top_k' must be an integer, not a fraction");
  expect(R"({"top_p": 0})", "'top_p' must be above 0 and at most 1, not 0");
  expect(R"({"top_p": 1.01})", "'top_p' must be above 0 and at most 1, not 1.01");
  expect(R"({"top_p": 1e-300})", "'top_p' must be above 0 and at most 1, not 1e-300");
  expect(R"({"min_p": -0.5})", "'min_p' must be between 0 and 1, not -0.5");
  expect(R"({"min_p": 2})", "'min_p' must be between 0 and 1, not 2");
  expect(R"({"repetition_penalty": 0})",
         "'repetition_penalty' must be above 0 (1e-6 to 1e6), not 0");
  expect(R"({"presence_penalty": 2.5})", "'presence_penalty' must be between -2 and 2, not 2.5");
  expect(R"({"frequency_penalty": -3})", "'frequency_penalty' must be between -2 and 2, not -3");
  expect(R"({"seed": -1})", "'seed' must be an integer from 0 to 2^64 - 1, not -1");
  expect(R"({"seed": 1.5})", "'seed' must be an integer from 0 to 2^64 - 1, not 1.5");
  expect(R"({"seed": "1"})", "'seed' must be an integer from 0 to 2^64 - 1, not a string");
  expect(R"({"stop": 1})", "'stop' must be a string or a list of strings, not an integer");
  expect(R"({"stop": ["a", null]})",
         "'stop' must be a string or a list of strings, not a list with null");
  expect(R"({"stop": ""})", "'stop' must not hold an empty string");
  expect(R"({"stop_token_ids": 5})", "'stop_token_ids' must be a list of integers, not an integer");
  expect(R"({"stop_token_ids": [100]})",
         "'stop_token_ids' must be token ids from 0 to 99, not 100");
  expect(R"({"stop_token_ids": [-1]})", "'stop_token_ids' must be token ids from 0 to 99, not -1");
  expect(R"({"ignore_eos": 1})", "'ignore_eos' must be true or false, not an integer");
  expect(R"({"metadata": "x"})", "'metadata' must be an object, not a string");
}

TEST(GenerationDefaults, BuiltIn) {
  const GenerationParams params = default_params("", {}, kVocab);
  EXPECT_EQ(params.sampling.temperature, 0.0f);
  EXPECT_EQ(params.sampling.top_k, 0);
  EXPECT_EQ(params.sampling.top_p, 1.0f);
  EXPECT_EQ(params.sampling.min_p, 0.0f);
  EXPECT_EQ(params.sampling.repetition_penalty, 1.0f);
  EXPECT_EQ(params.sampling.seed, 0u);
  EXPECT_EQ(params.max_tokens, 256u);
  EXPECT_FALSE(params.ignore_eos);
}

TEST(GenerationParams, DescriptionNamesAllThatIsNotNeutral) {
  GenerationParams params;
  EXPECT_EQ(describe(params), "greedy, at most 256 tokens");
  params.sampling.repetition_penalty = 1.5f;
  params.sampling.top_p = 0.5f;  // without meaning for greedy answers
  EXPECT_EQ(describe(params), "greedy, repetition penalty 1.5, at most 256 tokens");
  params.sampling = {0.5f, 40, 0.25f, 0.125f, 1.0f, 2.0f, -1.0f, 7};
  params.stop = {"a", "b"};
  params.ignore_eos = true;
  params.max_tokens = 9;
  EXPECT_EQ(describe(params),
            "temperature 0.5, top-k 40, top-p 0.25, min-p 0.125, seed 7, presence penalty 2, "
            "frequency penalty -1, stop strings 2, end-of-sequence ignored, at most 9 tokens");
}

TEST(GenerationDefaults, CheckpointThatSamples) {
  // The settings of Llama-3.1-Instruct: top_k is left out, transformers takes 50.
  const GenerationParams params =
      default_params(R"({"do_sample": true, "temperature": 0.6, "top_p": 0.9, "max_length": 4096,
                         "max_new_tokens": 3, "eos_token_id": [1, 2], "bos_token_id": 0})",
                     {}, kVocab);
  EXPECT_EQ(params.sampling.temperature, 0.6f);
  EXPECT_EQ(params.sampling.top_p, 0.9f);
  EXPECT_EQ(params.sampling.top_k, 50);
  EXPECT_EQ(params.max_tokens, 256u);
  EXPECT_EQ(default_params(R"({"do_sample": true})", {}, kVocab).sampling.temperature, 1.0f);
  EXPECT_EQ(default_params(R"({"do_sample": true, "temperature": null, "top_k": 20})", {}, kVocab)
                .sampling.temperature,
            1.0f);
  EXPECT_EQ(default_params(R"({"do_sample": true, "top_k": 20})", {}, kVocab).sampling.top_k, 20);
}

TEST(GenerationDefaults, CheckpointThatDoesNotSample) {
  for (const char* file :
       {R"({"temperature": 0.6, "repetition_penalty": 1.25})",
        R"({"do_sample": false, "temperature": 0.6, "repetition_penalty": 1.25})",
        R"({"do_sample": null, "temperature": 0.6, "repetition_penalty": 1.25})"}) {
    const GenerationParams params = default_params(file, {}, kVocab);
    EXPECT_EQ(params.sampling.temperature, 0.0f) << file;
    EXPECT_EQ(params.sampling.top_k, 0) << file;
    EXPECT_EQ(params.sampling.repetition_penalty, 1.25f) << file;
  }
}

// As in transformers: what only sampling uses counts only where the checkpoint samples.
TEST(GenerationDefaults, SamplingSettingsOfACheckpointThatDoesNotSample) {
  GenerationOptions options;
  options.temperature = 0.75;
  const std::string settings =
      R"("temperature": 0.6, "top_k": 20, "top_p": 0.5, "min_p": 0.125, "repetition_penalty": 1.25})";
  for (const char* sample : {"{", "{\"do_sample\": false, ", "{\"do_sample\": null, "}) {
    const GenerationParams params = default_params(sample + settings, options, kVocab);
    EXPECT_EQ(params.sampling.temperature, 0.75f) << sample;
    EXPECT_EQ(params.sampling.top_k, 0) << sample;
    EXPECT_EQ(params.sampling.top_p, 1.0f) << sample;
    EXPECT_EQ(params.sampling.min_p, 0.0f) << sample;
    EXPECT_EQ(params.sampling.repetition_penalty, 1.25f) << sample;
  }
  const GenerationParams params = default_params("{\"do_sample\": true, " + settings, {}, kVocab);
  EXPECT_EQ(params.sampling.temperature, 0.6f);
  EXPECT_EQ(params.sampling.top_k, 20);
  EXPECT_EQ(params.sampling.top_p, 0.5f);
  EXPECT_EQ(params.sampling.min_p, 0.125f);
  EXPECT_EQ(params.sampling.repetition_penalty, 1.25f);
}

TEST(GenerationDefaults, TheCommandLineWins) {
  GenerationOptions options;
  options.temperature = 0.25;
  options.top_k = 0;
  options.top_p = 0.5;
  options.min_p = 0.125;
  options.repetition_penalty = 1.5;
  options.presence_penalty = 0.5;
  options.frequency_penalty = -0.5;
  options.seed = 9;
  options.max_tokens = 11;
  options.stop = {"x", "y"};
  options.ignore_eos = true;
  const GenerationParams params =
      default_params(R"({"do_sample": true, "temperature": 0.6, "top_p": 0.9})", options, kVocab);
  EXPECT_EQ(params.sampling.temperature, 0.25f);
  EXPECT_EQ(params.sampling.top_k, 0);
  EXPECT_EQ(params.sampling.top_p, 0.5f);
  EXPECT_EQ(params.sampling.min_p, 0.125f);
  EXPECT_EQ(params.sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(params.sampling.presence_penalty, 0.5f);
  EXPECT_EQ(params.sampling.frequency_penalty, -0.5f);
  EXPECT_EQ(params.sampling.seed, 9u);
  EXPECT_EQ(params.max_tokens, 11u);
  EXPECT_THAT(params.stop, ElementsAre("x", "y"));
  EXPECT_TRUE(params.ignore_eos);
}

TEST(GenerationDefaults, Errors) {
  const auto error = [](std::string_view file, const GenerationOptions& options) -> std::string {
    try {
      default_params(file, options, kVocab);
    } catch (const ParameterError& e) {
      return e.what();
    } catch (const model::ModelError& e) {
      return e.what();
    }
    return "accepted";
  };
  EXPECT_THAT(error("nonsense", {}), StartsWith("generation_config.json: "));
  EXPECT_EQ(error("[]", {}), "generation_config.json: is not a JSON object");
  EXPECT_THAT(error(std::string(100000, '['), {}), HasSubstr("nested deeper than 64"));
  EXPECT_EQ(error(R"({"do_sample": true, "top_p": "high"})", {}),
            "generation_config.json: 'top_p' must be a number, not a string");
  EXPECT_THAT(error("{\"do_sample\":true,\"temperature\":" + std::string(100000, '[') +
                        std::string(100000, ']') + "}",
                    {}),
              HasSubstr("nested deeper than 64"));
  GenerationOptions options;
  options.repetition_penalty = -1;
  EXPECT_EQ(error("", options), "--repetition-penalty must be above 0 (1e-6 to 1e6), not -1.0");
  options = {};
  options.max_tokens = 0;
  EXPECT_EQ(error("", options), "--max-tokens must be 1 or more, not 0");
  options = {};
  options.stop = {""};
  EXPECT_EQ(error("", options), "--stop must not hold an empty string");
}

TEST(EosTokenIds, OfConfigAndGenerationConfig) {
  const model::ModelConfig config = model::parse_hf_config(
      R"({"model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
          "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 10,
          "eos_token_id": [7, 2]})");
  EXPECT_THAT(eos_token_ids(config, ""), ElementsAre(2, 7));
  EXPECT_THAT(eos_token_ids(config, R"({"eos_token_id": 3})"), ElementsAre(2, 3, 7));
  EXPECT_THAT(eos_token_ids(config, R"({"eos_token_id": [9, 7, 0]})"), ElementsAre(0, 2, 7, 9));
  EXPECT_THAT(eos_token_ids(config, R"({"eos_token_id": null})"), ElementsAre(2, 7));
  for (const char* bad : {R"({"eos_token_id": 10})", R"({"eos_token_id": -1})",
                          R"({"eos_token_id": "x"})", R"({"eos_token_id": [1, 1.5]})"}) {
    try {
      eos_token_ids(config, bad);
      ADD_FAILURE() << bad;
    } catch (const model::ModelError& error) {  // in the words of convert
      EXPECT_THAT(error.what(), HasSubstr("generation_config.json: model config: eos_token_id: "))
          << bad;
    }
  }
}

}  // namespace
}  // namespace penstock::jobs
