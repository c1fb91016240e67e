#include "model/ops/attention.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "model/ops/kv_write.hpp"
#include "tests/model/ops/ops_support.hpp"

namespace penstock::model {
namespace {

struct Shape {
  std::size_t heads = 1;
  std::size_t kv_heads = 1;
  std::size_t head_dim = 64;
};

// One sequence of random queries, keys and values, and a cache of scattered blocks.
template <class T, class Kv>
class Sequence {
 public:
  Sequence(const Shape& shape, std::size_t tokens, std::uint32_t seed)
      : shape_(shape),
        tokens_(tokens),
        q_(random_values<T>(tokens * shape.heads * shape.head_dim, seed)),
        k_(random_values<T>(tokens * shape.kv_heads * shape.head_dim, seed + 1)),
        v_(random_values<T>(tokens * shape.kv_heads * shape.head_dim, seed + 2)) {
    layout_.kv_heads = shape.kv_heads;
    layout_.head_dim = shape.head_dim;
    layout_.dtype = dtype_of<Kv>();
  }

  // Computes the rows in chunks that end at `ends`, through `blocks` of a cache full of NaN where
  // nothing was written, padding included.
  std::vector<T> run(const std::vector<std::size_t>& ends, const std::vector<std::uint32_t>& blocks,
                     int threads) const {
    const std::size_t largest = *std::max_element(blocks.begin(), blocks.end());
    std::vector<std::byte> cache((largest + 1) * layout_.block_bytes(), std::byte{0xFF});
    std::vector<T> out(q_.size());
    const Cpu device{threads};
    AttentionScratch scratch(device, shape_.heads, layout_);
    std::size_t start = 0;
    for (const std::size_t end : ends) {
      write(device, start, end, blocks, cache);
      const AttentionSequence sequence{0, end - start, start, blocks.data()};
      Attention args;
      args.sequences = {&sequence, 1};
      args.heads = shape_.heads;
      args.dtype = dtype_of<T>();
      args.q_stride = shape_.heads * shape_.head_dim;
      args.q = q_.data() + start * args.q_stride;
      args.layout = layout_;
      args.cache = cache.data();
      args.out = out.data() + start * args.q_stride;
      attention(device, args, scratch);
      start = end;
    }
    return out;
  }

  double want(std::size_t row, std::size_t head, std::size_t column) const {
    const std::size_t kv_head = head / (shape_.heads / shape_.kv_heads);
    std::vector<double> scores(row + 1);
    for (std::size_t t = 0; t <= row; ++t) {
      double dot = 0;
      for (std::size_t i = 0; i < shape_.head_dim; ++i) {
        dot += to_double(q_[(row * shape_.heads + head) * shape_.head_dim + i]) *
               cached(k_, t, kv_head, i);
      }
      scores[t] = dot / std::sqrt(static_cast<double>(shape_.head_dim));
    }
    const double top = *std::max_element(scores.begin(), scores.end());
    double total = 0, sum = 0;
    for (std::size_t t = 0; t <= row; ++t) {
      total += std::exp(scores[t] - top);
      sum += std::exp(scores[t] - top) * cached(v_, t, kv_head, column);
    }
    return sum / total;
  }

  std::size_t tokens() const { return tokens_; }
  const Shape& shape() const { return shape_; }

 private:
  double cached(const std::vector<T>& values, std::size_t token, std::size_t head,
                std::size_t i) const {
    const double value = to_double(values[(token * shape_.kv_heads + head) * shape_.head_dim + i]);
    return to_double(from_f32<Kv>(static_cast<float>(value)));
  }

  void write(const Cpu& device, std::size_t start, std::size_t end,
             const std::vector<std::uint32_t>& blocks, std::vector<std::byte>& cache) const {
    std::vector<std::uint32_t> positions(end - start), row_blocks(end - start);
    for (std::size_t i = start; i < end; ++i) {
      positions[i - start] = static_cast<std::uint32_t>(i);
      row_blocks[i - start] = blocks[i / KvLayout::kTokens];
    }
    KvWrite args;
    args.rows = end - start;
    args.dtype = dtype_of<T>();
    args.row_stride = shape_.kv_heads * shape_.head_dim;
    args.k = k_.data() + start * args.row_stride;
    args.v = v_.data() + start * args.row_stride;
    args.blocks = row_blocks.data();
    args.positions = positions.data();
    args.layout = layout_;
    args.cache = cache.data();
    kv_write(device, args);
  }

  Shape shape_;
  std::size_t tokens_;
  KvLayout layout_;
  std::vector<T> q_, k_, v_;
};

std::vector<std::uint32_t> in_order(std::size_t tokens) {
  std::vector<std::uint32_t> blocks((tokens + KvLayout::kTokens - 1) / KvLayout::kTokens);
  std::iota(blocks.begin(), blocks.end(), 0u);
  return blocks;
}

std::vector<std::size_t> chunks_of(std::size_t tokens, std::size_t chunk) {
  std::vector<std::size_t> ends;
  for (std::size_t end = std::min(chunk, tokens);; end = std::min(end + chunk, tokens)) {
    ends.push_back(end);
    if (end == tokens) return ends;
  }
}

template <class T, class Kv>
struct Types {
  using Activation = T;
  using Cache = Kv;
};

template <class Pair>
class AttentionTest : public testing::Test {};
using AllTypes = testing::Types<Types<float, float>, Types<std::uint16_t, std::uint16_t>,
                                Types<float, std::uint16_t>, Types<std::uint16_t, float>>;
TYPED_TEST_SUITE(AttentionTest, AllTypes);

TYPED_TEST(AttentionTest, IsSoftmaxOfScoresTimesValues) {
  using T = typename TypeParam::Activation;
  for (const Shape& shape : {Shape{9, 3, 64}, Shape{4, 4, 8}, Shape{8, 1, 16}, Shape{4, 2, 40},
                             Shape{14, 2, 80}, Shape{1, 1, 2}}) {
    const Sequence<T, typename TypeParam::Cache> sequence(shape, 75, 1);
    on_each_instruction_set([&] {
      const auto out = sequence.run({75}, in_order(75), 2);
      for (std::size_t i = 0; i < out.size(); i += 37) {
        const std::size_t column = i % shape.head_dim;
        const std::size_t head = i / shape.head_dim % shape.heads;
        const double want = sequence.want(i / shape.head_dim / shape.heads, head, column);
        ASSERT_NEAR(to_double(out[i]), want, std::abs(want) * relative_error<T>() + 4e-6)
            << shape.heads << "/" << shape.kv_heads << "x" << shape.head_dim << " at " << i;
      }
    });
  }
}

TYPED_TEST(AttentionTest, BitsDoNotDependOnChunksBlocksOrThreads) {
  using T = typename TypeParam::Activation;
  for (const Shape& shape : {Shape{9, 3, 64}, Shape{16, 1, 24}}) {
    const std::size_t tokens = 100;
    const Sequence<T, typename TypeParam::Cache> sequence(shape, tokens, 7);
    on_each_instruction_set([&] {
      const auto whole = sequence.run({tokens}, in_order(tokens), 1);
      for (const auto& [chunk, threads] :
           {std::pair<std::size_t, int>{1, 2}, {7, 1}, {32, 2}, {33, 2}, {64, 1}}) {
        const auto out = sequence.run(chunks_of(tokens, chunk), {6, 2, 9, 0}, threads);
        ASSERT_EQ(std::memcmp(out.data(), whole.data(), out.size() * sizeof(T)), 0)
            << "chunk " << chunk << " threads " << threads;
      }
    });
  }
}

TYPED_TEST(AttentionTest, SequencesDoNotSeeEachOther) {
  using T = typename TypeParam::Activation;
  using Kv = typename TypeParam::Cache;
  // Two sequences in one call: a decode row and a chunk, against each alone. Both are made of one
  // run of rows, whose second part stands for the second sequence.
  const Shape shape{6, 2, 32};
  const std::size_t width = shape.heads * shape.head_dim,
                    kv_width = shape.kv_heads * shape.head_dim;
  KvLayout layout;
  layout.kv_heads = shape.kv_heads;
  layout.head_dim = shape.head_dim;
  layout.dtype = dtype_of<Kv>();
  const std::vector<std::uint32_t> positions = {0, 0, 1, 2, 3, 4};
  const std::vector<std::uint32_t> row_blocks = {1, 0, 0, 0, 0, 0};
  const auto q = random_values<T>(6 * width, 1), k = random_values<T>(6 * kv_width, 2),
             v = random_values<T>(6 * kv_width, 3);
  std::vector<std::byte> cache(2 * layout.block_bytes());
  const Cpu device{2};
  KvWrite write;
  write.rows = 6;
  write.dtype = dtype_of<T>();
  write.row_stride = kv_width;
  write.k = k.data();
  write.v = v.data();
  write.blocks = row_blocks.data();
  write.positions = positions.data();
  write.layout = layout;
  write.cache = cache.data();
  kv_write(device, write);
  const std::uint32_t first_block = 1, second_block = 0;
  const std::vector<AttentionSequence> both = {{0, 1, 0, &first_block}, {1, 5, 0, &second_block}};
  AttentionScratch scratch(device, shape.heads, layout);
  std::vector<T> together(6 * width), apart(6 * width);
  Attention args;
  args.heads = shape.heads;
  args.dtype = dtype_of<T>();
  args.q_stride = width;
  args.q = q.data();
  args.layout = layout;
  args.cache = cache.data();
  args.sequences = both;
  args.out = together.data();
  attention(device, args, scratch);
  args.out = apart.data();
  args.sequences = {&both[1], 1};
  attention(device, args, scratch);
  args.sequences = {&both[0], 1};
  attention(device, args, scratch);
  EXPECT_EQ(together, apart);
  // The lone token of the first sequence sees itself only: out is its value.
  for (std::size_t i = 0; i < width; ++i) {
    const std::size_t kv = i / shape.head_dim / 3 * shape.head_dim + i % shape.head_dim;
    const double want = to_double(from_f32<Kv>(static_cast<float>(to_double(v[kv]))));
    EXPECT_NEAR(to_double(together[i]), want, std::abs(want) * relative_error<T>());
  }
}

}  // namespace
}  // namespace penstock::model
