#pragma once

#include <string_view>

namespace penstock::jobs {

// Standard error, where everything for people goes.
bool is_terminal();
int terminal_width();  // columns; 100 where it is not a terminal
void print(std::string_view text);

}  // namespace penstock::jobs
