#include "comm/members.hpp"

#include <fmt/format.h>

#include <stdexcept>

#include "comm/error.hpp"

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

std::string last_word(const Control& control, int member) {
  const Pulse pulse = control.pulse(member);
  const std::chrono::duration<double> ago = Clock::now() - pulse.heard;
  return fmt::format("last heard of it {:.1f} s ago (progress {})", ago.count(), pulse.progress);
}

std::vector<int> standing_still(const Control& control, const std::vector<int>& members,
                                const Lookout& lookout, std::chrono::milliseconds timeout) {
  std::vector<int> still;
  for (const int member : members) {
    if (lookout.age(control.pulse(member).moved) >= timeout) still.push_back(member);
  }
  return still;
}

void throw_missing(const Control& control, std::string_view what, const std::vector<int>& members,
                   std::chrono::milliseconds timeout) {
  throw CommError(fmt::format("{}: no word from {} for {} s", what,
                              describe_members(control, members),
                              std::chrono::duration<double>(timeout).count()));
}

void check_member(const Control& control, int member) {
  if (member < 0 || member >= control.size()) {
    throw std::out_of_range(
        fmt::format("comm: there is no member {} among {}", member, control.size()));
  }
}

}  // namespace penstock::comm
