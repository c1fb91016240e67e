#include "comm/nccl_edges.hpp"

#include <exception>
#include <future>
#include <thread>
#include <utility>
#include <vector>

namespace penstock::comm {
namespace {

void abort_all(NcclApi& api, int gpu, const std::vector<void*>& communicators) {
  try {
    api.set_current_gpu(gpu);
    api.group_start();
    for (void* communicator : communicators) api.abort(communicator);
    api.group_end();
  } catch (const std::exception&) {
    // Nothing is left to try, and the error that led here is the one to report.
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
  // others follow one by one.
  for (const auto* edge : {&next, &previous}) {
    if (orderly && *edge && !(*edge)->close(close_timeout_)) orderly = false;
  }
  if (!orderly) abort();
}

void NcclEdges::abort() noexcept {
  try {
    std::vector<void*> communicators;
    for (const auto* edge : {&next, &previous}) {
      if (!*edge) continue;
      if (void* communicator = (*edge)->release_communicator(); communicator != nullptr) {
        communicators.push_back(communicator);
      }
    }
    if (communicators.empty()) return;
    std::promise<void> promise;
    std::future<void> ended = promise.get_future();
    std::thread([api = api_, gpu = api_->current_gpu(), communicators,
                 promise = std::move(promise)]() mutable {
      abort_all(*api, gpu, communicators);
      promise.set_value();
    }).detach();
    if (ended.wait_for(close_timeout_) == std::future_status::ready) return;
  } catch (const std::exception&) {
    // No thread, no memory, or no GPU any more.
  }
  for (const auto* edge : {&next, &previous}) {
    if (*edge) (*edge)->leave_stream();
  }
}

}  // namespace penstock::comm
