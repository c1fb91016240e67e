#include "comm/device/gpu.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/device/error.hpp"

namespace penstock::comm::device {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::StartsWith;

TEST(SurveyGpus, ThereAreGpusOrAReason) {
  const GpuSurvey survey = survey_gpus();
  EXPECT_EQ(survey.gpus.empty(), !survey.none.empty());
  for (const Gpu& gpu : survey.gpus) {
    EXPECT_GE(gpu.major, 8);
    EXPECT_EQ(gpu.uuid.size(), 40U) << gpu.uuid;
    EXPECT_GT(gpu.memory_bytes, 0U);
    EXPECT_FALSE(gpu.name.empty());
  }
}

TEST(SurveyGpus, ReasonHasTheDriversWords) {
  const GpuSurvey survey = survey_gpus();
  if (!survey.gpus.empty()) GTEST_SKIP() << "this machine has a GPU";
  EXPECT_THAT(survey.none, StartsWith("no usable GPU: "));
  if (survey.runtime_version == 0) {
    EXPECT_THAT(survey.none, HasSubstr("built without CUDA"));
  } else if (survey.driver_version == 0) {
    EXPECT_THAT(survey.none, AllOf(AnyOf(HasSubstr("cudaErrorInsufficientDriver, 35"),
                                         HasSubstr("cudaErrorNoDevice, 100"),
                                         HasSubstr("cudaErrorStubLibrary, 34")),
                                   HasSubstr("this machine has no NVIDIA driver")));
  }
}

TEST(SurveyGpus, CanBeAskedAgain) { EXPECT_EQ(survey_gpus().none, survey_gpus().none); }

TEST(UseGpu, WithoutOneIsAnError) {
  if (!survey_gpus().gpus.empty()) GTEST_SKIP() << "this machine has a GPU";
  EXPECT_THROW(use_gpu(Gpu{}), DeviceError);
  EXPECT_THROW(gpu_memory(), DeviceError);
}

TEST(Gpu, IsDescribedAsUsersKnowIt) {
  Gpu gpu;
  gpu.name = "NVIDIA H100 80GB HBM3";
  gpu.uuid = "GPU-01020304-0506-0708-090a-0b0c0d0e0f10";
  gpu.major = 9;
  gpu.memory_bytes = 85'520'809'984;
  EXPECT_EQ(describe(gpu),
            "NVIDIA H100 80GB HBM3, GPU-01020304-0506-0708-090a-0b0c0d0e0f10, compute capability "
            "9.0, 79.6 GiB");
}

// As `nvidia-smi -L` writes them.
TEST(Gpu, UuidOfAMigSliceIsWrittenAsSuch) {
  const std::array<unsigned char, 16> uuid = {0x0a, 1, 2,  3,  4,  5,  6,  7,
                                              8,    9, 10, 11, 12, 13, 14, 255};
  EXPECT_EQ(uuid_text("NVIDIA H100 80GB HBM3", uuid), "GPU-0a010203-0405-0607-0809-0a0b0c0d0eff");
  EXPECT_EQ(uuid_text("NVIDIA H100 80GB HBM3 MIG 1g.10gb", uuid),
            "MIG-0a010203-0405-0607-0809-0a0b0c0d0eff");
}

TEST(CudaVersion, IsMajorAndMinor) {
  EXPECT_EQ(cuda_version_text(13000), "13.0");
  EXPECT_EQ(cuda_version_text(12080), "12.8");
  EXPECT_EQ(cuda_version_text(0), "none");
}

}  // namespace
}  // namespace penstock::comm::device
