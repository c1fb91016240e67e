#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "io/journal.hpp"
#include "io/journal_row.hpp"

namespace penstock::io {

inline std::string row_of(std::uint64_t index, const std::string& text = "a") {
  return "{\"id\":null,\"index\":" + std::to_string(index) + ",\"text\":\"" + text + "\"}";
}

inline std::string line_of(std::uint64_t index, const std::string& text = "a") {
  return to_journal_line(row_of(index, text));
}

inline std::string partial_line_of(std::uint64_t index, const std::vector<std::int32_t>& tokens) {
  return to_journal_line(to_partial_row(index, tokens));
}

// A folder of the test's own, with journals in it.
class JournalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = testing::TempDir() + "/" + test->test_suite_name() + "." + test->name() + "." +
              std::to_string(::getpid());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  std::string write(const std::string& name, std::string_view content) const {
    std::ofstream(path(name), std::ios::binary) << content;
    return path(name);
  }
  std::string content(const std::string& name) const {
    std::ostringstream text;
    text << std::ifstream(path(name), std::ios::binary).rdbuf();
    return text.str();
  }
  void write_rows(const std::string& name, const std::vector<std::uint64_t>& indices,
                  const std::string& text = "a") const {
    JournalWriter writer(path(name));
    for (const std::uint64_t index : indices) writer.append(index, row_of(index, text));
  }
  // The indices of the readable rows ("7: 1 2 3" for a partial one), then the damaged lines.
  std::vector<std::string> read(const std::string& name) const {
    std::vector<std::string> found;
    JournalReader reader(path(name));
    JournalRow row;
    while (reader.next(row)) {
      std::string text = std::to_string(row.index);
      if (row.partial) {
        EXPECT_EQ(row.row, "");
        text += ':';
        for (const std::int32_t token : row.tokens) text += " " + std::to_string(token);
      } else {
        EXPECT_EQ(nlohmann::json::parse(row.row)["index"], row.index);
        EXPECT_TRUE(row.tokens.empty());
      }
      found.push_back(text);
    }
    EXPECT_FALSE(reader.next(row));
    found.push_back(std::to_string(reader.damaged_lines()) + " damaged");
    return found;
  }

  std::string folder_;
};

}  // namespace penstock::io
