#include "comm/mpi_messages.hpp"

#include <fmt/format.h>

#include <chrono>
#include <exception>
#include <limits>
#include <memory>
#include <utility>

#include "comm/error.hpp"
#include "comm/mpi_communicator.hpp"
#include "comm/wait.hpp"
#include "comm/world.hpp"

namespace penstock::comm {
namespace {

constexpr int kTag = 0;
constexpr std::chrono::seconds kFarewell{10};

}  // namespace

MpiMessages::MpiMessages(MPI_Comm original)
    : communicator_(duplicate(original)), exceptions_(std::uncaught_exceptions()) {}

MpiMessages::~MpiMessages() {
  try {
    if (std::uncaught_exceptions() == exceptions_) {
      Wait wait([] { return std::string("completion of the last sends"); }, kFarewell);
      while (!progress()) wait.pause();
    }
  } catch (const CommError&) {
    // A destructor cannot report; the peer that does not take its messages is silent as well.
  }
  // MPI still reads or writes what is not complete: such buffers must outlive this object.
  if (!sending_.empty()) std::make_unique<std::deque<Sending>>(std::move(sending_)).release();
  if (receiving_) std::make_unique<Receiving>(*std::move(receiving_)).release();
}

void MpiMessages::send(int to, std::span<const std::byte> bytes) {
  if (bytes.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw CommError(fmt::format(
        "a control message of {} bytes is longer than the 2147483647 that MPI can count",
        bytes.size()));
  }
  progress();
  Sending& sending = sending_.emplace_back();
  sending.bytes.assign(bytes.begin(), bytes.end());
  PENSTOCK_MPI(MPI_Isend(sending.bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, to, kTag,
                         communicator_, &sending.request));
}

bool MpiMessages::progress() {
  while (!sending_.empty()) {
    int complete = 0;
    PENSTOCK_MPI(MPI_Test(&sending_.front().request, &complete, MPI_STATUS_IGNORE));
    if (complete == 0) return false;
    sending_.pop_front();
  }
  return true;
}

bool MpiMessages::begin_receive() {
  int found = 0;
  MPI_Message handle = MPI_MESSAGE_NULL;
  MPI_Status status;
  PENSTOCK_MPI(MPI_Improbe(MPI_ANY_SOURCE, kTag, communicator_, &found, &handle, &status));
  if (found == 0) return false;
  int size_bytes = 0;
  PENSTOCK_MPI(MPI_Get_count(&status, MPI_BYTE, &size_bytes));
  if (size_bytes == MPI_UNDEFINED) {
    throw CommError(
        fmt::format("rank {} sent a control message longer than MPI can count", status.MPI_SOURCE));
  }
  Receiving& receiving = receiving_.emplace(Receiving{{}, MPI_REQUEST_NULL});
  receiving.message.from = status.MPI_SOURCE;
  receiving.message.bytes.resize(static_cast<std::size_t>(size_bytes));
  PENSTOCK_MPI(MPI_Imrecv(receiving.message.bytes.data(), size_bytes, MPI_BYTE, &handle,
                          &receiving.request));
  return true;
}

std::optional<ControlMessage> MpiMessages::try_receive() {
  progress();
  // One at a time keeps the order. A large message takes a while, so this may be an earlier call's.
  if (!receiving_ && !begin_receive()) return std::nullopt;
  int complete = 0;
  PENSTOCK_MPI(MPI_Test(&receiving_->request, &complete, MPI_STATUS_IGNORE));
  if (complete == 0) return std::nullopt;
  ControlMessage message = std::move(receiving_->message);
  receiving_.reset();
  return message;
}

}  // namespace penstock::comm
