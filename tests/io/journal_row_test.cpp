#include "io/journal_row.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace penstock::io {
namespace {

using ::testing::ElementsAre;

// Checksums by the Python package xxhash (xxh3_64_hexdigest).
TEST(JournalRowText, LinesAreRowsWithAChecksum) {
  const std::string row = R"({"id":null,"index":0,"text":"a"})";
  EXPECT_EQ(to_journal_line(row),
            "{\"id\":null,\"index\":0,\"text\":\"a\",\"xxh3\":\"28c9f8f2580819d1\"}\n");
  EXPECT_EQ(to_journal_line("{\"index\":7,\"text\":\"é\"}"),
            "{\"index\":7,\"text\":\"é\",\"xxh3\":\"e7564bc8c8095b27\"}\n");
  EXPECT_EQ(from_journal_line(R"({"id":null,"index":0,"text":"a","xxh3":"28c9f8f2580819d1"})"),
            row);
  EXPECT_EQ(from_journal_line(R"({"id":null,"index":0,"text":"b","xxh3":"28c9f8f2580819d1"})"),
            std::nullopt);
  EXPECT_EQ(from_journal_line(R"({"id":null,"index":0,"text":"a","xxh3":"28C9F8F2580819D1"})"),
            std::nullopt);
  EXPECT_EQ(from_journal_line(""), std::nullopt);
}

TEST(JournalRowText, PartialRowsAreLinesToo) {
  const std::vector<std::int32_t> some = {1, 2, 3};
  const std::vector<std::int32_t> bounds = {0, INT32_MAX};
  EXPECT_EQ(to_journal_line(to_partial_row(7, some)),
            "{\"partial\":[1,2,3],\"index\":7,\"xxh3\":\"4d0704bb3f41c0f6\"}\n");
  EXPECT_EQ(to_journal_line(to_partial_row(UINT64_MAX, {})),
            "{\"partial\":[],\"index\":18446744073709551615,\"xxh3\":\"f2d49b3881f3c7df\"}\n");
  EXPECT_EQ(to_journal_line(to_partial_row(0, bounds)),
            "{\"partial\":[0,2147483647],\"index\":0,\"xxh3\":\"d6915e85d2e3a932\"}\n");
  EXPECT_THROW(to_partial_row(0, std::vector<std::int32_t>{1, -1}), std::invalid_argument);
}

TEST(JournalRowText, PartialRowsAreRead) {
  std::vector<std::int32_t> tokens = {9};
  EXPECT_EQ(from_partial_row(R"({"partial":[1,20,2147483647],"index":7})", tokens), 7u);
  EXPECT_THAT(tokens, ElementsAre(1, 20, 2147483647));
  EXPECT_EQ(from_partial_row(R"({"partial":[],"index":18446744073709551615})", tokens), UINT64_MAX);
  EXPECT_THAT(tokens, ElementsAre());
  for (const char* text :
       {R"({"partial":[1,],"index":7})", R"({"partial":[,1],"index":7})",
        R"({"partial":[-1],"index":7})", R"({"partial":[-0],"index":7})",
        R"({"partial":[2147483648],"index":7})", R"({"partial":[01],"index":7})",
        R"({"partial":[1.5],"index":7})", R"({"partial":[1],"index":-7})",
        R"({"partial":[1],"index":18446744073709551616})", R"({"partial":[1],"index":})",
        R"({"partial":[1],"index":7,"a":1})", R"({"partial":[1],"index":7}})", R"({"partial":[1]})",
        R"({"partial":[)", R"({"partial":[1)", R"({"partial":[1],"index":7)",
        R"({"partial": [1],"index":7})", R"({"index":7,"partial":[1]})", ""}) {
    EXPECT_EQ(from_partial_row(text, tokens), std::nullopt) << text;
  }
}

TEST(JournalRowText, TheIndexIsTheTopLevelOne) {
  EXPECT_EQ(row_index(R"({"id":"\"index\":5,","usage":{"index":6,"list":[{"index":7}]},)"
                      R"("index":18446744073709551615})"),
            UINT64_MAX);
  EXPECT_EQ(row_index(R"({"id":{"index":6},"index":5})"), 5u);
  EXPECT_EQ(row_index(R"({"id":"a\\","index":5})"), 5u);
  EXPECT_EQ(row_index(R"({"id":"a\",\"index\":4","index":5})"), 5u);
  EXPECT_EQ(row_index(R"({"id":null,"index":12,"text":"a"})"), 12u);
  EXPECT_EQ(row_index(R"({ "id" : -1.5e3 , "index" : 12 })"), 12u);
  for (const char* text :
       {R"({"id":null})", R"({"id":null,"index":"0"})", R"({"id":null,"index":-1})",
        R"({"id":null,"index":0.5})", R"({"id":null,"index":1e2})", R"({"id":null,"index":null})",
        R"({"id":null,"index":18446744073709551616})", R"({"id":null,"index":})",
        R"({"id":nul,"index":1})", R"({"id":,"index":1})", R"({"id":1-2,"index":1})",
        R"({"id":"a"b,"index":1})", R"({"id":[1,"index":1})", "7", ""}) {
    EXPECT_EQ(row_index(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace penstock::io
