// The staged link over the links of threads, with a fake of CUDA whose streams go forward one item
// at a time, in an order that the test's seed chooses.

#include "comm/staged_link.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <set>

#include "comm/device/error.hpp"
#include "comm/error.hpp"
#include "comm/local.hpp"

namespace penstock::comm {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;
using testing::ThrowsMessage;

// Streams run in order; an event stands for what was on the stream when it was recorded. "GPU
// memory" is ordinary memory. Used by one thread.
class FakeStaging final : public StagingApi {
 public:
  std::mt19937 random;
  bool query_fails = false;
  bool ends_behind_query = false;  // the GPU finishes all right after it was asked
  int allocations_left = 1000;
  std::set<void*> live;  // streams, events and pinned memory
  bool freed_too_early = false;

  // Work of the test's own.
  void work(void* stream, std::function<void()> body) {
    streams_[stream].push_back(std::move(body));
  }
  // Holds a stream up until it is opened.
  void* close_gate(void* stream) {
    void* gate = make();
    recorded_[gate] = 1;
    wait(stream, gate);
    return gate;
  }
  void open_gate(void* gate) { reached_[gate] = 1; }
  // Runs one item of one stream, if there is one that can.
  void step() {
    if (streams_.empty()) return;
    auto it = streams_.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(random() % streams_.size()));
    if (it->second.empty()) return;
    Item& item = it->second.front();
    if (item.event != nullptr && reached_[item.event] < item.number) return;
    if (item.body) item.body();
    it->second.pop_front();
  }
  bool nothing_is_copied() const { return copying_.empty(); }
  void run_all() {
    for (int i = 0; i < 1000; ++i) step();
  }

  void* create_stream() override { return make(); }
  void destroy_stream(void* stream) noexcept override {
    streams_.erase(stream);
    live.erase(stream);
  }
  void* create_event() override { return make(); }
  void destroy_event(void* event) noexcept override { live.erase(event); }
  void record(void* event, void* stream) override {
    const int number = ++recorded_[event];
    work(stream, [this, event, number] { reached_[event] = number; });
  }
  void wait(void* stream, void* event) override {
    streams_[stream].push_back({{}, event, recorded_[event]});
  }
  bool done(void* event) override {
    if (query_fails) throw device::DeviceError("CUDA: an illegal memory access was encountered");
    const bool was_reached = reached_[event] == recorded_[event];
    for (auto steps = random() % 8; steps > 0; --steps) step();
    if (ends_behind_query) run_all();
    return was_reached;
  }
  void* allocate_pinned(std::size_t size_bytes) override {
    if (allocations_left-- == 0) throw device::DeviceError("CUDA: out of memory");
    return make(size_bytes);
  }
  void free_pinned(void* data) noexcept override {
    live.erase(data);
    if (copying_.count(data) > 0) freed_too_early = true;
  }
  void synchronize(void* stream) noexcept override {
    for (int i = 0; i < 10000 && !streams_[stream].empty(); ++i) step();
  }
  void copy(void* to, const void* from, std::size_t size_bytes, void* stream) override {
    copying_.insert(to);
    copying_.insert(from);
    work(stream, [=, this] {
      std::memcpy(to, from, size_bytes);
      copying_.erase(copying_.find(to));
      copying_.erase(copying_.find(from));
    });
  }

 private:
  struct Item {
    Item(std::function<void()> b, void* e = nullptr, int n = 0)
        : body(std::move(b)), event(e), number(n) {}
    std::function<void()> body;
    void* event;  // that it waits for
    int number;
  };
  void* make(std::size_t size_bytes = 1) {
    memory_.emplace_back(size_bytes);
    live.insert(memory_.back().data());
    return memory_.back().data();
  }

  std::deque<std::vector<std::byte>> memory_;  // never freed, so that addresses differ
  std::map<void*, std::deque<Item>> streams_;
  std::map<void*, int> recorded_;
  std::map<void*, int> reached_;
  std::multiset<const void*> copying_;
};

constexpr std::size_t kBytes = 64;
using Bytes = std::vector<std::byte>;

Bytes filled(int value, std::size_t size_bytes = kBytes) {
  return Bytes(size_bytes, static_cast<std::byte>(value));
}

class StagedLink : public testing::Test {
 protected:
  StagedLink() {
    endpoints_ = local_endpoints(2);
    connect(3);
  }

  StagingPlan plan(std::size_t buffers) const { return {api_, "edge 0 to 1", buffers, kBytes}; }

  void connect(std::size_t buffers) {
    sender_.reset();
    receiver_.reset();
    endpoints_ = local_endpoints(2);
    sender_ = std::make_unique<StagedSender>(std::move(endpoints_[0].next), plan(buffers));
    receiver_ = std::make_unique<StagedReceiver>(std::move(endpoints_[1].previous), plan(buffers));
    compute_out_ = api_->create_stream();
    compute_in_ = api_->create_stream();
    sender_->set_compute_stream(compute_out_);
    receiver_->set_compute_stream(compute_in_);
  }

  // Both ends go on until `done`; false: they did not get there.
  bool progress_until(const std::function<bool()>& done) {
    for (int i = 0; i < 10000; ++i) {
      sender_->progress();
      receiver_->progress();
      api_->step();
      if (done()) return true;
    }
    return false;
  }

  std::shared_ptr<FakeStaging> api_ = std::make_shared<FakeStaging>();
  std::vector<Endpoint> endpoints_;
  std::unique_ptr<StagedSender> sender_;
  std::unique_ptr<StagedReceiver> receiver_;
  void* compute_out_ = nullptr;
  void* compute_in_ = nullptr;
};

// As a stage does it: each message is computed on the stream, sent at once, and the next one is
// computed into the same memory; the other stage's work on it is ordered behind its arrival.
TEST_F(StagedLink, MovesWhatTheStreamsComputeInOrder) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(seed);
    api_->random.seed(seed);
    connect(1 + seed % 3);
    constexpr int kMessages = 20;
    Bytes out = filled(0);
    std::vector<Bytes> in(2);
    for (Bytes& buffer : in) buffer = filled(0);
    std::vector<Bytes> seen;
    std::optional<Ticket> last_sent;
    std::optional<Ticket> posted;
    int sends = 0;
    int receives = 0;
    const bool ended = progress_until([&] {
      if (sends < kMessages && (!last_sent || sender_->order_compute_after(*last_sent))) {
        // Size and contents of message n: n + 1 bytes of n + 1.
        const int value = ++sends;
        api_->work(compute_out_, [&out, value] {
          std::fill(out.begin(), out.end(), static_cast<std::byte>(value));
        });
        last_sent = sender_->send(std::span(out).first(static_cast<std::size_t>(value)));
      }
      if (!posted && receives < kMessages &&
          seen.size() + 1 >= static_cast<std::size_t>(receives)) {
        Bytes& buffer = in[static_cast<std::size_t>(receives) % 2];
        posted = receiver_->receive(std::span(buffer).first(static_cast<std::size_t>(++receives)));
      }
      if (posted && receiver_->order_compute_after(*posted)) {
        Bytes& buffer = in[static_cast<std::size_t>(receives - 1) % 2];
        const auto size = static_cast<std::ptrdiff_t>(receives);
        api_->work(compute_in_, [&seen, &buffer, size] {
          seen.emplace_back(buffer.begin(), buffer.begin() + size);
        });
        posted.reset();
      }
      return seen.size() == kMessages && sender_->done(*last_sent);
    });
    ASSERT_TRUE(ended);
    for (int i = 0; i < kMessages; ++i) {
      EXPECT_EQ(seen[static_cast<std::size_t>(i)], filled(i + 1, static_cast<std::size_t>(i) + 1));
    }
  }
}

TEST_F(StagedLink, MemoryIsFreeBeforeThePeerHasIt) {
  Bytes out = filled(7);
  const Ticket ticket = sender_->send(out);
  EXPECT_TRUE(sender_->order_compute_after(ticket));
  api_->work(compute_out_, [&] { std::fill(out.begin(), out.end(), std::byte{8}); });
  api_->run_all();
  EXPECT_EQ(out, filled(8));
  EXPECT_FALSE(sender_->done(ticket));  // nobody has received it
  Bytes in = filled(0);
  const Ticket received = receiver_->receive(in);
  EXPECT_TRUE(progress_until([&] { return receiver_->done(received) && sender_->done(ticket); }));
  EXPECT_EQ(in, filled(7));
}

TEST_F(StagedLink, ReceiveIsNotOrderedBeforeItHasArrived) {
  Bytes in = filled(0);
  const Ticket received = receiver_->receive(in);
  api_->run_all();
  EXPECT_FALSE(receiver_->order_compute_after(received));
  Bytes out = filled(5);
  sender_->send(out);
  EXPECT_TRUE(progress_until([&] { return receiver_->order_compute_after(received); }));
}

TEST_F(StagedLink, MoreMessagesThanBuffersWaitForOne) {
  connect(1);
  Bytes first = filled(1);
  Bytes second = filled(2);
  sender_->send(first);
  const Ticket ticket = sender_->send(second);
  api_->run_all();
  EXPECT_FALSE(sender_->order_compute_after(ticket));  // it may not be overwritten yet
  Bytes in_first = filled(0);
  Bytes in_second = filled(0);
  receiver_->receive(in_first);
  const Ticket received = receiver_->receive(in_second);
  EXPECT_TRUE(progress_until([&] { return receiver_->done(received) && sender_->done(ticket); }));
  EXPECT_EQ(in_first, filled(1));
  EXPECT_EQ(in_second, filled(2));
}

TEST_F(StagedLink, RoomIsMadeForMoreMessages) {
  connect(1);
  sender_->make_room(2);
  receiver_->make_room(2);
  Bytes first = filled(1);
  Bytes second = filled(2);
  Bytes third = filled(3);
  sender_->send(first);
  const Ticket ticket = sender_->send(second);
  const Ticket last = sender_->send(third);
  api_->run_all();
  EXPECT_TRUE(sender_->order_compute_after(ticket));
  EXPECT_FALSE(sender_->order_compute_after(last));
  std::vector<Bytes> in(3, filled(0));
  Ticket received = 0;
  for (Bytes& buffer : in) received = receiver_->receive(buffer);
  EXPECT_TRUE(progress_until([&] { return receiver_->done(received) && sender_->done(last); }));
  EXPECT_THAT(in, testing::ElementsAre(first, second, third));
  sender_.reset();
  receiver_.reset();
  EXPECT_EQ(api_->live.size(), 4u);  // the compute streams of two connect()
}

TEST_F(StagedLink, ThatMoreRoomCannotBeHadNamesTheEdge) {
  connect(1);
  api_->allocations_left = 1;
  EXPECT_THAT([&] { sender_->make_room(3); },
              ThrowsMessage<CommError>("edge 0 to 1: CUDA: out of memory"));
}

// The second message is found copied in the same round in which the first was not.
TEST_F(StagedLink, CopiesThatEndBetweenTwoQueriesKeepTheOrder) {
  api_->ends_behind_query = true;
  Bytes first = filled(1);
  Bytes second = filled(2);
  void* gate = api_->close_gate(compute_out_);
  sender_->send(first);
  sender_->send(second);
  api_->open_gate(gate);
  Bytes in_first = filled(0);
  Bytes in_second = filled(0);
  receiver_->receive(in_first);
  const Ticket received = receiver_->receive(in_second);
  EXPECT_TRUE(progress_until([&] { return receiver_->done(received); }));
  EXPECT_EQ(in_first, filled(1));
  EXPECT_EQ(in_second, filled(2));
}

TEST_F(StagedLink, EmptyMessagesAndWorkWithoutAComputeStream) {
  endpoints_ = local_endpoints(2);
  StagedSender sender(std::move(endpoints_[0].next), plan(1));
  StagedReceiver receiver(std::move(endpoints_[1].previous), plan(1));
  Bytes out = filled(3);
  Bytes in = filled(0);
  const Ticket empty = sender.send({});
  const Ticket sent = sender.send(out);
  const Ticket nothing = receiver.receive({});
  const Ticket received = receiver.receive(in);
  for (int i = 0; i < 1000; ++i) {
    sender.progress();
    receiver.progress();
    api_->step();
  }
  EXPECT_TRUE(sender.done(empty) && receiver.done(nothing));
  EXPECT_TRUE(sender.order_compute_after(sent) && receiver.order_compute_after(received));
  EXPECT_EQ(in, filled(3));
}

TEST_F(StagedLink, RefusesWhatItCannotMove) {
  const Bytes large = filled(1, kBytes + 1);
  EXPECT_THAT([&] { sender_->send(large); },
              ThrowsMessage<CommError>(
                  AllOf(StartsWith("edge 0 to 1: "), HasSubstr("65 bytes"), HasSubstr("64"))));
  Bytes room = filled(1, kBytes + 1);
  EXPECT_THROW(receiver_->receive(room), CommError);
  EXPECT_THROW(sender_->done(0), std::out_of_range);
  EXPECT_THROW(receiver_->done(0), std::out_of_range);
}

TEST_F(StagedLink, FailuresOfCudaNameTheEdge) {
  Bytes out = filled(1);
  sender_->send(out);
  api_->query_fails = true;
  EXPECT_THAT([&] { sender_->progress(); },
              ThrowsMessage<CommError>("edge 0 to 1: CUDA: an illegal memory access was "
                                       "encountered"));
  EXPECT_THAT([&] { sender_->send(out); }, ThrowsMessage<CommError>(HasSubstr("has failed")));
  sender_.reset();  // before what it still copies
}

TEST_F(StagedLink, AfterAbortNothingIsStarted) {
  receiver_->abort();
  Bytes in = filled(0);
  EXPECT_THROW(receiver_->receive(in), CommError);
  EXPECT_THROW(receiver_->progress(), CommError);
}

TEST_F(StagedLink, AfterAbortNothingIsCopied) {
  Bytes out = filled(1);
  sender_->send(out);
  sender_->abort();
  EXPECT_TRUE(api_->nothing_is_copied());
}

// As when an exception unwinds.
TEST_F(StagedLink, PinnedMemoryIsNotFreedWhileTheGpuCopies) {
  Bytes out = filled(1);
  Bytes in = filled(0);
  const Ticket received = receiver_->receive(in);
  sender_->send(out);
  ASSERT_TRUE(progress_until([&] { return receiver_->order_compute_after(received); }));
  sender_->send(out);
  sender_.reset();
  receiver_.reset();
  EXPECT_FALSE(api_->freed_too_early);
}

TEST_F(StagedLink, FreesAllThatItMade) {
  sender_.reset();
  receiver_.reset();
  EXPECT_EQ(api_->live.size(), 2U);  // the test's own compute streams
  api_->allocations_left = 1;
  endpoints_ = local_endpoints(2);
  EXPECT_THAT([&] { StagedSender(std::move(endpoints_[0].next), plan(2)); },
              ThrowsMessage<CommError>("edge 0 to 1: CUDA: out of memory"));
  EXPECT_EQ(api_->live.size(), 2U);
}

}  // namespace
}  // namespace penstock::comm
