// What becomes of each record of a dataset, good or bad, and of its row in the output.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class Records : public testing::Test {
 protected:
  Finished run(const std::string& input, const Arguments& options = {},
               const std::string& standard_input = "") {
    const bool memory = std::find(options.begin(), options.end(), "--kv-memory") != options.end();
    return penstock(Arguments{"run", kEmbeddedModel, "--input", input, "--output", output_,
                              "--progress", "none", "--fresh"} +
                        (memory ? Arguments{} : Arguments{"--kv-memory", "32M"}) + options,
                    standard_input);
  }
  std::vector<json> rows() const { return read_rows(output_); }
  json state() const { return json::parse(read_bytes(output_ + ".job/state")); }

  std::size_t token_count(const std::string& text) {
    const std::string path = workplace_.write("text", text + "\n");
    const Finished finished = penstock({"tokenize", kEmbeddedModel, "--input", path});
    EXPECT_EQ(finished.code, 0) << finished;
    std::istringstream ids(finished.out);
    std::size_t count = 0;
    for (std::string id; ids >> id;) ++count;
    return count;
  }

  TemporaryFolder workplace_;
  std::string output_ = workplace_ / "output.jsonl";
};

TEST_F(Records, BadOnesGetErrorRowsInTheirPlace) {
  struct Case {
    std::string line;
    json id;
    std::string reason;  // empty: it is answered
  };
  const std::string long_prompt = [] {
    std::string text;
    for (int i = 0; i < 600; ++i) text += " walked";
    return text;
  }();
  const std::vector<Case> cases = {
      {R"({"id": "first", "prompt": "Mr. Darcy"})", "first", ""},
      {R"({"id": "cut", "prompt": "Mr.)", nullptr, "not valid JSON"},
      {R"([1, 2])", nullptr, "must be a JSON object"},
      {R"(plain text)", nullptr, "not valid JSON"},
      {R"({"id": 7})", 7, "none of 'prompt', 'messages', 'tokens'"},
      {R"({"id": 7, "prompt": 5})", 7, "'prompt' must be a string"},
      {R"({"id": "", "prompt": ["a"]})", "", "'prompt' must be a string"},
      {R"({"id": -3, "prompt": ""})", -3, "'prompt' is empty"},
      {R"({"id": [1], "prompt": "a"})", nullptr, "'id' must be"},
      {R"({"id": 1.5, "prompt": "a"})", nullptr, "'id' must be"},
      {R"({"id": "two", "prompt": "a", "tokens": [5]})", "two", "'prompt' and 'tokens'"},
      {R"({"id": "twice", "prompt": "a", "prompt": "b"})", nullptr, "given twice"},
      {json{{"id", "long"}, {"prompt", long_prompt}}.dump(), "long", "the context holds 512"},
      {R"({"id": "what", "prompt": "a", "temprature": 1})", "what", "'temprature'"},
      {R"({"id": "v", "prompt": "a", "temperature": -1})", "v", "'temperature' must be"},
      {R"({"id": "v", "prompt": "a", "temperature": "hot"})", "v", "'temperature' must be"},
      {R"({"id": "v", "prompt": "a", "max_tokens": 0})", "v", "'max_tokens' must be"},
      {R"({"id": "v", "prompt": "a", "max_tokens": 2.5})", "v", "'max_tokens' must be"},
      {R"({"id": "v", "prompt": "a", "top_p": 0})", "v", "'top_p' must be"},
      {R"({"id": "v", "prompt": "a", "seed": -1})", "v", "'seed' must be"},
      {R"({"id": "v", "prompt": "a", "stop": [""]})", "v", "'stop'"},
      {R"({"id": "v", "prompt": "a", "stop": 4})", "v", "'stop'"},
      {R"({"id": "v", "prompt": "a", "stop_token_ids": [99999]})", "v", "'stop_token_ids'"},
      {R"({"id": "t", "tokens": []})", "t", "'tokens' is empty"},
      {R"({"id": "t", "tokens": [1, -2]})", "t", "'tokens[1]'"},
      {R"({"id": "t", "tokens": [1, 1024]})", "t", "token 1 of the prompt is 1024"},
      {R"({"id": "t", "tokens": "1 2"})", "t", "'tokens' must be a list"},
      {R"({"id": "m", "messages": []})", "m", "'messages' is empty"},
      {R"({"id": "m", "messages": [{"role": "user"}]})", "m", "'messages[0].content' is missing"},
      {R"({"id": "m", "messages": [{"content": "a"}]})", "m", "'messages[0].role' is missing"},
      {"{\"id\": \"u\", \"prompt\": \"\xff\"}", nullptr, "not valid JSON"},
      {R"({"id": "tokens", "tokens": [0, 50, 60]})", "tokens", ""},
      {R"({"prompt": "Her mother"})", nullptr, ""},
      {R"({"id": 18446744073709551615, "prompt": "Her mother"})", 18446744073709551615U, ""},
      {R"({"id": -9223372036854775808, "prompt": "Her mother"})", INT64_MIN, ""},
      {R"({"id": null, "prompt": "Her mother", "seed": null})", nullptr, ""},
      {R"({"id": "é\n\"", "messages": [{"role": "user", "content": "Who?"}]})", "é\n\"", ""},
  };
  std::string input = "\n";  // blank lines are no records, but lines
  for (const Case& c : cases) input += c.line + "\n\n";
  const Finished finished = run(workplace_.write("input.jsonl", input), {"--max-tokens", "6"});
  EXPECT_EQ(finished.code, 2) << finished;

  const std::vector<json> all = rows();
  ASSERT_EQ(all.size(), cases.size());
  std::uint64_t failed = 0;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const json& row = all[i];
    SCOPED_TRACE(cases[i].line.substr(0, 100) + " -> " + row.dump());
    EXPECT_EQ(row.at("index"), i);
    EXPECT_EQ(row.at("id"), cases[i].id);
    if (cases[i].reason.empty()) {
      EXPECT_TRUE(row.at("finish_reason") == "stop" || row.at("finish_reason") == "length");
      EXPECT_TRUE(row.at("text").is_string());
      EXPECT_FALSE(row.contains("error"));
      continue;
    }
    ++failed;
    EXPECT_EQ(row.at("finish_reason"), "error");
    EXPECT_TRUE(row.at("text").is_null());
    EXPECT_EQ(row.at("error").at("line"), 2 + 2 * i);
    EXPECT_THAT(row.at("error").at("message").get<std::string>(), HasSubstr(cases[i].reason));
  }
  EXPECT_EQ(state().at("state"), "errors");
  EXPECT_EQ(state().at("failed"), failed);
  EXPECT_EQ(state().at("finished"), cases.size() - failed);
  EXPECT_EQ(state().at("left"), 0);
  EXPECT_THAT(finished.err, HasSubstr("error row: line "));
}

TEST_F(Records, BadOnesGiveTheSameRowsAndCodeOnTwoRanks) {
  const std::string input = workplace_.write(
      "input.jsonl",
      "{\"prompt\": \"Mr. Darcy\"}\n{\"prompt\": 1}\n{\"prompt\": \"Her mother\"}\nnothing\n");
  ASSERT_EQ(run(input, {"--max-tokens", "5"}).code, 2);
  const std::string expected = read_bytes(output_);
  const Finished ranks =
      penstock_ranks(2, {"run", kEmbeddedModel, "--input", input, "--output", output_,
                         "--max-tokens", "5", "--kv-memory", "16M", "--fresh"});
  EXPECT_EQ(ranks.code, 2) << ranks;
  EXPECT_EQ(read_bytes(output_), expected);
}

TEST_F(Records, OnlyBadOnes) {
  const Finished finished = run(workplace_.write("input.jsonl", "{\n{\n"));
  EXPECT_EQ(finished.code, 2) << finished;
  EXPECT_EQ(rows().size(), 2U);
}

TEST_F(Records, NoneAtAll) {
  for (const char* text : {"", "\n\n \n"}) {
    const Finished finished = run(workplace_.write("input.jsonl", text));
    EXPECT_EQ(finished.code, 0) << finished;
    EXPECT_EQ(read_bytes(output_), "");
    EXPECT_EQ(state().at("state"), "done");
  }
}

TEST_F(Records, StandardInputAndPlainText) {
  const std::string jsonl =
      "{\"id\": 1, \"prompt\": \"Mr. Darcy\"}\n{\"id\": 2, \"prompt\": \"They walked\"}";
  ASSERT_EQ(run("-", {"--max-tokens", "8"}, jsonl).code, 0);
  const std::vector<json> from_stdin = rows();
  ASSERT_EQ(run(workplace_.write("a.jsonl", jsonl), {"--max-tokens", "8"}).code, 0);
  EXPECT_EQ(rows(), from_stdin);
  // The last line without a newline, and a carriage return that belongs to the line's end.
  ASSERT_EQ(
      run(workplace_.write("b.txt", "Mr. Darcy\r\n\nThey walked"), {"--max-tokens", "8"}).code, 0);
  const std::vector<json> from_text = rows();
  ASSERT_EQ(from_text.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(from_text[i].at("text"), from_stdin[i].at("text"));
    EXPECT_EQ(from_text[i].at("usage"), from_stdin[i].at("usage"));
    EXPECT_EQ(from_text[i].at("index"), i);
    EXPECT_TRUE(from_text[i].at("id").is_null());
  }
}

TEST_F(Records, LimitTakesTheFirst) {
  std::string input;
  for (int i = 0; i < 20; ++i) {
    // Worked on longest first: the limit must not follow that order.
    input +=
        json{{"id", i}, {"prompt", std::string(static_cast<std::size_t>(i + 1) * 5, 'a')}}.dump() +
        "\n";
  }
  const std::string path = workplace_.write("input.jsonl", input);
  ASSERT_EQ(run(path, {"--max-tokens", "3"}).code, 0);
  const std::vector<std::string> all = lines_of(read_bytes(output_));
  ASSERT_EQ(all.size(), 20U);
  ASSERT_EQ(run(path, {"--max-tokens", "3", "--limit", "7"}).code, 0);
  EXPECT_EQ(lines_of(read_bytes(output_)), std::vector<std::string>(all.begin(), all.begin() + 7));
  ASSERT_EQ(run(path, {"--max-tokens", "3", "--limit", "0"}).code, 0);
  EXPECT_EQ(read_bytes(output_), "");
  // A source that never ends.
  const Finished endless =
      start({"/bin/bash", "-c",
             "yes '{\"prompt\": \"Mr. Darcy\"}' | " PENSTOCK_PROGRAM " run " + kEmbeddedModel +
                 " --input - --fresh --max-tokens 3 --limit 2 --kv-memory 32M --output " + output_},
            "", std::chrono::seconds(30));
  EXPECT_EQ(endless.code, 0) << endless;
  EXPECT_EQ(rows().size(), 2U);
}

TEST_F(Records, FormatMayBeGivenWhereItCannotBeTold) {
  const std::string mixed = "oops\n{\"prompt\": \"Mr. Darcy\"}\n";
  const Finished refused = run("-", {"--max-tokens", "3"}, mixed);
  EXPECT_EQ(refused.code, 1) << refused;
  EXPECT_THAT(refused.err, HasSubstr("standard input: is JSONL or text?"));
  EXPECT_EQ(run("-", {"--max-tokens", "3", "--input-format", "jsonl"}, mixed).code, 2);
  EXPECT_EQ(rows().at(0).at("finish_reason"), "error");
  EXPECT_EQ(rows().at(1).at("usage").at("prompt_tokens"), token_count("Mr. Darcy"));
  EXPECT_EQ(run("-", {"--max-tokens", "3", "--input-format", "text"}, mixed).code, 0);
  EXPECT_EQ(rows().at(0).at("usage").at("prompt_tokens"), token_count("oops"));
}

TEST_F(Records, UsageCountsAreTheTokenizers) {
  std::string input;
  const std::vector<std::string> prompts = {"Mr. Darcy", "It is a truth universally acknowledged,",
                                            "日本 🙂 café", "a", "   spaces   and\ttabs"};
  for (const std::string& prompt : prompts) input += json{{"prompt", prompt}}.dump() + "\n";
  ASSERT_EQ(run(workplace_.write("input.jsonl", input), {"--max-tokens", "9"}).code, 0);
  const std::vector<json> all = rows();
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(all[i].at("usage").at("prompt_tokens"), token_count(prompts[i])) << prompts[i];
    if (all[i].at("finish_reason") == "length") {
      EXPECT_EQ(all[i].at("usage").at("completion_tokens"), 9);
    } else {
      EXPECT_LE(all[i].at("usage").at("completion_tokens"), 9);
    }
  }
}

TEST_F(Records, OverridesWinAndLastForOneRecord) {
  const json prompt = {{"prompt", "It is a truth universally acknowledged,"}};
  const auto with = [&](const json& fields) {
    json record = prompt;
    record.update(fields);
    return record.dump() + "\n";
  };
  // The seed is the record's own, but randomness is keyed by the record's index too; so the same
  // index is compared between runs.
  const std::string path = workplace_.write(
      "input.jsonl", with(json::object()) + with({{"max_tokens", 3}}) +
                         with({{"temperature", 1.2}, {"seed", 5}}) + with(json::object()));
  ASSERT_EQ(run(path, {"--max-tokens", "12"}).code, 0);
  const std::vector<json> first = rows();
  EXPECT_EQ(first[0].at("usage").at("completion_tokens"), 12);
  EXPECT_EQ(first[1].at("usage").at("completion_tokens"), 3);
  EXPECT_TRUE(
      first[0].at("text").get<std::string>().starts_with(first[1].at("text").get<std::string>()));
  EXPECT_NE(first[2].at("text"), first[0].at("text"));
  EXPECT_EQ(first[3].at("text"), first[0].at("text"));

  // The same values as options: now record 2 is the one that changes nothing.
  ASSERT_EQ(run(path, {"--max-tokens", "12", "--temperature", "1.2", "--seed", "5"}).code, 0);
  const std::vector<json> second = rows();
  EXPECT_EQ(second[2].at("text"), first[2].at("text"));
  EXPECT_NE(second[0].at("text"), first[0].at("text"));
  EXPECT_EQ(second[1].at("usage").at("completion_tokens"), 3);
}

TEST_F(Records, StopStringsCutAcrossTokens) {
  const std::string prompt = "It is a truth universally acknowledged,";
  const auto answer = [&](const json& fields) {
    json record = {{"prompt", prompt}, {"max_tokens", 40}};
    record.update(fields);
    EXPECT_EQ(run(workplace_.write("input.jsonl", record.dump())).code, 0);
    return rows().at(0);
  };
  const std::string whole = answer(json::object()).at("text");
  ASSERT_GT(whole.size(), 60U);
  // Every piece of 7 bytes is a stop string once: it lies in one token or spans two, three, ….
  std::set<std::uint64_t> counts;
  for (std::size_t at = 0; at + 7 <= 60; at += 4) {
    const std::string stop = whole.substr(at, 7);
    const std::size_t cut = whole.find(stop);
    const json row = answer({{"stop", json::array({"not in it", stop})}});
    EXPECT_EQ(row.at("text"), whole.substr(0, cut)) << "stop: " << stop;
    EXPECT_EQ(row.at("finish_reason"), "stop");
    EXPECT_LT(row.at("usage").at("completion_tokens"), 40);
    counts.insert(row.at("usage").at("completion_tokens").get<std::uint64_t>());
    if (at >= 20) at += 8;
  }
  EXPECT_GT(counts.size(), 3U);
  EXPECT_EQ(answer({{"stop", "not in it"}}).at("text"), whole);
  EXPECT_EQ(answer({{"stop", "not in it"}}).at("finish_reason"), "length");
}

TEST_F(Records, StopIdsAndEosEndAnAnswer) {
  // A conversation ends by itself (README of the embedded model), unless the stop ids are ignored.
  const json record = {
      {"messages", json::array({{{"role", "user"}, {"content", "Who is there?"}}})},
      {"max_tokens", 200}};
  const auto answer = [&](const json& fields) {
    json changed = record;
    changed.update(fields);
    EXPECT_EQ(run(workplace_.write("input.jsonl", changed.dump())).code, 0);
    return rows().at(0);
  };
  const json stopped = answer(json::object());
  EXPECT_EQ(stopped.at("finish_reason"), "stop");
  const auto tokens = stopped.at("usage").at("completion_tokens").get<int>();
  EXPECT_LT(tokens, 200);
  EXPECT_THAT(stopped.at("text").get<std::string>(), testing::Not(HasSubstr("<|im_end|>")));
  const json ignored = answer({{"ignore_eos", true}});
  EXPECT_GT(ignored.at("usage").at("completion_tokens"), tokens);
  EXPECT_TRUE(
      ignored.at("text").get<std::string>().starts_with(stopped.at("text").get<std::string>()));
}

TEST_F(Records, AnswerEndsWithTheContext) {
  const std::string input =
      workplace_.write("input.jsonl", R"({"prompt": "Mr. Darcy", "ignore_eos": true})");
  const auto prompt_tokens = token_count("Mr. Darcy");
  ASSERT_EQ(run(input, {"--max-context", "20", "--max-tokens", "1000"}).code, 0);
  EXPECT_EQ(rows().at(0).at("finish_reason"), "length");
  EXPECT_EQ(rows().at(0).at("usage").at("completion_tokens"), 20 - prompt_tokens);
  // A prompt that fills it alone has no room for an answer.
  ASSERT_EQ(run(input, {"--max-context", std::to_string(prompt_tokens)}).code, 2);
  EXPECT_THAT(rows().at(0).at("error").at("message").get<std::string>(),
              HasSubstr("no room for an answer"));
}

TEST_F(Records, PromptLargerThanTheKvMemoryIsAnErrorRow) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += " walked";
  const std::string input = workplace_.write(
      "input.jsonl", json{{"prompt", text}}.dump() + "\n" + R"({"prompt": "Mr. Darcy"})");
  // One block of 32 tokens of 6 layers.
  ASSERT_EQ(run(input, {"--max-tokens", "3", "--dtype", "bf16", "--kv-memory", "75000"}).code, 2);
  EXPECT_THAT(rows().at(0).at("error").at("message").get<std::string>(),
              HasSubstr("raise --kv-memory"));
  EXPECT_EQ(rows().at(0).at("error").at("line"), 1);
  EXPECT_EQ(rows().at(1).at("usage").at("completion_tokens"), 3);
}

}  // namespace
}  // namespace penstock::tests
