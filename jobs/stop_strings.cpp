#include "jobs/stop_strings.hpp"

#include <algorithm>
#include <utility>

namespace penstock::jobs {

StopStrings::StopStrings(std::vector<std::string> stop) : stop_(std::move(stop)) {
  std::erase(stop_, std::string());  // would match everywhere
  for (const std::string& text : stop_) longest_ = std::max(longest_, text.size());
}

bool StopStrings::push(std::string_view piece) {
  if (stopped_ || piece.empty()) return stopped_;
  // A match that was not there before ends in the piece, so it starts at most longest - 1 bytes
  // before it.
  const std::size_t reach = longest_ == 0 ? 0 : longest_ - 1;
  const std::size_t from = text_.size() - std::min(text_.size(), reach);
  text_ += piece;
  std::size_t earliest = std::string::npos;
  for (const std::string& text : stop_) earliest = std::min(earliest, text_.find(text, from));
  if (earliest != std::string::npos) {
    text_.resize(earliest);
    stopped_ = true;
  }
  return stopped_;
}

}  // namespace penstock::jobs
