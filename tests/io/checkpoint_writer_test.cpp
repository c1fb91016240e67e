#include <gmock/gmock.h>

#include "io/checkpoint.hpp"
#include "tests/io/checkpoint_support.hpp"

namespace penstock::io {
namespace {

using test::bytes_of;
using test::CheckpointTest;
using test::content_of;
using test::error_of;
using test::read_file;
using test::small_header;
using test::small_tensors;
using test::write_checkpoint;
using test::write_file;
using testing::HasSubstr;

TEST_F(CheckpointTest, NothingStandsUnderTheNameBeforeFinish) {
  const auto tensors = small_tensors();
  {
    CheckpointWriter writer(path("a.h5"), small_header(), tensors);
    writer.append(0, content_of(0, bytes_of(tensors[0])));
    EXPECT_FALSE(std::filesystem::exists(path("a.h5")));
    EXPECT_EQ(files_in_folder(), 1u);
  }
  EXPECT_EQ(files_in_folder(), 0u);  // an abandoned writer leaves nothing
  write_file(path("a.h5"), "old");
  {
    CheckpointWriter writer(path("a.h5"), small_header(), tensors);
    EXPECT_EQ(read_file(path("a.h5")), "old");
  }
  EXPECT_EQ(read_file(path("a.h5")), "old");
  write_checkpoint(path("a.h5"), small_header(), tensors);
  EXPECT_EQ(files_in_folder(), 1u);
  EXPECT_EQ(CheckpointReader(path("a.h5")).tensors().size(), tensors.size());
}

TEST_F(CheckpointTest, WriterRefusesWhatIsNotComplete) {
  const auto tensors = small_tensors();
  CheckpointWriter writer(path("a.h5"), small_header(), tensors);
  const auto bytes = content_of(0, bytes_of(tensors[0]));
  writer.append(0, std::span(bytes).first(100));
  EXPECT_THAT(error_of([&] { writer.finish(); }),
              HasSubstr("tensor /embed/weight is not complete: 100 of 6400 bytes"));
  EXPECT_THAT(error_of([&] { writer.append(0, bytes); }),
              HasSubstr("tensor /embed/weight has 6400 bytes, and 100 more"));
}

TEST_F(CheckpointTest, WriterRefusesNamesAndShapesThatCannotBeReadBack) {
  const auto error = [&](const std::vector<TensorSpec>& tensors) {
    return error_of([&] { CheckpointWriter(path("a.h5"), small_header(), tensors); });
  };
  const auto named = [&](const std::string& name) { return error({{name, DType::f32, {4}}}); };
  for (const std::string name : {"", "/", "a", "a/b", "//a", "/a//b", "/a/", "/a/..", "/./a",
                                 "/config/a", "/tokenizer", "/checksums", "/\xff"}) {
    EXPECT_THAT(named(name), HasSubstr("a tensor cannot be called")) << name;
  }
  EXPECT_EQ(named("/a/config"), "");
  EXPECT_THAT(error({}), HasSubstr("0 tensors"));
  EXPECT_THAT(error({{"/a", DType::f32, {4}}, {"/a", DType::f32, {4}}}),
              HasSubstr("'/a' is declared twice"));
  EXPECT_THAT(error({{"/a/b", DType::f32, {4}}, {"/a", DType::f32, {4}}}),
              HasSubstr("'/a' is both a tensor and a group"));
  const std::vector<std::vector<std::uint64_t>> shapes{
      {}, {0}, {4, 0}, {1u << 31, 1u << 31}, {UINT64_MAX, 2}, {1, 1, 1, 1, 1, 1, 1, 1, 1}};
  for (const auto& shape : shapes) {
    EXPECT_THAT(error({{"/a", DType::f32, shape}}), HasSubstr("'/a' has a shape that cannot"));
  }
  CheckpointHeader header = small_header();
  header.tokenizer[0].name = "a/b";
  EXPECT_THAT(error_of([&] { CheckpointWriter(path("a.h5"), header, small_tensors()); }),
              HasSubstr("/tokenizer cannot hold the name 'a/b'"));
  header = small_header();
  header.config[2].value = std::string(40000, 'x');
  EXPECT_THAT(error_of([&] { CheckpointWriter(path("a.h5"), header, small_tensors()); }),
              HasSubstr("cannot write the attribute 'rope_type': 40000 bytes, at most 32768"));
  EXPECT_EQ(files_in_folder(), 0u);
}

TEST_F(CheckpointTest, WriterSaysWhyAFileCannotBeMade) {
  EXPECT_THAT(
      error_of([&] { CheckpointWriter(path("no/such/a.h5"), small_header(), small_tensors()); }),
      HasSubstr("no/such/a.h5: cannot create: No such file or directory"));
  EXPECT_THAT(error_of([&] { CheckpointWriter(path(""), small_header(), small_tensors()); }),
              HasSubstr("is a folder"));
}

}  // namespace
}  // namespace penstock::io
