#include "comm/members.hpp"

#include <fmt/format.h>

#include <stdexcept>

namespace penstock::comm {

std::string describe_members(const Control& control, const std::vector<int>& members) {
  constexpr std::size_t kNamed = 4;
  std::string text;
  for (std::size_t i = 0; i < members.size() && i < kNamed; ++i) {
    if (i > 0) text += "; ";
    text += control.describe(members[i]);
  }
  if (members.size() > kNamed) text += fmt::format(" and {} more", members.size() - kNamed);
  return text;
}

void check_member(const Control& control, int member) {
  if (member < 0 || member >= control.size()) {
    throw std::out_of_range(
        fmt::format("comm: there is no member {} among {}", member, control.size()));
  }
}

}  // namespace penstock::comm
