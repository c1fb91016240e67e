#include "jobs/output_row.hpp"

#include <fmt/format.h>

namespace penstock::jobs {
namespace {

using Row = nlohmann::ordered_json;

// Ids are scalars, so that a conversion keeps their bytes.
Row start_row(const nlohmann::json& id, std::uint64_t index) {
  Row row;
  row["id"] = id;
  row["index"] = index;
  return row;
}

std::string dump(const Row& row) { return row.dump(-1, ' ', false, Row::error_handler_t::replace); }

}  // namespace

std::string to_row(const Answer& answer) {
  Row row = start_row(answer.id, answer.index);
  row["text"] = answer.text;
  row["finish_reason"] = answer.reason == FinishReason::stop ? "stop" : "length";
  row["usage"]["prompt_tokens"] = answer.prompt_tokens;
  row["usage"]["completion_tokens"] = answer.completion_tokens;
  return dump(row);
}

std::string to_row(const FailedRecord& failed) {
  Row row = start_row(failed.id, failed.index);
  row["text"] = nullptr;
  row["finish_reason"] = "error";
  row["error"]["message"] = failed.message;
  row["error"]["line"] = failed.line;
  return dump(row);
}

bool is_error_row(std::string_view row) {
  // Inside a string every quote has a backslash before it, so this is no record's text.
  return row.find(R"(,"finish_reason":"error",)") != std::string_view::npos;
}

std::string describe(const FailedRecord& failed) {
  return fmt::format("line {}: {}", failed.line, failed.message);
}

}  // namespace penstock::jobs
