#pragma once

#include <vector>

#include "comm/link.hpp"

namespace penstock::comm {

// Endpoints for threads of one process, `pipelines` times `stages` of them, one pipeline's after
// the other's; each may be used and destroyed by a thread of its own. When a member's Endpoint is
// destroyed while others still wait for it, their waits end with a CommError that names it. A
// member that waits for any message waits for all members, so the last thing that all do before
// they leave is a collective.
std::vector<Endpoint> local_endpoints(int stages, int pipelines = 1);

}  // namespace penstock::comm
