#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace penstock::jobs {

enum class FinishReason { stop, length };

// An answered record.
struct Answer {
  std::uint64_t index = 0;
  nlohmann::json id;
  std::string text;
  FinishReason reason = FinishReason::stop;
  std::uint32_t prompt_tokens = 0;
  std::uint32_t completion_tokens = 0;
};

// A record that cannot be answered.
struct FailedRecord {
  std::uint64_t index = 0;
  std::uint32_t line = 0;  // of the input, 1-based
  nlohmann::json id;
  std::string message;
};

// Rows of the output: one JSON object on one line, without newline. The same input gives the same
// bytes, members in the order of DESIGN; always valid UTF-8 (broken bytes become U+FFFD).
std::string to_row(const Answer& answer);
std::string to_row(const FailedRecord& failed);

// Whether a row that to_row() made is of a failed record.
bool is_error_row(std::string_view row);

// "line 17: 'prompt' must be a string, not a number", for people.
std::string describe(const FailedRecord& failed);

}  // namespace penstock::jobs
