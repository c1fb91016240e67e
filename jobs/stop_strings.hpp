#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::jobs {

// Collects the text of an answer piece by piece and ends it before the first stop string. Matching
// is on text, so a stop string may span tokens. The cut is at the earliest start of any stop string
// in the text so far; which of several strings starts there does not matter, as none is kept.
class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stop);

  // Appends a piece. True when the text now holds a stop string: it is cut, and later pieces are
  // ignored.
  bool push(std::string_view piece);

  bool stopped() const { return stopped_; }
  const std::string& text() const { return text_; }
  std::string take() { return std::move(text_); }

 private:
  std::vector<std::string> stop_;
  std::size_t longest_ = 0;  // bytes
  std::string text_;
  bool stopped_ = false;
};

}  // namespace penstock::jobs
