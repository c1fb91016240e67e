#include "comm/nccl_edge.hpp"

#include <fmt/format.h>

#include <stdexcept>
#include <utility>

#include "comm/device/error.hpp"
#include "comm/error.hpp"

namespace penstock::comm {
namespace {

constexpr int kRanks = 2;

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

std::string_view to_string(NcclOperation operation) {
  return operation == NcclOperation::send ? "send" : "receive";
}

bool is_failure(NcclResult result) {
  return result != NcclResult::success && result != NcclResult::in_progress;
}

}  // namespace

NcclEdge::NcclEdge(std::shared_ptr<NcclApi> api, std::shared_ptr<NcclTurn> turn, std::string name,
                   int rank, std::chrono::milliseconds stall_timeout)
    : api_(std::move(api)),
      turn_(std::move(turn)),
      name_(std::move(name)),
      rank_(rank),
      stall_timeout_(stall_timeout) {}

NcclEdge::~NcclEdge() {
  if (turn_->holder == this) turn_->holder = nullptr;
  if (stream_ == nullptr) return;
  for (const Operation& operation : operations_) {
    if (operation.ready != nullptr) api_->destroy_event(operation.ready);
    if (operation.complete != nullptr) api_->destroy_event(operation.complete);
  }
  for (void* event : events_) api_->destroy_event(event);
  api_->destroy_stream(stream_);
}

// A failure of CUDA gets the edge's name.
template <typename Body>
auto NcclEdge::guarded(Body body) {
  try {
    return body();
  } catch (const device::DeviceError& e) {
    fail(e.what());
  }
}

void NcclEdge::connect(const NcclId& id, std::chrono::milliseconds timeout) {
  guarded([&] { stream_ = api_->create_stream(); });
  const NcclResult result = api_->init(communicator_, kRanks, id, rank_);
  if (is_failure(result)) fail_nccl("ncclCommInitRankConfig", result);
  Wait wait([&] { return fmt::format("NCCL communicator on the {}", name_); }, timeout);
  while (poll() == NcclResult::in_progress) wait.pause();
  usable_ = true;
}

Ticket NcclEdge::post(NcclOperation kind, void* data, std::size_t size_bytes) {
  check_usable();
  Operation operation{kind, data, size_bytes, first_ + operations_.size(), Clock::now()};
  if (kind == NcclOperation::send && compute_stream_) {
    guarded([&] {
      operation.ready = take_event();
      api_->record(operation.ready, *compute_stream_);
    });
  }
  operations_.push_back(operation);
  progress();
  return operation.ticket;
}

bool NcclEdge::done(Ticket ticket) {
  if (ticket >= first_ + operations_.size()) {
    throw std::out_of_range(fmt::format("comm: no transfer has ticket {}", ticket));
  }
  if (ticket < first_) return true;
  progress();
  return ticket < first_;
}

void NcclEdge::progress() {
  check_usable();
  guarded([&] {
    while (advance()) {
    }
  });
  check_stall();
}

bool NcclEdge::order_compute_after(Ticket ticket) {
  if (done(ticket)) return true;
  if (!compute_stream_) return false;
  const Operation& operation = operations_[ticket - first_];
  if (operation.state != State::running) return false;
  guarded([&] { api_->wait(*compute_stream_, operation.complete); });
  return true;
}

// Asks also when there is nothing to do, so that the loss of the peer is found early.
NcclResult NcclEdge::poll() {
  NcclResult state = NcclResult::success;
  const NcclResult result = api_->get_async_error(communicator_, state);
  if (is_failure(result)) fail_nccl("ncclCommGetAsyncError", result);
  if (is_failure(state)) fail_nccl("asynchronous", state);
  return state;
}

// Whether NCCL has just put this edge's operation on the stream, so that the turn is free.
bool NcclEdge::settle() {
  const NcclResult state = poll();
  if (turn_->holder != this || state != NcclResult::success) return false;
  guarded([&] { mark_running(operations_[handed_over_ - 1]); });
  turn_->holder = nullptr;
  last_step_ = Clock::now();
  return true;
}

// If it can be had. Hands nothing else over, so that edges really take turns.
void NcclEdge::give_turn() {
  check_usable();
  if (!settle()) check_stall();
}

// One round; whether anything went forward.
bool NcclEdge::advance() {
  bool moved = settle();
  while (handed_over_ > 0 && operations_.front().state == State::running &&
         api_->done(operations_.front().complete)) {
    events_.push_back(operations_.front().complete);
    operations_.pop_front();
    --handed_over_;
    ++first_;
    moved = true;
  }
  const bool waits = handed_over_ < operations_.size();
  // Nobody else may be looking at the edge that has the turn.
  if (waits && turn_->holder != nullptr && turn_->holder != this) turn_->holder->give_turn();
  if (waits && turn_->holder == nullptr) {
    hand_over(operations_[handed_over_]);
    moved = true;
  }
  if (moved) last_step_ = Clock::now();
  return moved;
}

void NcclEdge::hand_over(Operation& operation) {
  if (operation.ready != nullptr) {
    // The wait is for what the event stands for now, so the event can be used again.
    api_->wait(stream_, operation.ready);
    events_.push_back(std::exchange(operation.ready, nullptr));
  }
  ++handed_over_;
  // Both ends know that there is nothing to move.
  if (operation.size_bytes == 0) return mark_running(operation);
  const int peer = 1 - rank_;
  const bool sends = operation.kind == NcclOperation::send;
  const NcclResult result =
      sends ? api_->send(operation.data, operation.size_bytes, peer, communicator_, stream_)
            : api_->receive(operation.data, operation.size_bytes, peer, communicator_, stream_);
  if (is_failure(result)) fail_nccl(sends ? "ncclSend" : "ncclRecv", result);
  if (result == NcclResult::in_progress) {
    operation.state = State::issuing;
    turn_->holder = this;
  } else {
    mark_running(operation);
  }
}

void NcclEdge::mark_running(Operation& operation) {
  operation.complete = take_event();
  api_->record(operation.complete, stream_);
  operation.state = State::running;
}

void* NcclEdge::take_event() {
  if (events_.empty()) return api_->create_event();
  void* event = events_.back();
  events_.pop_back();
  return event;
}

void NcclEdge::check_usable() const {
  if (!usable_) throw CommError(fmt::format("{} has failed or was given up", name_));
}

void NcclEdge::check_stall() {
  if (operations_.empty()) return;
  const Operation& oldest = operations_.front();
  if (oldest.state == State::queued)
    return;  // the rank's other edge has the turn, and its own clock
  const Clock::duration waited = Clock::now() - last_step_;
  if (waited < stall_timeout_) return;
  fail(fmt::format("{} does not go forward for {:.3g} s: {}", describe(oldest), seconds(waited),
                   oldest.state == State::issuing
                       ? "NCCL has not put it on the stream"
                       : "the other end has not posted its part, or the connection is lost"));
}

std::string NcclEdge::describe(const Operation& operation) const {
  return fmt::format("{} {} ({} bytes, posted {:.3g} s ago)", to_string(operation.kind),
                     operation.ticket, operation.size_bytes,
                     seconds(Clock::now() - operation.posted));
}

void NcclEdge::fail(const std::string& what) {
  usable_ = false;
  throw CommError(fmt::format("{}: {}", name_, what));
}

void NcclEdge::fail_nccl(std::string_view call, NcclResult result) {
  usable_ = false;
  std::string text = fmt::format("{}: NCCL: {} ({})", name_, api_->get_error_string(result), call);
  if (!operations_.empty()) text += ", while under way: " + describe(operations_.front());
  if (const std::string last = api_->get_last_error(communicator_); !last.empty()) {
    text += "; NCCL's last message: " + last;
  }
  throw CommError(text + "; NCCL_DEBUG=WARN in the environment tells more");
}

bool NcclEdge::finalize(std::chrono::milliseconds timeout) noexcept {
  usable_ = false;
  try {
    if (is_failure(api_->finalize(communicator_))) return false;
    Wait wait([] { return std::string("end of a communicator"); }, timeout);
    while (poll() == NcclResult::in_progress) wait.pause();
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

void* NcclEdge::release_communicator() noexcept {
  usable_ = false;
  return std::exchange(communicator_, nullptr);
}

void NcclEdge::leave_stream() noexcept {
  events_.clear();
  operations_.clear();
  stream_ = nullptr;
}

}  // namespace penstock::comm
