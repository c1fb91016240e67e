// The pipeline loop with stages and links that behave as those of GPUs: forward() only puts work on
// a stream, which goes on when it is polled; links order themselves against the stream. Everything
// that is read too early is garbage, and everything that is overwritten too early is lost.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <mutex>

#include "comm/error.hpp"
#include "jobs/round_trip.hpp"
#include "model/stage_idle.hpp"
#include "tests/jobs/fake_pipeline.hpp"

namespace penstock::jobs {
namespace {

using testing::HasSubstr;

// One stage's compute stream: items run in order, each after some polls. Used by one thread.
class FakeStream : public std::enable_shared_from_this<FakeStream> {
 public:
  explicit FakeStream(unsigned seed, unsigned most_polls)
      : random_(seed), most_polls_(most_polls) {}

  void put(std::function<void()> work) {
    items_.push_back({std::move(work), {}, static_cast<unsigned>(random_()) % most_polls_});
  }
  // What comes behind waits until `reached`.
  void wait(std::function<bool()> reached) { items_.push_back({{}, std::move(reached), 0}); }
  std::uint64_t end() const { return done_ + items_.size(); }
  std::uint64_t done() const { return done_; }
  void poll() {
    while (!items_.empty()) {
      Item& item = items_.front();
      if (item.reached && !item.reached()) return;
      if (item.polls_left > 0) {
        --item.polls_left;
        return;
      }
      if (item.work) item.work();
      items_.pop_front();
      ++done_;
    }
  }

 private:
  struct Item {
    std::function<void()> work;
    std::function<bool()> reached;
    unsigned polls_left;
  };
  std::mt19937 random_;
  unsigned most_polls_;
  std::deque<Item> items_;
  std::uint64_t done_ = 0;
};

// In what order things end, over all threads.
struct Log {
  std::mutex mutex;
  std::vector<std::string> lines;
  void add(std::string line) {
    const std::lock_guard lock(mutex);
    lines.push_back(std::move(line));
  }
};

class LoggedBuffer : public FakeBuffer {
 public:
  LoggedBuffer(std::size_t size_bytes, std::string name, std::shared_ptr<Log> log)
      : FakeBuffer(size_bytes), name_(std::move(name)), log_(std::move(log)) {}
  ~LoggedBuffer() override { log_->add("free " + name_); }

 private:
  std::string name_;
  std::shared_ptr<Log> log_;
};

class AsyncStage : public FakeStage {
 public:
  AsyncStage(int stage, int stages, std::shared_ptr<FakeStream> stream, std::shared_ptr<Log> log)
      : FakeStage(stage, stages),
        name_(std::to_string(stage)),
        stream_(std::move(stream)),
        log_(std::move(log)) {}

  void* compute_stream() const override { return stream_.get(); }
  std::unique_ptr<model::ActivationBuffer> make_activations(std::size_t bytes) const override {
    return std::make_unique<LoggedBuffer>(bytes, name_, log_);
  }
  void forward(const model::StepPlan& plan, std::span<const std::byte> in, std::span<std::byte> out,
               const std::function<void()>& progress) override {
    if (plan.step == throw_at) throw std::runtime_error("the fake stage broke");
    stream_->put([this, plan, in, out] {  // a copy of the plan: the caller's may be gone
      FakeStage::forward(plan, in, out, [] {});
    });
    mark_ = stream_->end();
    progress();
  }
  bool ready() override {
    stream_->poll();
    return stream_->done() >= mark_;
  }
  std::span<const std::int32_t> sampled() const override {
    if (stream_->done() < mark_) throw std::logic_error("ids are read before they are there");
    return FakeStage::sampled();
  }

 private:
  std::string name_;
  std::shared_ptr<FakeStream> stream_;
  std::shared_ptr<Log> log_;
  std::uint64_t mark_ = 0;
};

// As that on a GPU: its ids are there at once, but a step is done when the stream is.
class AsyncIdleStage : public model::IdleStage {
 public:
  AsyncIdleStage(std::string name, std::shared_ptr<FakeStream> stream, std::shared_ptr<Log> log)
      : IdleStage(sizeof(std::uint64_t)),
        name_(std::move(name)),
        stream_(std::move(stream)),
        log_(std::move(log)) {}

  void* compute_stream() const override { return stream_.get(); }
  std::unique_ptr<model::ActivationBuffer> make_activations(std::size_t bytes) const override {
    return std::make_unique<LoggedBuffer>(bytes, name_, log_);
  }
  void forward(const model::StepPlan& plan, std::span<const std::byte> in, std::span<std::byte> out,
               const std::function<void()>& progress) override {
    IdleStage::forward(plan, in, out, progress);
    stream_->put([] {});
    mark_ = stream_->end();
  }
  bool ready() override {
    stream_->poll();
    return stream_->done() >= mark_;
  }

 private:
  std::string name_;
  std::shared_ptr<FakeStream> stream_;
  std::shared_ptr<Log> log_;
  std::uint64_t mark_ = 0;
};

// What both ends of a device link do alike, over a link of threads. Stricter than real ones in that
// nothing may be under way when they get another stream, since the pipeline ends what it starts.
template <typename Host>
class DeviceEnd : public Host {
 public:
  DeviceEnd(std::unique_ptr<Host> host, std::string name, std::shared_ptr<Log> log)
      : host_(std::move(host)), name_(std::move(name)), log_(std::move(log)) {}

  void set_compute_stream(void* stream) override {
    if (!tickets_.empty() && !(tickets_.back() && host_->done(*tickets_.back()))) {
      throw std::logic_error("a message of the last run is under way");
    }
    compute_stream_ = static_cast<FakeStream*>(stream)->weak_from_this();
  }
  void make_room(std::size_t messages) override { room_ = std::max(room_, messages); }
  bool done(comm::Ticket ticket) override {
    progress();
    const bool done = tickets_.at(ticket) && host_->done(*tickets_.at(ticket));
    if (done) released(ticket);
    return done;
  }
  void progress() override {
    if (const auto stream = compute_stream_.lock()) stream->poll();
    hand_over();
    host_->progress();
  }
  bool order_compute_after(comm::Ticket ticket) override {
    const std::shared_ptr<FakeStream> stream = compute_stream();
    if (done(ticket)) return true;
    if (++refused_ % 4 != 0 || !tickets_.at(ticket)) return false;  // not possible yet
    stream->wait([this, ticket] { return host_->done(*tickets_.at(ticket)); });
    released(ticket);
    return true;
  }
  void abort() noexcept override { log_->add("abort " + name_); }

 protected:
  std::shared_ptr<FakeStream> compute_stream() const {
    if (auto stream = compute_stream_.lock()) return stream;
    throw std::logic_error("there is no compute stream, or it is gone");
  }
  bool has_room() {
    std::size_t under_way = 0;
    for (auto ticket = tickets_.rbegin(); ticket != tickets_.rend(); ++ticket) {
      if (!*ticket) continue;
      if (host_->done(**ticket)) break;  // as are all before it
      ++under_way;
    }
    return under_way < room_;
  }
  virtual void hand_over() = 0;
  // The caller has heard that it may use the memory again.
  virtual void released(comm::Ticket) {}
  std::unique_ptr<Host> host_;
  std::deque<std::optional<comm::Ticket>> tickets_;  // the host link's; none: not handed over

 private:
  std::string name_;
  std::shared_ptr<Log> log_;
  std::weak_ptr<FakeStream> compute_stream_;
  std::size_t room_ = 1;
  int refused_ = 0;
};

class DeviceSender : public DeviceEnd<comm::LinkSender> {
 public:
  using DeviceEnd::DeviceEnd;
  comm::Ticket send(std::span<const std::byte> bytes) override {
    const comm::Ticket ticket = tickets_.size();
    for (const auto& [other, begin] : held_) {
      if (begin == bytes.data()) throw std::logic_error("memory is used again while it is sent");
    }
    held_[ticket] = bytes.data();
    waiting_.push_back({bytes, compute_stream()->end()});
    tickets_.push_back({});
    progress();
    return ticket;
  }

 private:
  struct Waiting {
    std::span<const std::byte> bytes;
    std::uint64_t mark;  // what was on the stream
  };
  void hand_over() override {
    while (!waiting_.empty() && compute_stream()->done() >= waiting_.front().mark && has_room()) {
      tickets_[tickets_.size() - waiting_.size()] = host_->send(waiting_.front().bytes);
      waiting_.pop_front();
    }
  }
  void released(comm::Ticket ticket) override { held_.erase(ticket); }
  std::deque<Waiting> waiting_;
  std::map<comm::Ticket, const std::byte*>
      held_;  // what the link still has, by the caller's knowledge
};

class DeviceReceiver : public DeviceEnd<comm::LinkReceiver> {
 public:
  using DeviceEnd::DeviceEnd;
  comm::Ticket receive(std::span<std::byte> bytes) override {
    waiting_.push_back(bytes);
    tickets_.push_back({});
    progress();
    return tickets_.size() - 1;
  }

 private:
  void hand_over() override {
    while (!waiting_.empty() && has_room()) {
      tickets_[tickets_.size() - waiting_.size()] = host_->receive(waiting_.front());
      waiting_.pop_front();
    }
  }
  std::deque<std::span<std::byte>> waiting_;
};

// What a member does with its links before they get room for all slots and its stage is made.
using SetUp = std::function<void(int member, comm::Endpoint&, const std::shared_ptr<Log>&)>;

// Makes a pipeline one of GPUs.
std::shared_ptr<Log> use_gpus(Pipeline& pipeline, unsigned most_polls = 9, SetUp set_up = {}) {
  auto log = std::make_shared<Log>();
  pipeline.make_stage = [&pipeline, log, most_polls, set_up](int member, comm::Endpoint& endpoint) {
    const std::string name = std::to_string(member);
    if (endpoint.previous) {
      endpoint.previous = std::make_unique<DeviceReceiver>(std::move(endpoint.previous), name, log);
    }
    if (endpoint.next) {
      endpoint.next = std::make_unique<DeviceSender>(std::move(endpoint.next), name, log);
    }
    if (set_up) set_up(member, endpoint, log);
    if (endpoint.previous) endpoint.previous->make_room(pipeline.options.slots);
    if (endpoint.next) endpoint.next->make_room(pipeline.options.slots);
    return std::make_unique<AsyncStage>(
        member, pipeline.stages,
        std::make_shared<FakeStream>(
            static_cast<unsigned>(mix(pipeline.seed, static_cast<std::uint64_t>(member))),
            most_polls),
        log);
  };
  return log;
}

TEST(GpuPipeline, TokensAreThoseOfTheCpu) {
  constexpr std::uint64_t kRecords = 50;
  FakeWorkload reference(kRecords, 90);
  Pipeline simple{1, options_of(1, 512, 1000)};
  simple.run(reference);
  ASSERT_EQ(reference.answers.size(), kRecords);
  std::uint64_t seed = 0;
  for (const int stages : {1, 2, 3, 4}) {
    for (const std::uint32_t slots : {1U, 2U, 5U}) {
      for (const std::uint32_t step_tokens : {7U, 64U}) {
        for (const std::uint32_t blocks : {4U, 1000U}) {
          SCOPED_TRACE(testing::Message()
                       << stages << " stages, " << slots << " slots, " << step_tokens
                       << " tokens a step, " << blocks << " blocks");
          FakeWorkload workload(kRecords, 90);
          Pipeline pipeline{stages, options_of(slots, step_tokens, blocks)};
          pipeline.seed = ++seed;
          use_gpus(pipeline, 1 + static_cast<unsigned>(seed % 40));
          pipeline.run(workload);
          pipeline.expect_no_failures();
          ASSERT_EQ(workload.answers, reference.answers);
        }
      }
    }
  }
}

// As at set-up: idle stages measure the trip on streams of their own, which are gone when the run
// uses the same links.
TEST(GpuPipeline, RunsOverLinksThatMeasuredATrip) {
  constexpr std::uint64_t kRecords = 30;
  FakeWorkload reference(kRecords, 60);
  Pipeline simple{1, options_of(1, 512, 1000)};
  simple.run(reference);
  ASSERT_EQ(reference.answers.size(), kRecords);
  for (const int stages : {2, 3}) {
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
      SCOPED_TRACE(testing::Message() << stages << " stages, seed " << seed);
      FakeWorkload workload(kRecords, 60);
      Pipeline pipeline{stages, options_of(static_cast<std::uint32_t>(stages) + 1, 16, 100)};
      pipeline.seed = seed;
      const auto most_polls = static_cast<unsigned>(4 * seed);
      std::vector<double> trips(static_cast<std::size_t>(stages), -1);
      const auto log = use_gpus(
          pipeline, most_polls,
          [&](int member, comm::Endpoint& endpoint, const std::shared_ptr<Log>& shared_log) {
            const std::string name = "trip " + std::to_string(member);
            auto stream = std::make_shared<FakeStream>(
                static_cast<unsigned>(100 * seed) + static_cast<unsigned>(member), most_polls);
            auto idle = std::make_unique<AsyncIdleStage>(name, stream, shared_log);
            trips[static_cast<std::size_t>(member)] =
                measure_round_trip(endpoint, *idle, 16, any_cost());
            {
              const std::lock_guard lock(shared_log->mutex);
              EXPECT_EQ(std::ranges::count(shared_log->lines, "free " + name),
                        (endpoint.previous ? 1 : 0) + (endpoint.next ? 1 : 0));
            }
            EXPECT_EQ(stream->done(), stream->end());
            idle.reset();
            EXPECT_EQ(stream.use_count(), 1);  // so it ends here
          });
      pipeline.run(workload);
      pipeline.expect_no_failures();
      ASSERT_EQ(workload.answers, reference.answers);
      EXPECT_GT(trips[0], 0);
      EXPECT_THAT(std::vector<double>(trips.begin() + 1, trips.end()), testing::Each(0));
      EXPECT_THAT(log->lines, testing::Not(testing::Contains(HasSubstr("abort"))));
    }
  }
}

TEST(GpuPipeline, LedgerCountsTheGpusWorkAsCompute) {
  FakeWorkload workload(30, 60);
  Pipeline pipeline{1, options_of(1, 64, 100)};
  use_gpus(pipeline, 2000);
  const PipelineTotals totals = pipeline.run(workload);
  pipeline.expect_no_failures();
  EXPECT_GT(totals.stages[0].totals.fraction(Share::compute), 0.5);
}

// Freeing GPU memory waits for a receive whose peer never sends; so the links go first.
TEST(GpuPipeline, LinksAreAbortedBeforeBuffersAreFreed) {
  constexpr int kStages = 3;
  for (int broken = 0; broken < kStages; ++broken) {
    SCOPED_TRACE(broken);
    FakeWorkload workload(60, 90);
    Pipeline pipeline{kStages, options_of(4, 64, 50)};
    pipeline.broken_stage = broken;
    const std::shared_ptr<Log> log = use_gpus(pipeline);
    pipeline.run(workload);
    EXPECT_EQ(pipeline.failures[static_cast<std::size_t>(broken)], "the fake stage broke");
    for (int member = 0; member < kStages; ++member) {
      const std::string name = std::to_string(member);
      EXPECT_NE(pipeline.failures[static_cast<std::size_t>(member)], "");
      const auto aborted = std::find(log->lines.begin(), log->lines.end(), "abort " + name);
      const auto freed = std::find(log->lines.begin(), log->lines.end(), "free " + name);
      ASSERT_NE(aborted, log->lines.end());
      ASSERT_NE(freed, log->lines.end());
      EXPECT_LT(aborted - log->lines.begin(), freed - log->lines.begin());
    }
  }
}

TEST(GpuPipeline, NothingIsAbortedAtAGoodEnd) {
  FakeWorkload workload(20, 40);
  Pipeline pipeline{3, options_of(4, 64, 50)};
  const std::shared_ptr<Log> log = use_gpus(pipeline);
  pipeline.run(workload);
  pipeline.expect_no_failures();
  EXPECT_THAT(log->lines, testing::Not(testing::Contains(HasSubstr("abort"))));
  EXPECT_THAT(log->lines, testing::Contains("free 1").Times(2 * 4));  // in and out, for each slot
}

}  // namespace
}  // namespace penstock::jobs
