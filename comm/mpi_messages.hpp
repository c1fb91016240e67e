#pragma once

#include <mpi.h>

#include <cstddef>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "comm/control.hpp"

namespace penstock::comm {

// Buffered messages of any size up to 2^31 - 1 bytes on a communicator of its own. Made by all
// ranks in the same order. The destructor lets the last sends complete, unless an exception
// unwinds.
class MpiMessages {
 public:
  explicit MpiMessages(MPI_Comm original);
  ~MpiMessages();

  void send(int to, std::span<const std::byte> bytes);
  std::optional<ControlMessage> try_receive();
  // Lets sends complete; true when none is left.
  bool progress();

 private:
  struct Sending {
    std::vector<std::byte> bytes;
    MPI_Request request = MPI_REQUEST_NULL;
  };
  struct Receiving {
    ControlMessage message;
    MPI_Request request;
  };

  bool begin_receive();

  MPI_Comm communicator_;
  int exceptions_;               // under way when this object was made
  std::deque<Sending> sending_;  // oldest first
  std::optional<Receiving> receiving_;
};

}  // namespace penstock::comm
