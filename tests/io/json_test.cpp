#include "io/json.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "io/utf8.hpp"

namespace penstock::io {
namespace {

using nlohmann::json;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

// What parse_json() says to a text that it refuses.
std::string refusal(std::string_view text) {
  try {
    parse_json(text);
  } catch (const JsonError& error) {
    return error.what();
  }
  return "accepted";
}

std::string repeated(std::string_view part, std::size_t times) {
  std::string text;
  for (std::size_t i = 0; i < times; ++i) text += part;
  return text;
}

std::string lists(std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

std::string objects(std::size_t depth) {
  return repeated("{\"a\":", depth) + "1" + std::string(depth, '}');
}

TEST(Json, ParsesWhatIsSound) {
  EXPECT_EQ(parse_json(R"( {"a": [1, -2, 0.5, "é", null, true]} )"),
            (json{{"a", {1, -2, 0.5, "é", nullptr, true}}}));
  EXPECT_EQ(parse_json("3"), json(3));
  EXPECT_EQ(refusal(lists(kMaxJsonDepth)), "accepted");
  EXPECT_EQ(refusal(objects(kMaxJsonDepth)), "accepted");
}

// Sound JSON: a parser alone takes it, and what is done with it later ends the stack.
TEST(Json, RefusesDeepNesting) {
  const std::string reason = "JSON that is nested deeper than 64";
  EXPECT_EQ(refusal(lists(100'000)), reason);
  EXPECT_EQ(refusal(objects(100'000)), reason);
  EXPECT_EQ(refusal("{\"a\":" + lists(100'000) + "}"), reason);
  EXPECT_EQ(refusal(repeated("[{\"a\":", 50'000) + "1" + repeated("}]", 50'000)), reason);
  EXPECT_EQ(refusal(lists(kMaxJsonDepth + 1)), reason);
  EXPECT_EQ(refusal(objects(kMaxJsonDepth + 1)), reason);
  EXPECT_EQ(refusal(std::string(100'000, '[')), reason);  // and never closed
}

// A walk over the list at the end of each of its objects would take minutes.
TEST(Json, ALongListTakesLinearTime) {
  const std::string list = "[{}" + repeated(",{}", 1'000'000) + "]";
  EXPECT_EQ(parse_json(list).size(), 1'000'001U);
}

TEST(Json, SaysWhereAndWhy) {
  EXPECT_EQ(refusal(""),
            "broken JSON at byte 1 of it: syntax error while parsing value - unexpected end of "
            "input; expected '[', '{', or a literal");
  EXPECT_EQ(refusal("[1,]"),
            "broken JSON at byte 4 of it: syntax error while parsing value - unexpected ']'; "
            "expected '[', '{', or a literal");
  EXPECT_EQ(refusal("[1e999]"), "broken JSON: number overflow parsing '1e999'");
  EXPECT_THAT(refusal("[1] x"), HasSubstr("broken JSON at byte 5 of it: "));
}

// The library repeats what it read last, which may be the whole file.
TEST(Json, DoesNotRepeatTheFile) {
  const std::string text = "[\"" + std::string(1'000'000, 'x') + "\n\"]";
  EXPECT_THAT(refusal(text), Not(HasSubstr("xxx")));
  EXPECT_LT(refusal(text).size(), 300U);
  EXPECT_LT(refusal(std::string(1'000'000, '9')).size(), 300U);
  EXPECT_THAT(refusal("[1" + std::string(1000, '0') + "e400]"), SizeIs(::testing::Le(300U)));
}

TEST(Json, ReasonsAreWithoutTagAndValidUtf8) {
  const auto reason = [](std::string_view text) {
    try {
      return json::parse(text).dump();
    } catch (const json::exception& error) {
      return reason_of(error);
    }
  };
  EXPECT_EQ(reason("{\"a\" 1}"),
            "syntax error while parsing object separator - unexpected number literal; expected "
            "':'");
  const std::string wide = "[1" + std::string(175, '0') + "e999]";
  EXPECT_THAT(reason(wide), testing::StartsWith("number overflow parsing '1000"));
  // The cut at 200 bytes would split a character.
  EXPECT_EQ(reason_of(json::type_error::create(302, std::string(199, 'a') + "é and more",
                                               static_cast<const json*>(nullptr))),
            std::string(199, 'a') + std::string(kReplacementCharacter));
  EXPECT_EQ(reason_of(json::type_error::create(302, "type must be string; last read: 'secret'",
                                               static_cast<const json*>(nullptr))),
            "type must be string");
}

TEST(Json, ValuesInMessagesAreShortAndPlain) {
  EXPECT_EQ(in_short(nullptr), "null");
  EXPECT_EQ(in_short(-7), "-7");
  EXPECT_EQ(in_short(true), "true");
  EXPECT_EQ(in_short("two"), "\"two\"");
  EXPECT_EQ(in_short(json::array({1, 2})), "an array");
  EXPECT_EQ(in_short(json::object()), "an object");
  EXPECT_EQ(in_short("a\x1b[2J\x7f\né"), "\"a\\u001b[2J\\u007f\\n\\u00e9\"");
  EXPECT_EQ(in_short("\xff"), "\"\\ufffd\"");
  EXPECT_EQ(in_short(std::string(58, 'x')), '"' + std::string(58, 'x') + '"');
  EXPECT_EQ(in_short(std::string(59, 'x')), '"' + std::string(56, 'x') + "...");
  EXPECT_THAT(in_short(std::string(1'000'000, 'x')), SizeIs(60));
}

// A value that somebody built deeper than a parser allows is not walked through.
TEST(Json, DeepValuesAreNamedOnly) {
  json deep = 1;
  for (int i = 0; i < 1000; ++i) deep = json::array({std::move(deep)});
  EXPECT_EQ(in_short(deep), "an array");
}

TEST(Json, TypesInMessages) {
  for (const auto& [text, type] :
       std::vector<std::pair<std::string, std::string>>{{"[]", "a list"},
                                                        {"{}", "an object"},
                                                        {"\"\"", "a string"},
                                                        {"true", "a boolean"},
                                                        {"null", "null"},
                                                        {"-3", "an integer"},
                                                        {"18446744073709551615", "an integer"},
                                                        {"3.0", "a fraction"}}) {
    EXPECT_EQ(type_of(parse_json(text)), type) << text;
  }
}

}  // namespace
}  // namespace penstock::io
