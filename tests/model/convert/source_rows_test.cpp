#include "model/convert/source_rows.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"
#include "model/convert/output.hpp"
#include "tests/support/hf_folder.hpp"

namespace penstock::model {
namespace {

// The number at an index; exact in f32.
float number_at(std::uint64_t index) { return static_cast<float>(index % 1000003); }

// A tensor that is computed, and keeps to the letter of TensorSource::read.
class Computed : public io::TensorSource {
 public:
  Computed(std::uint64_t rows, std::uint64_t columns)
      : tensors_{{"computed", "F32", {rows, columns}, rows * columns, "none"}} {}

  const std::vector<io::SourceTensor>& tensors() const override { return tensors_; }

  void read(std::size_t tensor, std::uint64_t first, std::span<float> out) override {
    const std::uint64_t end = first + out.size();
    EXPECT_EQ(tensor, 0u);
    EXPECT_EQ(first % 256, 0u);
    EXPECT_TRUE(end % 256 == 0 || end == tensors_[0].elements) << first << " + " << out.size();
    ASSERT_LE(end, tensors_[0].elements);
    largest_ = std::max<std::uint64_t>(largest_, out.size());
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = number_at(first + i);
  }

  std::uint64_t largest() const { return largest_; }

 private:
  std::vector<io::SourceTensor> tensors_;
  std::uint64_t largest_ = 0;
};

// What arrives in a checkpoint; heads 0 copies as it is.
std::vector<float> copied(Computed& source, std::int64_t heads) {
  const std::string path = (tests::scratch() / "out.h5").string();
  io::CheckpointHeader header;
  header.architecture = "llama";
  header.dtype = io::DType::f32;
  const auto& shape = source.tensors()[0].shape;
  io::CheckpointWriter writer(path, header, {{"/head/weight", io::DType::f32, shape}});
  std::uint64_t written = 0;
  const ConvertProgress progress;
  TensorSink sink(writer, 0, io::DType::f32, written, source.tensors()[0].elements * 4, progress);
  SourceRows rows(source, 0);
  if (heads == 0) {
    rows.copy(sink);
  } else {
    rows.copy_deinterleaved(heads, sink);
  }
  writer.finish();
  EXPECT_EQ(written, source.tensors()[0].elements * 4);
  const io::CheckpointReader reader(path);
  std::vector<float> values(source.tensors()[0].elements);
  reader.read(reader.tensors()[0], std::as_writable_bytes(std::span(values)));
  std::filesystem::remove(path);
  return values;
}

void expect_deinterleaved(const std::vector<float>& values, std::uint64_t rows,
                          std::uint64_t columns, std::uint64_t heads) {
  const std::uint64_t head_rows = rows / heads;
  for (std::uint64_t row = 0; row < rows; ++row) {
    const std::uint64_t in_head = row % head_rows;
    const std::uint64_t pair = in_head % (head_rows / 2);
    const std::uint64_t half = in_head / (head_rows / 2);
    const std::uint64_t from = row - in_head + 2 * pair + half;
    for (std::uint64_t i = 0; i < columns; i += columns / 7 + 1) {
      ASSERT_EQ(values[row * columns + i], number_at(from * columns + i)) << row << ", " << i;
    }
  }
}

// Heads of 6 * 100 elements begin on no multiple of 256.
TEST(SourceRows, DeinterleavesHeadsThatBeginAnywhere) {
  Computed source(18, 100);
  expect_deinterleaved(copied(source, 3), 18, 100, 3);
}

TEST(SourceRows, DeinterleavesABias) {
  Computed source(24, 1);
  expect_deinterleaved(copied(source, 2), 24, 1, 2);
}

// A head above the block size is read row by row.
TEST(SourceRows, DeinterleavesHeadsThatDoNotFit) {
  Computed source(16, 2200001);
  ASSERT_GT(8u * 2200001u, kBlockElements);
  expect_deinterleaved(copied(source, 2), 16, 2200001, 2);
  EXPECT_LE(source.largest(), kBlockElements);
}

TEST(SourceRows, CopiesInBlocks) {
  Computed source(5, 2000001);
  const std::vector<float> values = copied(source, 0);
  for (std::uint64_t i = 0; i < values.size(); ++i) ASSERT_EQ(values[i], number_at(i));
  EXPECT_EQ(source.largest(), kBlockElements);
}

}  // namespace
}  // namespace penstock::model
