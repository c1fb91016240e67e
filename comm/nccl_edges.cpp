#include "comm/nccl_edges.hpp"

#include <array>
#include <cstddef>
#include <exception>
#include <future>
#include <thread>
#include <utility>

namespace penstock::comm {
namespace {

// Calls of NCCL that may block until other ranks make theirs: in a thread of their own, on this
// thread's GPU, which is left behind after `timeout`. False: left behind, or failed.
template <typename Body>
bool run_apart(const std::shared_ptr<NcclApi>& api, std::chrono::milliseconds timeout,
               Body body) noexcept {
  try {
    std::promise<bool> promise;
    std::future<bool> ended = promise.get_future();
    std::thread([api, gpu = api->current_gpu(), body = std::move(body),
                 promise = std::move(promise)]() mutable {
      bool fine = false;
      try {
        api->set_current_gpu(gpu);
        fine = body(*api);
      } catch (const std::exception&) {
        // Nothing is left to try, and the error that led here is the one to report.
      }
      promise.set_value(fine);
    }).detach();
    return ended.wait_for(timeout) == std::future_status::ready && ended.get();
  } catch (const std::exception&) {
    return false;  // no thread, no memory, or no GPU any more
  }
}

}  // namespace

NcclEdges::NcclEdges(std::shared_ptr<NcclApi> api, std::chrono::milliseconds close_timeout)
    : api_(std::move(api)),
      close_timeout_(close_timeout),
      exceptions_(std::uncaught_exceptions()) {}

NcclEdges::~NcclEdges() { end(); }

void NcclEdges::end() noexcept {
  const bool unwinding = std::uncaught_exceptions() > exceptions_;
  bool orderly = !unwinding;
  for (const auto* edge : {&next, &previous}) {
    if (*edge && !(*edge)->quiet()) orderly = false;
  }
  // The last rank of the pipeline has no next edge, so it is the first at its previous one, and the
  // others follow one by one. Destroying waits for the other end's finalize (on one host: for its
  // connection to a thread of NCCL's), so all of that comes first, and no rank waits for a chain of
  // others.
  for (const auto* edge : {&next, &previous}) {
    if (orderly && *edge && !(*edge)->finalize(close_timeout_)) orderly = false;
  }
  for (const auto* edge : {&next, &previous}) {
    if (orderly && *edge && !destroy(**edge)) orderly = false;
  }
  if (!orderly) abort();
}

bool NcclEdges::destroy(NcclEdge& edge) noexcept {
  const auto body = [communicator = edge.release_communicator()](NcclApi& api) {
    return api.destroy(communicator) == NcclResult::success;
  };
  if (run_apart(api_, close_timeout_, body)) return true;
  edge.leave_stream();
  return false;
}

void NcclEdges::abort() noexcept {
  std::array<void*, 2> communicators{};
  std::size_t count = 0;
  for (const auto* edge : {&next, &previous}) {
    if (!*edge) continue;
    void* communicator = (*edge)->release_communicator();
    if (communicator != nullptr) communicators.at(count++) = communicator;
  }
  if (count == 0) return;
  const auto body = [communicators, count](NcclApi& api) {
    api.group_start();
    for (std::size_t i = 0; i < count; ++i) api.abort(communicators.at(i));
    return api.group_end() == NcclResult::success;
  };
  if (run_apart(api_, close_timeout_, body)) return;
  for (const auto* edge : {&next, &previous}) {
    if (*edge) (*edge)->leave_stream();
  }
}

}  // namespace penstock::comm
