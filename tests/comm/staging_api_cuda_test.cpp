// The staged link between two streams of one GPU, over the links of threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "comm/device/buffer.hpp"
#include "comm/device/gpu.hpp"
#include "comm/device/stream.hpp"
#include "comm/local.hpp"
#include "comm/staged_link.hpp"
#include "comm/wait.hpp"

namespace penstock::comm {
namespace {

using device::DeviceBuffer;
using device::Stream;

constexpr std::size_t kBytes = std::size_t{4} << 20U;
constexpr int kMessages = 20;
constexpr std::chrono::seconds kPatience{60};

class StagedLinkOnGpu : public testing::TestWithParam<std::size_t> {
 protected:
  void SetUp() override {
    const device::GpuSurvey survey = device::survey_gpus();
    if (survey.gpus.empty()) GTEST_SKIP() << survey.none;
    device::use_gpu(survey.gpus.front());
  }
};

// Each message is written on the sender's stream, sent at once, and overwritten by the next one;
// the receiver's stream takes it away as soon as it is ordered behind its arrival.
TEST_P(StagedLinkOnGpu, MovesWhatTheStreamsComputeInOrder) {
  std::vector<Endpoint> endpoints = local_endpoints(2);
  const std::shared_ptr<StagingApi> api = make_staging_api();
  const StagingPlan plan{api, "edge 0 to 1", GetParam(), kBytes};
  const Stream compute_out = Stream::create();
  const Stream compute_in = Stream::create();
  DeviceBuffer out(kBytes);
  DeviceBuffer in(kBytes);
  std::vector<device::PinnedBuffer> sent;
  std::vector<device::PinnedBuffer> arrived;
  StagedSender sender(std::move(endpoints[0].next), plan);
  StagedReceiver receiver(std::move(endpoints[1].previous), plan);
  sender.set_compute_stream(compute_out.get());
  receiver.set_compute_stream(compute_in.get());
  const auto until = [&](const std::function<bool()>& done) {
    Wait wait([] { return std::string("a step of the staged link"); }, kPatience);
    while (!done()) {
      sender.progress();
      receiver.progress();
      wait.pause();
    }
  };
  for (int message = 0; message < kMessages; ++message) {
    auto& from = sent.emplace_back(kBytes);
    auto& to = arrived.emplace_back(kBytes);
    for (std::size_t i = 0; i < kBytes; ++i) {
      from.as<std::uint8_t>()[i] =
          static_cast<std::uint8_t>(i * 7 + i / 253 + static_cast<std::size_t>(message) * 11);
      to.as<std::uint8_t>()[i] = 0;
    }
    device::copy_async(out.data(), from.data(), kBytes, compute_out.get());
    const Ticket sending = sender.send(out.bytes());
    const Ticket receiving = receiver.receive(in.bytes());
    until([&] { return sender.order_compute_after(sending); });
    device::zero_async(out.data(), kBytes, compute_out.get());
    until([&] { return receiver.order_compute_after(receiving); });
    device::copy_async(to.data(), in.data(), kBytes, compute_in.get());
    // A receive does not wait for the compute stream: its buffer must be free.
    until([&] { return compute_in.idle(); });
  }
  compute_out.synchronize();
  for (int message = 0; message < kMessages; ++message) {
    const auto i = static_cast<std::size_t>(message);
    ASSERT_EQ(std::memcmp(sent[i].data(), arrived[i].data(), kBytes), 0) << "message " << message;
  }
}

INSTANTIATE_TEST_SUITE_P(Buffers, StagedLinkOnGpu, testing::Values(1, 3));

}  // namespace
}  // namespace penstock::comm
