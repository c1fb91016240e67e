// NCCL itself on one GPU: a communicator of one rank that sends to itself.
#include "comm/nccl_api.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <vector>

#include "comm/device/gpu.hpp"
#include "comm/wait.hpp"

namespace penstock::comm {
namespace {

constexpr std::chrono::seconds kPatience{60};

class NcclSelfSend : public testing::Test {
 protected:
  void SetUp() override {
    const device::GpuSurvey survey = device::survey_gpus();
    if (survey.gpus.empty()) GTEST_SKIP() << survey.none;
    device::use_gpu(survey.gpus.front());
  }

  void wait_for(const char* what) {
    Wait wait([&] { return std::string(what); }, kPatience);
    NcclResult state = NcclResult::in_progress;
    while (true) {
      ASSERT_EQ(api_->get_async_error(communicator_, state), NcclResult::success);
      if (state != NcclResult::in_progress) break;
      wait.pause();
    }
    ASSERT_EQ(state, NcclResult::success) << what << ": " << api_->get_error_string(state) << "; "
                                          << api_->get_last_error(communicator_);
  }

  static bool begun(NcclResult result) {
    return result == NcclResult::success || result == NcclResult::in_progress;
  }

  std::unique_ptr<NcclApi> api_ = make_nccl_api();
  void* communicator_ = nullptr;
};

TEST_F(NcclSelfSend, BytesArriveInOrder) {
  constexpr std::size_t kBytes = std::size_t{1} << 20U;
  constexpr int kMessages = 3;
  NcclId id{};
  ASSERT_EQ(api_->get_unique_id(id), NcclResult::success) << api_->get_last_error(nullptr);
  ASSERT_TRUE(begun(api_->init(communicator_, 1, id, 0))) << api_->get_last_error(nullptr);
  ASSERT_NO_FATAL_FAILURE(wait_for("ncclCommInitRankConfig"));
  void* const stream = api_->create_stream();
  void* const event = api_->create_event();
  void* const out = api_->allocate(kBytes);
  void* const in = api_->allocate(kBytes);
  for (int message = 0; message < kMessages; ++message) {
    std::vector<std::uint8_t> bytes(kBytes);
    for (std::size_t i = 0; i < kBytes; ++i) {
      bytes[i] = static_cast<std::uint8_t>(i * 31 + i / 251 + static_cast<std::size_t>(message));
    }
    api_->copy(out, bytes.data(), kBytes);
    ASSERT_EQ(api_->group_start(), NcclResult::success);
    EXPECT_TRUE(begun(api_->send(out, kBytes, 0, communicator_, stream)));
    EXPECT_TRUE(begun(api_->receive(in, kBytes, 0, communicator_, stream)));
    ASSERT_TRUE(begun(api_->group_end())) << api_->get_last_error(communicator_);
    ASSERT_NO_FATAL_FAILURE(wait_for("ncclGroupEnd"));
    api_->record(event, stream);
    Wait wait([] { return std::string("end of a message to oneself"); }, kPatience);
    while (!api_->done(event)) wait.pause();
    std::vector<std::uint8_t> arrived(kBytes);
    api_->copy(arrived.data(), in, kBytes);
    EXPECT_EQ(arrived, bytes) << "message " << message;
  }
  ASSERT_TRUE(begun(api_->finalize(communicator_)));
  ASSERT_NO_FATAL_FAILURE(wait_for("ncclCommFinalize"));
  EXPECT_EQ(api_->destroy(communicator_), NcclResult::success);
  api_->free(in);
  api_->free(out);
  api_->destroy_event(event);
  api_->destroy_stream(stream);
}

TEST_F(NcclSelfSend, AnIdleCommunicatorIsAborted) {
  NcclId id{};
  ASSERT_EQ(api_->get_unique_id(id), NcclResult::success) << api_->get_last_error(nullptr);
  ASSERT_TRUE(begun(api_->init(communicator_, 1, id, 0)));
  ASSERT_NO_FATAL_FAILURE(wait_for("ncclCommInitRankConfig"));
  ASSERT_EQ(api_->group_start(), NcclResult::success);
  EXPECT_EQ(api_->abort(communicator_), NcclResult::success);
  EXPECT_TRUE(begun(api_->group_end())) << api_->get_last_error(nullptr);
}

}  // namespace
}  // namespace penstock::comm
