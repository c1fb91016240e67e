#include "comm/mpi_link.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "comm/error.hpp"
#include "comm/world.hpp"

namespace penstock::comm {
namespace {

constexpr int kTag = 0;

}  // namespace

void MpiTransfers::give_up() noexcept {
  for (Transfer& transfer : transfers_) {
    for (Piece& piece : transfer.pieces) {
      if (piece.request == MPI_REQUEST_NULL) continue;
      if (piece.expected_bytes >= 0) MPI_Cancel(&piece.request);
      MPI_Request_free(&piece.request);
    }
  }
  first_ += transfers_.size();
  transfers_.clear();
}

MpiTransfers::Transfer& MpiTransfers::start(std::size_t size_bytes) {
  // An empty message is a piece as well: its receive is done when it has been sent.
  const std::size_t pieces = size_bytes == 0 ? 1 : (size_bytes - 1) / edge_.max_piece_bytes + 1;
  Transfer& transfer = transfers_.emplace_back();
  transfer.pieces.resize(pieces);
  return transfer;
}

Ticket MpiTransfers::send(std::span<const std::byte> bytes) {
  for (Piece& piece : start(bytes.size()).pieces) {
    const std::size_t size_bytes = std::min(bytes.size(), edge_.max_piece_bytes);
    PENSTOCK_MPI(MPI_Isend(bytes.data(), static_cast<int>(size_bytes), MPI_BYTE, edge_.peer, kTag,
                           edge_.communicator, &piece.request));
    bytes = bytes.subspan(size_bytes);
  }
  return first_ + transfers_.size() - 1;
}

Ticket MpiTransfers::receive(std::span<std::byte> bytes) {
  for (Piece& piece : start(bytes.size()).pieces) {
    const std::size_t size_bytes = std::min(bytes.size(), edge_.max_piece_bytes);
    piece.expected_bytes = static_cast<int>(size_bytes);
    PENSTOCK_MPI(MPI_Irecv(bytes.data(), piece.expected_bytes, MPI_BYTE, edge_.peer, kTag,
                           edge_.communicator, &piece.request));
    bytes = bytes.subspan(size_bytes);
  }
  return first_ + transfers_.size() - 1;
}

bool MpiTransfers::done(Ticket ticket) {
  if (ticket < first_) return true;
  if (ticket - first_ >= transfers_.size()) {
    throw std::out_of_range(fmt::format("comm: no transfer has ticket {}", ticket));
  }
  Transfer& transfer = transfers_[ticket - first_];
  advance(transfer);
  const bool complete = transfer.complete == transfer.pieces.size();
  progress();
  return complete;
}

void MpiTransfers::progress() {
  // One test moves all that MPI has under way, so the oldest transfer is enough.
  while (!transfers_.empty()) {
    Transfer& oldest = transfers_.front();
    advance(oldest);
    if (oldest.complete < oldest.pieces.size()) return;
    transfers_.pop_front();
    ++first_;
  }
}

void MpiTransfers::advance(Transfer& transfer) {
  for (; transfer.complete < transfer.pieces.size(); ++transfer.complete) {
    Piece& piece = transfer.pieces[transfer.complete];
    int complete = 0;
    MPI_Status status;
    PENSTOCK_MPI(MPI_Test(&piece.request, &complete, &status));
    if (complete == 0) return;
    if (piece.expected_bytes < 0) continue;
    int received_bytes = 0;
    PENSTOCK_MPI(MPI_Get_count(&status, MPI_BYTE, &received_bytes));
    if (received_bytes != piece.expected_bytes) {
      throw CommError(fmt::format("{} sent {} bytes where {} are expected", edge_.peer_name,
                                  received_bytes, piece.expected_bytes));
    }
  }
}

}  // namespace penstock::comm
