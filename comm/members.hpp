#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "comm/control.hpp"
#include "comm/lookout.hpp"

namespace penstock::comm {

// "rank 1, host a; rank 2, host b and 5 more": for messages about members that have not come.
std::string describe_members(const Control& control, const std::vector<int>& members);

// Those of `members` whose work has not moved for `timeout`, as far as `lookout` saw.
std::vector<int> standing_still(const Control& control, const std::vector<int>& members,
                                const Lookout& lookout, std::chrono::milliseconds timeout);

// "last heard of it 12.3 s ago (progress 17)"
std::string last_word(const Control& control, int member);

// Throws CommError "WHAT: no word from MEMBERS for 60 s".
[[noreturn]] void throw_missing(const Control& control, std::string_view what,
                                const std::vector<int>& members, std::chrono::milliseconds timeout);

// Throws std::out_of_range unless `member` is one of the members.
void check_member(const Control& control, int member);

}  // namespace penstock::comm
