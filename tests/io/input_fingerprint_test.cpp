#include "io/input_fingerprint.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "io/error.hpp"

namespace penstock::io {
namespace {

class InputFingerprintTest : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }

  void write(const std::string& content) const {
    std::ofstream(path_, std::ios::binary) << content;
  }
  static std::string content_of(std::uint64_t bytes) {
    std::string content;
    for (std::uint64_t i = 0; i < bytes; ++i) {
      content += static_cast<char>((i * i * 31 + i / 7) >> 3 & 255);
    }
    return content;
  }

  std::string path_ =
      testing::TempDir() + "/penstock_input_fingerprint_" + std::to_string(::getpid());
};

// By the Python package xxhash: xxh3_128_hexdigest() of c[:M], c[-M:] and c, where M is 1 << 20 and
// c is bytes(((i * i * 31 + i // 7) >> 3) & 255 for i in range(size)).
TEST_F(InputFingerprintTest, HashesBothEndsAndTheWhole) {
  struct Case {
    std::uint64_t size;
    std::string head, tail, whole;
  };
  const std::string nothing = "99aa06d3014798d86001c324468d497f";
  const std::string five = "19406381694b240038e654affd101c86";
  const std::string first = "d5052b734073749fda1f0835563f209a";
  constexpr std::uint64_t kMiB = 1u << 20;
  const Case cases[] = {
      {0, nothing, nothing, nothing},
      {5, five, five, five},
      {kMiB, first, first, first},
      {kMiB + 1, first, "f4f1e712def31e107ebcb2b03d3cb015", "69632f29c6d577550983dd67530ec207"},
      {3 * kMiB + 5, first, "f800ce3fe27db7c2ec5ae7b331fea00b", "b26a9c341726030ff1158b8fa17c691a"},
      {9 * kMiB + 3, first, "339845bd4f3a70c7a35efabe031512ee", "93408694e199c66eea610effba87759b"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.size);
    write(content_of(c.size));
    const InputFingerprint found = fingerprint(path_);
    EXPECT_EQ(found.size_bytes, c.size);
    EXPECT_EQ(found.head_xxh3, c.head);
    EXPECT_EQ(found.tail_xxh3, c.tail);
    std::uint64_t told = 0;
    EXPECT_EQ(hash_of_file(path_, [&](std::uint64_t bytes) { told = bytes; }), c.whole);
    EXPECT_EQ(told, c.size);
  }
}

TEST_F(InputFingerprintTest, TellsTheTimeOfTheLastModification) {
  write("a");
  const std::array<timespec, 2> times = {{{1, 2}, {1'700'000'000, 123'456'000}}};
  ASSERT_EQ(::utimensat(AT_FDCWD, path_.c_str(), times.data(), 0), 0);
  EXPECT_EQ(fingerprint(path_).mtime_ns, 1'700'000'000'123'456'000);
}

TEST_F(InputFingerprintTest, WhatIsNoFileIsRefused) {
  EXPECT_THROW(fingerprint(path_), FileError);
  EXPECT_THROW(fingerprint(testing::TempDir()), FileError);
  EXPECT_THROW(hash_of_file(path_), FileError);
}

}  // namespace
}  // namespace penstock::io
