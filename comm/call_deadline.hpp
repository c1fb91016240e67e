#pragma once

#include <chrono>
#include <string>
#include <thread>

namespace penstock::comm {

// For a library's call that waits for peers and that nothing can end: while the object lives, the
// call may take `limit`; then it is named on standard error and the process ends with exit code 1.
// Time in which the process itself was stopped counts for a second at most.
class CallDeadline {
 public:
  // `call`: "MPI_Finalize (rank 1, host n042)".
  CallDeadline(std::string call, std::chrono::seconds limit);

 private:
  std::jthread thread_;
};

}  // namespace penstock::comm
