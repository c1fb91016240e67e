#include "comm/control.hpp"

#include "comm/error.hpp"

namespace penstock::comm {

void Control::agree(bool ok, std::string_view text, std::string_view what,
                    std::chrono::milliseconds timeout) {
  std::string mine(1, ok ? '+' : '-');
  mine += text;
  const std::vector<std::string> all = all_gather(mine, what, timeout);
  for (int i = 0; i < size(); ++i) {
    const std::string& theirs = all[static_cast<std::size_t>(i)];
    if (theirs.empty() || theirs.front() != '+') {
      throw AgreeError(theirs.empty() ? theirs : theirs.substr(1), i == member());
    }
  }
}

}  // namespace penstock::comm
