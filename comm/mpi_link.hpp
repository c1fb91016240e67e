#pragma once

#include <mpi.h>

#include <cstddef>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "comm/link.hpp"

namespace penstock::comm {

// One end of an edge.
struct MpiEdge {
  MPI_Comm communicator = MPI_COMM_NULL;
  int peer = 0;
  std::string peer_name;
  std::size_t max_piece_bytes = 0;
};

// The transfers of one end of an edge, each cut into pieces.
class MpiTransfers {
 public:
  explicit MpiTransfers(MpiEdge edge) : edge_(std::move(edge)) {}
  ~MpiTransfers() { give_up(); }
  MpiTransfers(const MpiTransfers&) = delete;
  MpiTransfers& operator=(const MpiTransfers&) = delete;

  Ticket send(std::span<const std::byte> bytes);
  Ticket receive(std::span<std::byte> bytes);
  bool done(Ticket ticket);
  void progress();
  // Of what is under way: receives write into no buffer any more. A send that has begun cannot be
  // taken back.
  void give_up() noexcept;

 private:
  struct Piece {
    MPI_Request request = MPI_REQUEST_NULL;
    int expected_bytes = -1;  // of a receive; -1: a send
  };
  struct Transfer {
    std::vector<Piece> pieces;
    std::size_t complete = 0;  // pieces, counted from the first
  };

  Transfer& start(std::size_t size_bytes);
  void advance(Transfer& transfer);

  MpiEdge edge_;
  std::deque<Transfer> transfers_;  // oldest first; all earlier ones are complete
  Ticket first_ = 0;                // ticket of the oldest
};

class MpiSender final : public LinkSender {
 public:
  explicit MpiSender(MpiEdge edge) : transfers_(std::move(edge)) {}
  Ticket send(std::span<const std::byte> bytes) override { return transfers_.send(bytes); }
  bool done(Ticket ticket) override { return transfers_.done(ticket); }
  void progress() override { transfers_.progress(); }
  void abort() noexcept override { transfers_.give_up(); }

 private:
  MpiTransfers transfers_;
};

class MpiReceiver final : public LinkReceiver {
 public:
  explicit MpiReceiver(MpiEdge edge) : transfers_(std::move(edge)) {}
  Ticket receive(std::span<std::byte> bytes) override { return transfers_.receive(bytes); }
  bool done(Ticket ticket) override { return transfers_.done(ticket); }
  void progress() override { transfers_.progress(); }
  void abort() noexcept override { transfers_.give_up(); }

 private:
  MpiTransfers transfers_;
};

}  // namespace penstock::comm
