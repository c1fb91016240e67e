// SmolLM2-135M-Instruct, converted from its GGUF, against transformers in f32: tests/reference says
// how the data were made and where the file is found. The environment variable
// PENSTOCK_SMOLLM2_GGUF names it.

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "io/checkpoint.hpp"
#include "model/convert/convert.hpp"
#include "model/stage.hpp"
#include "model/text/tokenizer.hpp"
#include "model/text/tokenizer_files.hpp"
#include "tests/support/reference_logits.hpp"
#include "tests/support/run_model.hpp"

namespace penstock::model {
namespace {

using tests::ModelRunner;

constexpr bool kSanitized = sizeof(PENSTOCK_TEST_SANITIZER) > 1;

class Smollm2 : public testing::Test {
 protected:
  // f32, as rounding the dequantized weights to bf16 would cost more than the tolerance.
  static void SetUpTestSuite() {
    const char* gguf = std::getenv("PENSTOCK_SMOLLM2_GGUF");
    if (gguf == nullptr || *gguf == '\0' || kSanitized) return;
    path_ = testing::TempDir() + "smollm2-f32-" + std::to_string(::getpid()) + ".h5";
    ConvertOptions options;
    options.dtype = io::DType::f32;
    options.created_by = "reference_test";
    convert_model(gguf, path_, options, {});
    checkpoint_ = std::make_unique<io::CheckpointReader>(path_);
  }

  static void TearDownTestSuite() {
    checkpoint_.reset();
    if (!path_.empty()) std::filesystem::remove(path_);
  }

  void SetUp() override {
    if (kSanitized) {
      GTEST_SKIP() << "a sanitizer takes minutes for a real model; the release build runs it";
    }
    if (!checkpoint_) {
      GTEST_SKIP() << "PENSTOCK_SMOLLM2_GGUF does not name SmolLM2-135M-Instruct.Q4_1.gguf";
    }
  }

  static ModelRunner make_runner(int stages) {
    StageOptions options;
    options.dtype = io::DType::f32;
    options.kv_dtype = io::DType::f32;
    options.threads = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 4u));
    return ModelRunner(*checkpoint_, stages, options, 420);
  }

  static std::vector<tests::ReferencePrompt> reference() {
    return tests::read_reference_logits("smollm2_logits", 49152);
  }

  static std::string path_;
  static std::unique_ptr<io::CheckpointReader> checkpoint_;
};

std::string Smollm2::path_;
std::unique_ptr<io::CheckpointReader> Smollm2::checkpoint_;

TEST_F(Smollm2, TokenizerIsTheOneOfTheReference) {
  const Tokenizer tokenizer =
      Tokenizer::from_json(from_blobs(checkpoint_->header().tokenizer).tokenizer_json);
  const auto reference = tests::read_reference("smollm2_greedy.json");
  for (const auto& prompt : reference.at("prompts")) {
    const auto text = prompt.at("prompt").get<std::string>();
    EXPECT_EQ(tokenizer.encode(text, true), prompt.at("ids").get<std::vector<std::int32_t>>())
        << text;
  }
}

TEST_F(Smollm2, LogitsAreThoseOfTransformers) {
  ModelRunner runner = make_runner(1);
  tests::LogitsCheck check;
  const auto prompts = reference();
  for (const std::size_t chunk : {0, 7, 32, 33, 1}) {
    SCOPED_TRACE(testing::Message() << "chunks of " << chunk);
    check.compare(prompts, tests::logits_by_chunks(runner, prompts, chunk), 1e-4f);
  }
  EXPECT_GT(check.rows, 130u);
  RecordProperty("largest_difference", std::to_string(check.largest));
}

TEST_F(Smollm2, GreedyAnswersAreThoseOfTransformers) {
  ModelRunner runner = make_runner(1);
  const nlohmann::json prompts = tests::read_reference("smollm2_greedy.json").at("prompts");
  ASSERT_EQ(prompts.size(), 100u);
  std::vector<std::vector<std::int32_t>> ids;
  for (const auto& prompt : prompts) {
    ids.push_back(prompt.at("ids").get<std::vector<std::int32_t>>());
  }
  tests::expect_answers(prompts, tests::greedy(runner, ids, 64, {}, 512), 1e-3f, 90);
}

TEST_F(Smollm2, ThreeStagesGiveTheSameBits) {
  ModelRunner one = make_runner(1);
  ModelRunner three = make_runner(3);
  const auto prompts = reference();
  EXPECT_EQ(tests::logits_by_chunks(one, prompts, 33), tests::logits_by_chunks(three, prompts, 33));
}

}  // namespace
}  // namespace penstock::model
