#pragma once

#include <vector>

#include "comm/link.hpp"

namespace penstock::comm {

// Endpoints for `stages` threads of one process. When a member's Endpoint is destroyed while
// others still wait for it, their waits end with a CommError that names it.
std::vector<Endpoint> local_endpoints(int stages);

}  // namespace penstock::comm
