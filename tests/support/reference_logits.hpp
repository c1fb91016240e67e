#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/run_model.hpp"

namespace penstock::tests {

inline std::string reference_path(const std::string& name) {
  return std::string(PENSTOCK_SOURCE_DIR) + "/tests/reference/data/" + name;
}

inline nlohmann::json read_reference(const std::string& name) {
  std::ifstream file(reference_path(name));
  if (!file) throw std::runtime_error("cannot open " + reference_path(name));
  return nlohmann::json::parse(file);
}

// What transformers computed for one position of a prompt: some of the logits, and the largest
// magnitude among all of them.
struct ReferenceRow {
  std::map<std::int32_t, float> logits;  // by id
  float magnitude = 0;
};

// A prompt, the tokens that greedy decoding adds, and the rows of some of the positions.
struct ReferencePrompt {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> decoded;
  std::map<std::size_t, ReferenceRow> rows;  // by position
  std::vector<std::int32_t> all() const {
    std::vector<std::int32_t> tokens = ids;
    tokens.insert(tokens.end(), decoded.begin(), decoded.end());
    return tokens;
  }
};

// NAME.json and NAME.f32; tests/reference/logits_file.py describes them.
inline std::vector<ReferencePrompt> read_reference_logits(const std::string& name,
                                                          std::int32_t vocab_size) {
  const nlohmann::json header = read_reference(name + ".json");
  std::ifstream file(reference_path(name + ".f32"), std::ios::binary);
  const auto next = [&] {
    float value = 0;
    file.read(reinterpret_cast<char*>(&value), sizeof value);
    if (!file) throw std::runtime_error(name + ".f32 is too short");
    return value;
  };
  std::vector<ReferencePrompt> prompts;
  for (const auto& entry : header.at("prompts")) {
    ReferencePrompt prompt;
    prompt.ids = entry.at("ids").get<std::vector<std::int32_t>>();
    prompt.decoded = entry.at("decoded").get<std::vector<std::int32_t>>();
    for (const auto& position : entry.at("positions")) {
      ReferenceRow& row = prompt.rows[position.at("position").get<std::size_t>()];
      row.magnitude = position.at("magnitude").get<float>();
      const auto stride = header.at("stride").get<std::int32_t>();
      for (std::int32_t id = 0; id < vocab_size; id += stride) row.logits[id] = next();
      for (const auto& id : position.at("top")) row.logits[id.get<std::int32_t>()] = next();
    }
    prompts.push_back(std::move(prompt));
  }
  if (file.peek() != std::ifstream::traits_type::eof()) {
    throw std::runtime_error(name + ".f32 is too long");
  }
  return prompts;
}

// The largest difference as a share of the row's largest magnitude.
inline float relative_difference(const ReferenceRow& row, std::span<const float> logits) {
  float largest = 0;
  for (const auto& [id, value] : row.logits) {
    const float difference = std::abs(logits[static_cast<std::size_t>(id)] - value);
    if (std::isnan(difference)) return difference;
    largest = std::max(largest, difference);
  }
  return largest / row.magnitude;
}

// The logits of each step's last position, by position, for each prompt.
using PromptLogits = std::vector<std::map<std::size_t, std::vector<float>>>;

// Feeds all prompts side by side, each in chunks of `chunk` tokens (0: all at once), then their
// decoded tokens one by one.
inline PromptLogits logits_by_chunks(ModelRunner& runner, std::span<const ReferencePrompt> prompts,
                                     std::size_t chunk) {
  PromptLogits out(prompts.size());
  std::vector<std::vector<std::int32_t>> tokens;
  std::vector<std::uint32_t> sequences;
  for (const ReferencePrompt& prompt : prompts) {
    tokens.push_back(prompt.all());
    sequences.push_back(runner.start(prompt.ids));
  }
  std::vector<std::size_t> positions(prompts.size(), 0);
  while (true) {
    std::vector<ModelRunner::Feed> feeds;
    std::vector<std::size_t> fed;
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      if (positions[i] == tokens[i].size()) continue;
      std::size_t rows = 1;
      if (positions[i] < prompts[i].ids.size()) {
        rows = prompts[i].ids.size() - positions[i];
        if (chunk != 0) rows = std::min(rows, chunk);
      }
      feeds.push_back({sequences[i], std::span(tokens[i]).subspan(positions[i], rows), true});
      fed.push_back(i);
      positions[i] += rows;
    }
    if (feeds.empty()) break;
    runner.step(feeds);
    for (std::size_t sample = 0; sample < fed.size(); ++sample) {
      const std::span<const float> logits = runner.logits(sample);
      const std::size_t i = fed[sample];
      out[i][positions[i] - 1].assign(logits.begin(), logits.end());
    }
  }
  for (const std::uint32_t sequence : sequences) runner.retire(sequence);
  return out;
}

// Every listed position that ends a step is within `tolerance` of the reference. Counts the
// compared rows and keeps the largest difference.
struct LogitsCheck {
  std::size_t rows = 0;
  float largest = 0;

  void compare(std::span<const ReferencePrompt> prompts, const PromptLogits& logits,
               float tolerance) {
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      for (const auto& [position, row] : prompts[i].rows) {
        const auto found = logits[i].find(position);
        if (found == logits[i].end()) continue;
        const float difference = relative_difference(row, found->second);
        EXPECT_LE(difference, tolerance) << "prompt " << i << ", position " << position;
        largest = std::max(largest, difference);
        ++rows;
      }
    }
  }
};

// Answers are the reference's, or first differ where its two largest logits are closer than `gap`.
// At least `least` of them are the reference's.
inline void expect_answers(const nlohmann::json& prompts,
                           const std::vector<std::vector<std::int32_t>>& answers, float gap,
                           std::size_t least) {
  ASSERT_EQ(answers.size(), prompts.size());
  std::size_t equal = 0;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const auto expected = prompts[i].at("answer").get<std::vector<std::int32_t>>();
    const auto gaps = prompts[i].at("gaps").get<std::vector<float>>();
    const auto [mine, theirs] =
        std::mismatch(answers[i].begin(), answers[i].end(), expected.begin(), expected.end());
    if (mine == answers[i].end() && theirs == expected.end()) {
      ++equal;
      continue;
    }
    const auto at = static_cast<std::size_t>(theirs - expected.begin());
    ASSERT_LT(at, expected.size()) << "answer " << i << " is too long";
    ASSERT_NE(mine, answers[i].end()) << "answer " << i << " is too short";
    EXPECT_LT(gaps[at], gap) << "answer " << i << " differs at token " << at << ": " << *mine
                             << " instead of " << *theirs << ", prompt " << prompts[i].at("prompt");
  }
  EXPECT_GE(equal, least) << "of " << answers.size();
  ::testing::Test::RecordProperty("equal_answers", std::to_string(equal));
}

}  // namespace penstock::tests
