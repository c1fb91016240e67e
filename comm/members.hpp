#pragma once

#include <string>
#include <vector>

#include "comm/control.hpp"

namespace penstock::comm {

// "rank 1, host a; rank 2, host b and 5 more": for messages about members that have not come.
std::string describe_members(const Control& control, const std::vector<int>& members);

// Throws std::out_of_range unless `member` is one of the members.
void check_member(const Control& control, int member);

}  // namespace penstock::comm
