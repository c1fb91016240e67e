#include "jobs/output_row.hpp"

#include <gtest/gtest.h>

namespace penstock::jobs {
namespace {

TEST(OutputRow, Answer) {
  EXPECT_EQ(to_row(Answer{7, "a-1", "Hi \"you\"\n\té😀", FinishReason::stop, 5, 3}),
            R"({"id":"a-1","index":7,"text":"Hi \"you\"\n\té😀","finish_reason":"stop",)"
            R"("usage":{"prompt_tokens":5,"completion_tokens":3}})");
  EXPECT_EQ(to_row(Answer{0, nullptr, "", FinishReason::length, 1, 0}),
            R"({"id":null,"index":0,"text":"","finish_reason":"length",)"
            R"("usage":{"prompt_tokens":1,"completion_tokens":0}})");
}

TEST(OutputRow, IdsAreEchoed) {
  const auto id_in_row = [](const char* id) {
    const std::string row = to_row(FailedRecord{1, 1, nlohmann::json::parse(id), ""});
    return row.substr(6, row.find(",\"index\"") - 6);
  };
  EXPECT_EQ(id_in_row("18446744073709551615"), "18446744073709551615");
  EXPECT_EQ(id_in_row("-9223372036854775808"), "-9223372036854775808");
  EXPECT_EQ(id_in_row(R"("é\u0000/\n")"), R"("é\u0000/\n")");
}

TEST(OutputRow, Error) {
  const FailedRecord failed{2, 17, 5, "'prompt' must be a string, not a number"};
  EXPECT_EQ(to_row(failed),
            R"({"id":5,"index":2,"text":null,"finish_reason":"error",)"
            R"("error":{"message":"'prompt' must be a string, not a number","line":17}})");
  EXPECT_EQ(describe(failed), "line 17: 'prompt' must be a string, not a number");
}

TEST(OutputRow, BrokenUtf8IsReplaced) {
  EXPECT_EQ(to_row(FailedRecord{0, 1, nullptr, "a\xff\xe2\x82"}),
            "{\"id\":null,\"index\":0,\"text\":null,\"finish_reason\":\"error\","
            "\"error\":{\"message\":\"a\xEF\xBF\xBD\xEF\xBF\xBD\",\"line\":1}}");
  EXPECT_NE(to_row(Answer{0, nullptr, "\xf0\x9f", FinishReason::stop, 1, 1}).find("\xEF\xBF\xBD"),
            std::string::npos);
}

// Whatever stands in ids and texts.
TEST(OutputRow, ErrorRowsAreKnown) {
  const nlohmann::json ids[] = {nullptr, 7, "", ",\"finish_reason\":\"error\",",
                                "\\\",\"finish_reason\":\"error\","};
  for (const nlohmann::json& id : ids) {
    const std::string text = id.is_string() ? id.get<std::string>() : "text";
    EXPECT_TRUE(is_error_row(to_row(FailedRecord{2, 17, id, text})));
    EXPECT_TRUE(is_error_row(to_row(FailedRecord{2, 17, id, ""})));
    EXPECT_FALSE(is_error_row(to_row(Answer{2, id, text, FinishReason::stop, 1, 1})));
    EXPECT_FALSE(is_error_row(to_row(Answer{2, id, "error", FinishReason::length, 1, 1})));
  }
}

}  // namespace
}  // namespace penstock::jobs
