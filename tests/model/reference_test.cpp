// The trained model in the tree against transformers in f32: tests/reference says how the data were
// made.

#include <gtest/gtest.h>

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"
#include "model/stage.hpp"
#include "model/text/tokenizer.hpp"
#include "model/text/tokenizer_files.hpp"
#include "tests/support/reference_logits.hpp"
#include "tests/support/run_model.hpp"

namespace penstock::model {
namespace {

using tests::ModelRunner;

constexpr std::size_t kChunks[] = {0, 7, 32, 33, 1};
constexpr std::uint32_t kBlocks = 160;

const io::CheckpointReader& checkpoint() {
  static const io::CheckpointReader reader(PENSTOCK_SOURCE_DIR "/jobs/embedded/austen-1m.h5");
  return reader;
}

StageOptions options_of(io::DType dtype) {
  StageOptions options;
  options.dtype = dtype;
  options.kv_dtype = dtype;
  options.threads = 2;
  return options;
}

std::vector<tests::ReferencePrompt> reference(const ModelRunner& runner) {
  return tests::read_reference_logits("embedded_logits",
                                      static_cast<std::int32_t>(runner.config().vocab_size));
}

std::vector<std::vector<std::int32_t>> prompt_ids(const nlohmann::json& prompts) {
  std::vector<std::vector<std::int32_t>> ids;
  for (const auto& prompt : prompts) {
    ids.push_back(prompt.at("ids").get<std::vector<std::int32_t>>());
  }
  return ids;
}

TEST(EmbeddedModel, LogitsAreThoseOfTransformersInF32) {
  ModelRunner runner(checkpoint(), 1, options_of(io::DType::f32), kBlocks);
  tests::LogitsCheck check;
  const auto prompts = reference(runner);
  for (const std::size_t chunk : kChunks) {
    SCOPED_TRACE(testing::Message() << "chunks of " << chunk);
    check.compare(prompts, tests::logits_by_chunks(runner, prompts, chunk), 1e-4f);
  }
  EXPECT_GT(check.rows, 60u);
  RecordProperty("largest_difference", std::to_string(check.largest));
}

TEST(EmbeddedModel, GreedyAnswersAreThoseOfTransformersInF32) {
  ModelRunner runner(checkpoint(), 1, options_of(io::DType::f32), kBlocks);
  const nlohmann::json prompts = tests::read_reference("embedded_greedy.json").at("prompts");
  tests::expect_answers(
      prompts, tests::greedy(runner, prompt_ids(prompts), 64, runner.config().eos_token_ids, 512),
      1e-3f, prompts.size());
}

TEST(EmbeddedModel, Bf16StaysCloseToF32) {
  ModelRunner runner(checkpoint(), 1, options_of(io::DType::bf16), kBlocks);
  tests::LogitsCheck check;
  const auto prompts = reference(runner);
  check.compare(prompts, tests::logits_by_chunks(runner, prompts, 0), 2e-2f);
  EXPECT_GT(check.rows, 10u);
  RecordProperty("largest_difference", std::to_string(check.largest));
}

// Chunks, stages, threads and batch mates change no bit of the logits.
TEST(EmbeddedModel, BitsDoNotDependOnTheLayout) {
  for (const io::DType dtype : {io::DType::f32, io::DType::bf16}) {
    SCOPED_TRACE(dtype == io::DType::f32 ? "f32" : "bf16");
    StageOptions one_thread = options_of(dtype);
    one_thread.threads = 1;
    ModelRunner one(checkpoint(), 1, one_thread, kBlocks);
    ModelRunner three(checkpoint(), 3, options_of(dtype), kBlocks);
    ModelRunner six(checkpoint(), 6, options_of(dtype), kBlocks);
    const auto prompts = reference(one);
    // Each prompt and each position on its own is what everything else has to equal.
    tests::PromptLogits alone;
    for (const tests::ReferencePrompt& prompt : prompts) {
      alone.push_back(tests::logits_by_chunks(one, std::span(&prompt, 1), 1).front());
    }
    for (ModelRunner* runner : {&one, &three, &six}) {
      for (const std::size_t chunk : kChunks) {
        const tests::PromptLogits together = tests::logits_by_chunks(*runner, prompts, chunk);
        for (std::size_t i = 0; i < prompts.size(); ++i) {
          for (const auto& [position, logits] : together[i]) {
            const std::vector<float>& expected = alone[i].at(position);
            ASSERT_EQ(logits.size(), expected.size());
            EXPECT_EQ(std::memcmp(logits.data(), expected.data(), logits.size() * sizeof(float)), 0)
                << "prompt " << i << ", position " << position << ", chunks of " << chunk;
          }
        }
      }
    }
  }
}

TEST(EmbeddedModel, TokenizerIsTheOneOfTheReference) {
  const Tokenizer tokenizer =
      Tokenizer::from_json(from_blobs(checkpoint().header().tokenizer).tokenizer_json);
  const nlohmann::json prompts = tests::read_reference("embedded_greedy.json").at("prompts");
  for (const auto& prompt : prompts) {
    const auto text = prompt.at("prompt").get<std::string>();
    const bool conversation = text.starts_with("<|im_start|>");
    EXPECT_EQ(tokenizer.encode(text, !conversation),
              prompt.at("ids").get<std::vector<std::int32_t>>())
        << text;
    EXPECT_EQ(tokenizer.decode(prompt.at("answer").get<std::vector<std::int32_t>>(), true),
              prompt.at("text").get<std::string>());
  }
}

}  // namespace
}  // namespace penstock::model
