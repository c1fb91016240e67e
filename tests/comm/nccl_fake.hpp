#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "comm/device/error.hpp"
#include "comm/nccl_api.hpp"

namespace penstock::comm {

// NCCL and CUDA for tests, as their documentation describes them: streams run in order, events
// stand for what was on a stream when they were recorded, the n-th send of a communicator meets the
// n-th receive of its peer, and a non-blocking call that answers in_progress is carried out some
// polls later. All ends live in one object; "GPU memory" is ordinary memory. What the documentation
// forbids is noted in `violations`.
class FakeNccl final : public NcclApi {
 public:
  static constexpr int kNever = std::numeric_limits<int>::max();

  // How calls behave; set before they happen.
  std::atomic<int> init_polls{0};      // polls for which a new communicator is in progress
  std::atomic<int> issue_polls{0};     // the same for a send or receive
  std::atomic<int> finalize_polls{0};  // the same for the end
  std::atomic<int> version{22809};
  std::atomic<bool> abort_hangs{false};
  // NCCL joins a thread that other ranks of the host are connected to.
  std::atomic<bool> destroy_hangs{false};
  std::atomic<bool> corrupt{false};  // what arrives is not what was sent
  // Rank 0 or 1 of communicators to come: their init answers this at once.
  std::map<int, NcclResult> init_result;

  // After `polls` more polls, rank `rank` of every communicator reports `error`.
  void fail_after(int rank, int polls, NcclResult error) {
    const std::lock_guard lock(mutex_);
    failures_[rank] = {polls, error};
  }
  void fail_event_queries() {
    const std::lock_guard lock(mutex_);
    event_error_ = true;
  }

  // A kernel on a stream that ends when it is told to.
  int start_kernel(void* stream) {
    const std::lock_guard lock(mutex_);
    kernels_.push_back(false);
    streams_.at(stream).push_back({Item::Kind::kernel, static_cast<int>(kernels_.size()) - 1});
    return static_cast<int>(kernels_.size()) - 1;
  }
  void end_kernel(int kernel) {
    const std::lock_guard lock(mutex_);
    kernels_[static_cast<std::size_t>(kernel)] = true;
  }
  bool stream_is_idle(void* stream) {
    const std::lock_guard lock(mutex_);
    run();
    return streams_.at(stream).empty();
  }

  std::vector<std::string> log() {
    const std::lock_guard lock(mutex_);
    return log_;
  }
  std::vector<std::string> violations() {
    const std::lock_guard lock(mutex_);
    return violations_;
  }
  std::size_t live_handles() {  // events and streams
    const std::lock_guard lock(mutex_);
    return events_.size() + streams_.size();
  }

  NcclResult get_version(int& number) override {
    number = version;
    return NcclResult::success;
  }
  NcclResult get_unique_id(NcclId& id) override {
    const std::lock_guard lock(mutex_);
    // Bytes of every kind, as in a real one.
    for (std::size_t i = 0; i < id.size(); ++i) id[i] = static_cast<char>(i * 7 + next_id_);
    ++next_id_;
    return NcclResult::success;
  }
  NcclResult init(void*& communicator, int ranks, const NcclId& id, int rank) override {
    const std::lock_guard lock(mutex_);
    log_.push_back(fmt::format("init {}", rank));
    if (ranks != 2) violations_.push_back("not two ranks");
    if (const auto found = init_result.find(rank); found != init_result.end()) {
      communicator = nullptr;
      return found->second;
    }
    communicators_.push_back(std::make_unique<Communicator>());
    Communicator& made = *communicators_.back();
    made.id = id;
    made.rank = rank;
    made.polls_left = init_polls;
    communicator = &made;
    return made.polls_left > 0 ? NcclResult::in_progress : NcclResult::success;
  }
  NcclResult get_async_error(void* communicator, NcclResult& state) override {
    const std::lock_guard lock(mutex_);
    Communicator& it = get(communicator);
    state = NcclResult::success;
    if (const auto failure = failures_.find(it.rank); failure != failures_.end()) {
      if (failure->second.polls-- <= 0) {
        state = failure->second.error;
        return NcclResult::success;
      }
    }
    if (it.polls_left > 0) {
      if (it.polls_left != kNever) --it.polls_left;
      state = NcclResult::in_progress;
      return NcclResult::success;
    }
    if (it.issuing) {
      streams_.at(it.issuing_stream).push_back(*it.issuing);
      it.issuing.reset();
    }
    run();
    return NcclResult::success;
  }
  NcclResult send(const void* data, std::size_t size_bytes, int peer, void* communicator,
                  void* stream) override {
    return issue(
        {Item::Kind::send, 0, nullptr, 0, communicator, const_cast<void*>(data), size_bytes}, peer,
        stream);
  }
  NcclResult receive(void* data, std::size_t size_bytes, int peer, void* communicator,
                     void* stream) override {
    return issue({Item::Kind::receive, 0, nullptr, 0, communicator, data, size_bytes}, peer,
                 stream);
  }
  NcclResult group_start() override { return note("group_start"); }
  NcclResult group_end() override {
    note("group_end");
    while (abort_hangs) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return NcclResult::success;
  }
  NcclResult abort(void* communicator) override {
    const std::lock_guard lock(mutex_);
    Communicator& it = get(communicator);
    log_.push_back(fmt::format("abort {}", it.rank));
    it.dead = true;
    for (auto& [stream, items] : streams_) {
      std::erase_if(items, [&](const Item& item) { return item.communicator == communicator; });
    }
    return NcclResult::success;
  }
  NcclResult finalize(void* communicator) override {
    const std::lock_guard lock(mutex_);
    Communicator& it = get(communicator);
    check_idle(it);
    log_.push_back(fmt::format("finalize {}", it.rank));
    it.polls_left = finalize_polls;
    return it.polls_left > 0 ? NcclResult::in_progress : NcclResult::success;
  }
  NcclResult destroy(void* communicator) override {
    {
      const std::lock_guard lock(mutex_);
      Communicator& it = get(communicator);
      check_idle(it);
      log_.push_back(fmt::format("destroy {}", it.rank));
      it.dead = true;
    }
    while (destroy_hangs) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return NcclResult::success;
  }
  std::string get_error_string(NcclResult result) override {
    return fmt::format("fake error {}", static_cast<int>(result));
  }
  std::string get_last_error(void*) override { return "fake last words"; }

  int current_gpu() override { return 3; }
  void set_current_gpu(int gpu) override { note(fmt::format("gpu {}", gpu)); }
  void* create_stream() override {
    const std::lock_guard lock(mutex_);
    void* stream = &handles_.emplace_back();
    streams_[stream];
    return stream;
  }
  void destroy_stream(void* stream) noexcept override {
    const std::lock_guard lock(mutex_);
    streams_.erase(stream);
  }
  void* create_event() override {
    const std::lock_guard lock(mutex_);
    void* event = &handles_.emplace_back();
    events_[event];
    return event;
  }
  void destroy_event(void* event) noexcept override {
    const std::lock_guard lock(mutex_);
    events_.erase(event);
  }
  void record(void* event, void* stream) override {
    const std::lock_guard lock(mutex_);
    touch(stream);
    const int number = ++events_.at(event).recorded;
    streams_.at(stream).push_back({Item::Kind::record, 0, event, number});
  }
  void wait(void* stream, void* event) override {
    const std::lock_guard lock(mutex_);
    touch(stream);
    streams_.at(stream).push_back({Item::Kind::wait, 0, event, events_.at(event).recorded});
  }
  bool done(void* event) override {
    const std::lock_guard lock(mutex_);
    if (event_error_) throw device::DeviceError("CUDA: an illegal memory access was encountered");
    run();
    const Event& it = events_.at(event);
    return it.reached == it.recorded;
  }
  void* allocate(std::size_t size_bytes) override {
    const std::lock_guard lock(mutex_);
    std::vector<std::byte> data(size_bytes);
    void* const place = data.data();
    memory_.emplace(place, std::move(data));
    return place;
  }
  void free(void* data) noexcept override {
    const std::lock_guard lock(mutex_);
    // CUDA would wait for all kernels of the GPU.
    for (const auto& [stream, items] : streams_) {
      for (const Item& item : items) {
        if (item.data == data) violations_.push_back("free of memory that is in use");
      }
    }
    memory_.erase(data);
  }
  void copy(void* to, const void* from, std::size_t size_bytes) override {
    std::memcpy(to, from, size_bytes);
  }

 private:
  struct Item {
    enum class Kind { kernel, record, wait, send, receive } kind;
    int kernel = 0;
    void* event = nullptr;
    int number = 0;  // which recording of the event
    void* communicator = nullptr;
    void* data = nullptr;
    std::size_t size_bytes = 0;
  };
  struct Event {
    int recorded = 0;
    int reached = 0;
  };
  struct Communicator {
    NcclId id{};
    int rank = 0;
    int polls_left = 0;
    bool dead = false;
    std::optional<Item> issuing;
    void* issuing_stream = nullptr;
  };
  struct Failure {
    int polls = 0;
    NcclResult error = NcclResult::success;
  };

  NcclResult note(std::string text) {
    const std::lock_guard lock(mutex_);
    log_.push_back(std::move(text));
    return NcclResult::success;
  }
  Communicator& get(void* communicator) {
    auto& it = *static_cast<Communicator*>(communicator);
    if (it.dead) violations_.push_back("use of a communicator that is gone");
    return it;
  }
  void check_idle(const Communicator& it) {
    if (it.polls_left > 0 || it.issuing) violations_.push_back("call while one is in progress");
  }
  void touch(void* stream) {
    for (const auto& communicator : communicators_) {
      if (communicator->issuing && communicator->issuing_stream == stream) {
        violations_.push_back("stream used while an operation is put on it");
      }
    }
  }
  NcclResult issue(Item item, int peer, void* stream) {
    const std::lock_guard lock(mutex_);
    Communicator& it = get(item.communicator);
    check_idle(it);
    if (peer != 1 - it.rank) violations_.push_back("wrong peer");
    log_.push_back(fmt::format("{} {} {}", item.kind == Item::Kind::send ? "send" : "receive",
                               it.rank, item.size_bytes));
    if (issue_polls == 0) {
      streams_.at(stream).push_back(item);
      return NcclResult::success;
    }
    it.polls_left = issue_polls;
    it.issuing = item;
    it.issuing_stream = stream;
    return NcclResult::in_progress;
  }

  // Lets the streams go as far as they can.
  void run() {
    bool moved = true;
    while (moved) {
      moved = false;
      for (auto& [stream, items] : streams_) {
        while (!items.empty() && run_front(items)) moved = true;
      }
    }
  }
  bool run_front(std::deque<Item>& items) {
    const Item item = items.front();
    switch (item.kind) {
      case Item::Kind::kernel:
        if (!kernels_[static_cast<std::size_t>(item.kernel)]) return false;
        break;
      case Item::Kind::record:
        if (const auto event = events_.find(item.event); event != events_.end()) {
          event->second.reached = std::max(event->second.reached, item.number);
        }
        break;
      case Item::Kind::wait:
        if (const auto event = events_.find(item.event);
            event != events_.end() && event->second.reached < item.number) {
          return false;
        }
        break;
      case Item::Kind::send:
        return false;  // moves with its receive
      case Item::Kind::receive: {
        std::deque<Item>* from = sender_of(item);
        if (from == nullptr) return false;
        const Item sent = from->front();
        if (sent.size_bytes != item.size_bytes) {
          violations_.push_back("sizes differ");
          return false;
        }
        // Sizes that tests only pretend to have are not copied.
        if (item.size_bytes < (std::size_t{1} << 31U)) {
          std::memcpy(item.data, sent.data, item.size_bytes);
          if (corrupt) static_cast<std::byte*>(item.data)[item.size_bytes / 2] ^= std::byte{4};
        }
        from->pop_front();
        break;
      }
    }
    items.pop_front();
    return true;
  }
  std::deque<Item>* sender_of(const Item& receive) {
    const auto& it = *static_cast<Communicator*>(receive.communicator);
    for (auto& [stream, items] : streams_) {
      if (items.empty() || items.front().kind != Item::Kind::send) continue;
      const auto& other = *static_cast<Communicator*>(items.front().communicator);
      if (other.id == it.id && other.rank == 1 - it.rank) return &items;
    }
    return nullptr;
  }

  std::mutex mutex_;
  std::deque<char> handles_;  // their addresses are the handles
  std::map<void*, std::deque<Item>> streams_;
  std::map<void*, Event> events_;
  std::map<void*, std::vector<std::byte>> memory_;
  std::vector<std::unique_ptr<Communicator>> communicators_;
  std::vector<bool> kernels_;
  std::map<int, Failure> failures_;
  std::vector<std::string> log_;
  std::vector<std::string> violations_;
  bool event_error_ = false;
  int next_id_ = 0;
};

}  // namespace penstock::comm
