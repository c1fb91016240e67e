#include "jobs/manifest.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>

namespace penstock::jobs {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

ManifestInput sample_input() {
  ManifestInput input;
  input.path = "/data/in.jsonl";
  input.records = 100;
  input.range = {0, 100};
  input.fingerprint = {5000, 1'700'000'000'000'000'001, "aaaa", "bbbb"};
  input.index_xxh3 = "cccc";
  return input;
}

struct Parts {
  std::string version = "penstock 0.1.0";
  std::string checkpoint = "model.h5";
  std::string digest = "0123";
  ManifestInput input = sample_input();
  GenerationParams params;
  std::uint32_t context = 2048;

  json manifest() const { return to_manifest(version, checkpoint, digest, input, params, context); }
};

std::vector<std::string> changed(const std::function<void(Parts&)>& change) {
  Parts now;
  change(now);
  // As it comes back from the file.
  return differences(json::parse(Parts().manifest().dump(2)), now.manifest());
}

TEST(Manifest, EqualOnesDoNotDiffer) {
  EXPECT_THAT(changed([](Parts&) {}), IsEmpty());
  Parts parts;
  parts.params.sampling.temperature = 0.7f;
  parts.params.sampling.top_p = 0.1f;
  parts.params.sampling.seed = UINT64_MAX;
  parts.params.stop = {"\n", "\xff broken UTF-8 \xe2\x82"};
  parts.input.fingerprint.mtime_ns = -1;
  parts.input.path = "/data/\xe9.jsonl";  // Latin-1: such names can be written, too
  EXPECT_THAT(differences(json::parse(parts.manifest().dump(2)), parts.manifest()), IsEmpty());
  parts.params.stop = {"\n", "the end", ""};
  EXPECT_THAT(differences(json::parse(parts.manifest().dump()), parts.manifest()), IsEmpty());
}

TEST(Manifest, EachParameterThatChangesAnswersIsCompared) {
  EXPECT_THAT(changed([](Parts& p) { p.params.sampling.temperature = 0.7f; }),
              ElementsAre("--temperature was 0, is 0.7"));
  EXPECT_THAT(changed([](Parts& p) { p.params.sampling.top_k = 40; }),
              ElementsAre("--top-k was 0, is 40"));
  EXPECT_THAT(changed([](Parts& p) { p.params.sampling.top_p = 0.95f; }),
              ElementsAre("--top-p was 1, is 0.95"));
  EXPECT_THAT(changed([](Parts& p) { p.params.sampling.min_p = 0.05f; }),
              ElementsAre("--min-p was 0, is 0.05"));
  EXPECT_THAT(changed([](Parts& p) { p.params.sampling.repetition_penalty = 1.1f; }),
              ElementsAre("--repetition-penalty was 1, is 1.1"));
  EXPECT_THAT(changed([](Parts& p) { p.params.sampling.presence_penalty = -0.3f; }),
              ElementsAre("--presence-penalty was 0, is -0.3"));
  EXPECT_THAT(changed([](Parts& p) { p.params.sampling.frequency_penalty = 0.001f; }),
              ElementsAre("--frequency-penalty was 0, is 0.001"));
  EXPECT_THAT(changed([](Parts& p) { p.params.sampling.seed = UINT64_MAX; }),
              ElementsAre("--seed was 0, is 18446744073709551615"));
  EXPECT_THAT(changed([](Parts& p) { p.params.max_tokens = 300; }),
              ElementsAre("--max-tokens was 256, is 300"));
  EXPECT_THAT(changed([](Parts& p) { p.params.ignore_eos = true; }),
              ElementsAre("--ignore-eos was false, is true"));
  EXPECT_THAT(changed([](Parts& p) { p.context = 1024; }),
              ElementsAre("--max-context was 2048, is 1024"));
  EXPECT_THAT(changed([](Parts& p) {
                p.params.stop = {"END", "\n"};
              }),
              ElementsAre("--stop was not given, is \"END\"", "--stop was not given, is \"\\n\""));
  EXPECT_THAT(changed([](Parts& p) { p.version = "penstock 0.2.0"; }),
              ElementsAre("the program was \"penstock 0.1.0\", is \"penstock 0.2.0\""));
  EXPECT_THAT(changed([](Parts& p) { p.digest = "4567"; }),
              ElementsAre("the checkpoint was \"0123\", is \"4567\""));
}

TEST(Manifest, TheInputIsCompared) {
  EXPECT_THAT(changed([](Parts& p) { p.input.format = io::InputFormat::text; }),
              ElementsAre("--input-format was \"JSONL\", is \"text\""));
  EXPECT_THAT(changed([](Parts& p) {
                p.input.records = 90;
                p.input.range.end = 90;
              }),
              UnorderedElementsAre("the number of records (--input, --limit) was 100, is 90",
                                   "the share of records (--part) was 100, is 90"));
  EXPECT_THAT(changed([](Parts& p) { p.input.range.first = 10; }),
              ElementsAre("the share of records (--part) was 0, is 10"));
  EXPECT_THAT(changed([](Parts& p) { p.input.fingerprint.size_bytes = 1; }),
              ElementsAre("the input's size was 5000, is 1"));
  EXPECT_THAT(changed([](Parts& p) { p.input.fingerprint.head_xxh3 = "x"; }),
              ElementsAre("the input's beginning was \"aaaa\", is \"x\""));
  EXPECT_THAT(changed([](Parts& p) { p.input.fingerprint.tail_xxh3 = "x"; }),
              ElementsAre("the input's end was \"bbbb\", is \"x\""));
  EXPECT_THAT(changed([](Parts& p) { p.input.index_xxh3 = "x"; }),
              ElementsAre("the input's lines was \"cccc\", is \"x\""));
}

TEST(Manifest, WhatDoesNotMatterIsNotCompared) {
  EXPECT_THAT(changed([](Parts& p) {
                p.checkpoint = "/elsewhere/model.h5";
                p.input.path = "-";
                p.input.fingerprint.mtime_ns = 7;
              }),
              IsEmpty());
}

TEST(Manifest, MembersThatOnlyOneHas) {
  json before = Parts().manifest();
  json now = before;
  before["parameters"]["chat_template"] = "old";
  now["numeric_class"] = "cpu avx2";
  EXPECT_THAT(differences(before, now),
              UnorderedElementsAre("--chat-template was \"old\", is not given",
                                   "the numeric class (device, instruction set, data types) was "
                                   "not given, is \"cpu avx2\""));
  EXPECT_THAT(differences(json::object(), Parts().manifest()), testing::SizeIs(testing::Gt(15U)));
  before = now;
  before["schema"] = 2;
  EXPECT_THAT(differences(before, now), ElementsAre("the manifest's schema was 2, is 1"));
}

TEST(Manifest, ValuesAreShownShortAndHarmless) {
  const std::vector<std::string> lines = changed([](Parts& p) {
    p.params.stop = {std::string(10'000, 'x'), "\x1b[2J\r\xff"};
  });
  ASSERT_EQ(lines.size(), 2U);
  for (const std::string& line : lines) {
    EXPECT_LT(line.size(), 200U);
    EXPECT_EQ(line.find_first_of("\x1b\r\n\xff"), std::string::npos) << line;
  }
}

// A manifest is a file, and anything may stand in it.
TEST(Manifest, OfAnyJson) {
  const json now = Parts().manifest();
  for (const char* text :
       {"{}", "[]", "null", "1", "\"text\"", "true", "[[[[]]]]", R"({"": 1})",
        R"({"/": {"~": []}})", R"({"input": 7})", R"({"input": []})", R"({"input": ["a"]})",
        R"({"parameters": "x"})", R"({"parameters": {"": 1}})",
        R"({"parameters": {"stop": {"0": {"0": 1}}}})", R"({"checkpoint": null, "schema": "1"})",
        R"({"input": {"index_xxh3": {"a": 1}}})", R"({"\u001b[2J": 1})"}) {
    SCOPED_TRACE(text);
    const json hostile = json::parse(text);
    EXPECT_THAT(differences(hostile, now), testing::Not(IsEmpty()));
    for (const std::string& line : differences(hostile, now)) {
      EXPECT_EQ(line.find('\x1b'), std::string::npos) << line;
    }
    differences(now, hostile);
    differences(hostile, hostile);
  }
  // Each member in turn is something else.
  std::mt19937 random(1);
  const std::vector<json> values = {
      nullptr, true, -1, 1e300, "", "\x1b", json::array({1, {2}}), {{"a", {{"b", "c"}}}}};
  const json flat = now.flatten();
  for (const auto& member : flat.items()) {
    for (const json& value : values) {
      json before = now;
      json::json_pointer place(member.key());
      before[place] = value;
      differences(before, now);
      before = now;
      before[place.parent_pointer()] = value;
      differences(before, now);
    }
  }
}

}  // namespace
}  // namespace penstock::jobs
