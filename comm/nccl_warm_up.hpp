#pragma once

#include <chrono>
#include <cstddef>

#include "comm/nccl_edge.hpp"

namespace penstock::comm {

struct NcclSpeed {
  double bytes_per_s = 0.0;  // of large messages, mean of both directions
  double hop_us = 0.0;  // from posting a message of 64 bytes to its arrival, as the host sees it
};

// Real messages both ways over a fresh edge, at both ends at once: NCCL makes a connection when it
// is first used, and what arrives is compared with what was sent. Then the speed is measured, by
// the clock of this end. Takes `message_bytes` (at least 64) of GPU memory. Throws CommError.
NcclSpeed warm_up(NcclApi& api, NcclEdge& edge, int rank, std::size_t message_bytes,
                  std::chrono::milliseconds timeout);

}  // namespace penstock::comm
