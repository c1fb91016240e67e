// Streams, events and buffers; what needs a GPU is skipped where there is none.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <utility>

#include "comm/device/buffer.hpp"
#include "comm/device/error.hpp"
#include "comm/device/gpu.hpp"
#include "comm/device/stream.hpp"

namespace penstock::comm::device {
namespace {

using testing::AllOf;
using testing::HasSubstr;

template <typename Body>
std::string error_of(Body body) {
  try {
    body();
  } catch (const DeviceError& e) {
    return e.what();
  }
  return "no error";
}

TEST(CheckCuda, SuccessIsSilent) { EXPECT_NO_THROW(check_cuda(0, "call", "file", 1)); }

TEST(CheckCuda, NamesCallWordsAndPlace) {
  EXPECT_EQ(error_of([] { check_cuda(2, "cudaMalloc(&data, bytes)", "comm/x.cpp", 12); }),
            "CUDA: out of memory (cudaErrorMemoryAllocation, 2; cudaMalloc(&data, bytes), "
            "comm/x.cpp:12)");
}

TEST(CheckCuda, MacroEvaluatesOnceAndStaysInRelease) {
  int calls = 0;
  const auto call = [&] { return ++calls; };
  EXPECT_THAT(error_of([&] { PENSTOCK_CUDA_CALL(call()); }),
              AllOf(HasSubstr("cudaErrorInvalidValue, 1; call()"), HasSubstr("memory_cuda_test")));
  EXPECT_EQ(calls, 1);
}

TEST(CheckQuery, NotReadyIsAnAnswerAndOtherErrorsThrow) {
  EXPECT_TRUE(check_query(0, "cudaEventQuery", "comm/x.cpp", 1));
  EXPECT_FALSE(check_query(600, "cudaEventQuery", "comm/x.cpp", 1));
  EXPECT_THAT(error_of([] { check_query(700, "cudaEventQuery", "comm/x.cpp", 3); }),
              HasSubstr("cudaErrorIllegalAddress, 700; cudaEventQuery, comm/x.cpp:3"));
}

TEST(Handles, EmptyOnesMoveAndEndWithoutAGpu) {
  Stream stream;
  Event event;
  DeviceBuffer buffer;
  PinnedBuffer pinned(0);
  EXPECT_FALSE(stream);
  EXPECT_FALSE(event);
  EXPECT_FALSE(buffer);
  EXPECT_FALSE(pinned);
  EXPECT_TRUE(pinned.bytes().empty());
  Stream other = std::move(stream);
  other = Stream();
  event = Event();
  buffer = DeviceBuffer();
  pinned = PinnedBuffer();
}

TEST(Handles, CannotBeMadeWithoutAGpu) {
  if (!survey_gpus().gpus.empty()) GTEST_SKIP() << "this machine has a GPU";
  EXPECT_THROW(Stream::create(), DeviceError);
  EXPECT_THROW(Event::create(), DeviceError);
  EXPECT_THROW(DeviceBuffer(16), DeviceError);
  EXPECT_THROW(PinnedBuffer(16), DeviceError);
}

class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    const GpuSurvey survey = survey_gpus();
    if (survey.gpus.empty()) GTEST_SKIP() << survey.none;
    use_gpu(survey.gpus.front());
  }
};

TEST_F(GpuTest, CopiesThereAndBackInTheOrderOfAStream) {
  constexpr std::size_t kSize = 1U << 20U;
  PinnedBuffer out(kSize);
  PinnedBuffer in(kSize);
  std::memset(out.data(), 0x5A, kSize);
  std::memset(in.data(), 0, kSize);
  const DeviceBuffer buffer(kSize);
  const Stream stream = Stream::create(Stream::Priority::urgent);
  Event event = Event::create();
  EXPECT_TRUE(event.done());
  copy_async(buffer.data(), out.data(), kSize, stream.get());
  zero_async(buffer.data(), 16, stream.get());
  copy_async(in.data(), buffer.data(), kSize, stream.get());
  event.record(stream);
  event.synchronize();
  EXPECT_TRUE(event.done());
  EXPECT_TRUE(stream.idle());
  EXPECT_EQ(in.as<unsigned char>()[15], 0);
  EXPECT_EQ(in.as<unsigned char>()[16], 0x5A);
  EXPECT_EQ(in.as<unsigned char>()[kSize - 1], 0x5A);
}

TEST_F(GpuTest, StreamsWaitForEvents) {
  constexpr std::size_t kSize = 64U << 20U;
  const DeviceBuffer buffer(kSize);
  const Stream first = Stream::create();
  const Stream second = Stream::create();
  Event start = Event::create(true);
  Event end = Event::create(true);
  start.record(first);
  for (int i = 0; i < 100; ++i) zero_async(buffer.data(), kSize, first.get());
  end.record(first);
  second.wait(end);
  PinnedBuffer byte(1);
  copy_async(byte.data(), buffer.data(), 1, second.get());
  second.synchronize();
  EXPECT_TRUE(end.done());
  EXPECT_GT(elapsed_ms(start, end), 0.0F);
}

TEST_F(GpuTest, MoveAssignmentFreesWhatWasThere) {
  DeviceBuffer buffer(1U << 20U);
  void* const first = buffer.data();
  DeviceBuffer other(1U << 20U);
  void* const second = other.data();
  EXPECT_NE(first, second);
  buffer = std::move(other);
  EXPECT_EQ(buffer.data(), second);
  EXPECT_FALSE(other);
}

TEST_F(GpuTest, TooMuchMemoryIsAnErrorThatSaysHowMuchIsFree) {
  EXPECT_THAT(error_of([] { DeviceBuffer(std::size_t{1} << 50U); }),
              AllOf(HasSubstr("the GPU has no 1048576.00 GiB"), HasSubstr("GiB are free")));
  EXPECT_NO_THROW(DeviceBuffer(1024)) << "the failure must not stick";
}

TEST_F(GpuTest, MemoryIsToldByTheDriver) {
  const GpuMemory memory = gpu_memory();
  EXPECT_GT(memory.free_bytes, 0U);
  EXPECT_LE(memory.free_bytes, memory.total_bytes);
}

}  // namespace
}  // namespace penstock::comm::device
