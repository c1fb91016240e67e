#include "io/records.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace penstock::io {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Record parse(std::string_view line) { return parse_record(line, InputFormat::jsonl); }

// The message, after "id=…: " if an id was recovered.
std::string error_of(std::string_view line, InputFormat format = InputFormat::jsonl) {
  try {
    parse_record(line, format);
  } catch (const RecordError& error) {
    return (error.id.is_null() ? "" : "id=" + error.id.dump() + ": ") + error.what();
  }
  return "accepted";
}

TEST(Records, Prompt) {
  const Record record = parse(R"({"id": "a-1", "prompt": "Hi\nthere", "temperature": 0.5})");
  EXPECT_EQ(record.id, "a-1");
  EXPECT_EQ(std::get<std::string>(record.input), "Hi\nthere");
  EXPECT_EQ(record.overrides.dump(), R"({"temperature":0.5})");
}

TEST(Records, IdsAreKeptAsTheyAre) {
  EXPECT_EQ(parse(R"({"prompt":"x"})").id.dump(), "null");
  EXPECT_EQ(parse(R"({"id":null,"prompt":"x"})").id.dump(), "null");
  EXPECT_EQ(parse(R"({"id":18446744073709551615,"prompt":"x"})").id.dump(), "18446744073709551615");
  EXPECT_EQ(parse(R"({"id":-9223372036854775808,"prompt":"x"})").id.dump(), "-9223372036854775808");
  EXPECT_EQ(parse(R"({"id":"\u00e9\u0000\"","prompt":"x"})").id.dump(), "\"é\\u0000\\\"\"");
}

TEST(Records, Messages) {
  const Record record = parse(
      R"({"messages":[{"role":"system","content":""},
          {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]})");
  const auto& messages = std::get<std::vector<Message>>(record.input);
  ASSERT_EQ(messages.size(), 2u);
  EXPECT_EQ(messages[0].role, "system");
  EXPECT_EQ(messages[0].content, "");
  EXPECT_EQ(messages[1].role, "user");
  EXPECT_EQ(messages[1].content, "a\nb");
  EXPECT_TRUE(record.overrides.empty());
}

TEST(Records, Tokens) {
  const Record record = parse(R"({"tokens":[0, 5, 2147483647]})");
  EXPECT_THAT(std::get<std::vector<std::int32_t>>(record.input), ElementsAre(0, 5, 2147483647));
}

TEST(Records, NullMeansAbsent) {
  const Record record = parse(R"({"prompt":null,"messages":null,"tokens":[1]})");
  EXPECT_THAT(std::get<std::vector<std::int32_t>>(record.input), ElementsAre(1));
  EXPECT_TRUE(record.overrides.empty());
}

TEST(Records, MessagesOfBadFields) {
  const auto expect = [](std::string_view line, std::string_view message) {
    EXPECT_EQ(error_of(line), message) << line;
  };
  expect(R"({"prompt":17})", "'prompt' must be a string, not an integer");
  expect(R"({"prompt":1.5})", "'prompt' must be a string, not a fraction");
  expect(R"({"prompt":true})", "'prompt' must be a string, not a boolean");
  expect(R"({"prompt":{}})", "'prompt' must be a string, not an object");
  expect(R"({"prompt":[1,2]})",
         "'prompt' must be a string, not a list; token ids go into 'tokens'");
  expect(R"({"prompt":""})", "'prompt' is empty");
  expect(R"({})", "has none of 'prompt', 'messages', 'tokens'");
  expect(R"({"prompt":null})", "has none of 'prompt', 'messages', 'tokens'");
  expect(R"({"prompt":"a","tokens":[1]})", "has 'prompt' and 'tokens'; give only one of them");
  expect(R"({"prompt":"a","prompt":"b"})", "'prompt' is given twice");
  expect(R"([1])", "must be a JSON object, not a list");
  expect(R"("text")", "must be a JSON object, not a string");
  expect(R"({"id":1.5,"prompt":"a"})",
         "'id' must be a string or an integer, not a number that is not a 64-bit integer");
  expect(R"({"id":18446744073709551616,"prompt":"a"})",
         "'id' must be a string or an integer, not a number that is not a 64-bit integer");
  expect(R"({"id":[1],"prompt":"a"})", "'id' must be a string or an integer, not a list");
  expect(R"({"id":7,"prompt":1})", "id=7: 'prompt' must be a string, not an integer");
  expect(R"({"tokens":"1 2"})", "'tokens' must be a list of integers, not a string");
  expect(R"({"tokens":[]})", "'tokens' is empty");
  expect(R"({"tokens":[1,-1]})", "'tokens[1]' is -1, not a token id");
  expect(R"({"tokens":[2147483648]})", "'tokens[0]' is 2147483648, not a token id");
  expect(R"({"tokens":[1.0]})",
         "'tokens[0]' must be an integer, not a number that is not a 64-bit integer");
  expect(R"({"tokens":[null]})", "'tokens[0]' must be an integer, not null");
  expect(R"({"messages":"hi"})", "'messages' must be a list, not a string");
  expect(R"({"messages":[]})", "'messages' is empty");
  expect(R"({"messages":["hi"]})", "'messages[0]' must be an object, not a string");
  expect(R"({"messages":[{"content":"a"}]})", "'messages[0].role' is missing");
  expect(R"({"messages":[{"role":1,"content":"a"}]})",
         "'messages[0].role' must be a string, not an integer");
  expect(R"({"messages":[{"role":"","content":"a"}]})", "'messages[0].role' is empty");
  expect(R"({"messages":[{"role":"user"}]})", "'messages[0].content' is missing");
  expect(R"({"messages":[{"role":"user","content":null}]})",
         "'messages[0].content' must be a string, not null");
  expect(R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})",
         "'messages[0].content[0].type' is 'image_url'; only \"text\" can be answered");
  expect(R"({"messages":[{"role":"user","content":["a"]}]})",
         "'messages[0].content[0]' must be an object, not a string");
  expect(R"({"messages":[{"role":"user","content":[{"type":"text"}]}]})",
         "'messages[0].content[0].text' must be a string");
  expect(R"({"messages":[{"role":"user","content":"a","tool_calls":[]}]})",
         "'messages[0]' has a member 'tool_calls' that is not known; it may hold 'role' and "
         "'content'");
}

TEST(Records, BadJsonNamesTheColumn) {
  EXPECT_EQ(error_of(R"({"prompt": "a",})"),
            "not valid JSON at column 16: syntax error while parsing object key - unexpected '}'; "
            "expected string literal");
  EXPECT_THAT(error_of(R"({"prompt": "a)"), HasSubstr("not valid JSON at column 14: "));
  EXPECT_THAT(error_of("nonsense"), HasSubstr("not valid JSON at column 2: "));
  EXPECT_THAT(error_of(R"({"prompt":"a"} {"prompt":"b"})"), HasSubstr("not valid JSON at column"));
  EXPECT_THAT(error_of(R"({"prompt":"a","seed":1e999})"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_of(""), HasSubstr("not valid JSON at column 1: "));
}

TEST(Records, BadJsonIsNotRepeatedAtLength) {
  const std::string message = error_of("{\"prompt\":\"" + std::string(100000, 'x'));
  EXPECT_THAT(message, HasSubstr("not valid JSON at column"));
  EXPECT_LT(message.size(), 300u);
}

TEST(Records, BrokenUtf8) {
  EXPECT_THAT(error_of("{\"prompt\":\"a\xff\"}"), HasSubstr("not valid JSON at column 13: "));
  EXPECT_THAT(error_of("{\"prompt\":\"\xed\xa0\x80\"}"), HasSubstr("not valid JSON"));
  EXPECT_EQ(std::get<std::string>(parse_record("a\xff z", InputFormat::text).input),
            "a\xEF\xBF\xBD z");
}

// A walk over the list at the end of each of its objects would take minutes.
TEST(Records, ALongListTakesLinearTime) {
  std::string line = R"({"messages": [{})";
  for (int i = 0; i < 1'000'000; ++i) line += ",{}";
  EXPECT_EQ(error_of(line + "]}"), "'messages[0].role' is missing");
}

TEST(Records, DeepNestingIsAnError) {
  const std::string open(100000, '[');
  EXPECT_EQ(error_of(open), "nested deeper than 64");
  EXPECT_EQ(error_of("{\"prompt\":\"a\",\"metadata\":" + open + std::string(100000, ']') + "}"),
            "nested deeper than 64");
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  EXPECT_EQ(error_of(objects), "nested deeper than 64");
  // As deep as is allowed.
  EXPECT_EQ(error_of("{\"prompt\":\"a\",\"metadata\":" + std::string(60, '[') +
                     std::string(60, ']') + "}"),
            "accepted");
}

TEST(Records, TextLineIsAPrompt) {
  const Record record = parse_record("{\"prompt\": 1} é", InputFormat::text);
  EXPECT_TRUE(record.id.is_null());
  EXPECT_EQ(std::get<std::string>(record.input), "{\"prompt\": 1} é");
  EXPECT_TRUE(record.overrides.is_object());
  EXPECT_EQ(error_of("", InputFormat::text), "is empty");
}

}  // namespace
}  // namespace penstock::io
