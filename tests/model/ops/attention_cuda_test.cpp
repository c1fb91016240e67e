#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "model/error.hpp"
#include "model/ops/attention.hpp"
#include "model/ops/kv_write.hpp"
#include "tests/model/ops/devices.hpp"

namespace penstock::model {
namespace {

AttentionShape attention_shape(const Cuda& device, std::size_t heads, io::DType dtype,
                               const CudaKvLayout& layout) {
  return AttentionShape(device, heads, dtype, layout);
}

struct Shape {
  std::size_t heads = 1;
  std::size_t kv_heads = 1;
  std::size_t head_dim = 64;
};

// Rows of the sequence that are a step's part of it.
struct Piece {
  std::uint32_t position = 0;
  std::uint32_t rows = 0;
};

// One sequence of random queries, keys and values.
template <class Device, class T, class Kv>
class Tokens {
 public:
  Tokens(const Shape& shape, std::uint32_t tokens, std::uint32_t seed)
      : shape_(shape),
        tokens_(tokens),
        q_(random_values<T>(tokens * shape.heads * shape.head_dim, seed)),
        k_(random_values<Kv>(tokens * shape.kv_heads * shape.head_dim, seed + 1)),
        v_(random_values<Kv>(tokens * shape.kv_heads * shape.head_dim, seed + 2)) {
    layout_ = {shape.kv_heads, shape.head_dim, dtype_of<Kv>()};
  }

  // Attention of pieces, all in one step, each in blocks of its own that hold NaN wherever a token
  // was not yet written. Blocks are out of order. Partial results at most `partials`.
  std::vector<T> run(const std::vector<Piece>& pieces, std::uint32_t partials = 1000) const {
    const auto device = Device::device();
    const std::size_t width = shape_.heads * shape_.head_dim;
    const std::size_t q_stride = width + 8;  // something lies behind each row
    std::vector<SequenceStep> steps;
    std::vector<std::uint32_t> table;
    std::uint32_t rows = 0;
    for (const Piece& piece : pieces) {
      SequenceStep step;
      step.first_row = rows;
      step.rows = piece.rows;
      step.position = piece.position;
      step.first_block = static_cast<std::uint32_t>(table.size());
      step.blocks = (piece.position + piece.rows + kKvBlockTokens - 1) / kKvBlockTokens;
      for (std::uint32_t b = 0; b < step.blocks; ++b) table.push_back(0);
      rows += piece.rows;
      steps.push_back(step);
    }
    // 7 is prime to any number of blocks that is no multiple of it.
    const std::size_t all = table.size() + (table.size() % 7 == 0 ? 1 : 0);
    for (std::size_t i = 0; i < table.size(); ++i) {
      table[i] = static_cast<std::uint32_t>((i * 7 + 3) % all);
    }
    std::vector<std::byte> cache(all * layout_.block_bytes(), std::byte{0xFF});
    std::vector<T> q(rows * q_stride, from_f32<T>(std::nanf("")));
    for (const SequenceStep& step : steps) {
      fill_cache(step.position + step.rows, table.data() + step.first_block, cache);
      for (std::uint32_t i = 0; i < step.rows; ++i) {
        std::copy_n(q_.begin() + static_cast<std::ptrdiff_t>((step.position + i) * width), width,
                    q.begin() + static_cast<std::ptrdiff_t>((step.first_row + i) * q_stride));
      }
    }

    CudaAttention args;
    args.shape = attention_shape(device, shape_.heads, dtype_of<T>(), layout_);
    const AttentionLimits limits = attention_limits(
        args.shape, rows, static_cast<std::uint32_t>(pieces.size()), tokens_, partials);
    AttentionPlan plan;
    plan_attention(args.shape, steps, limits, plan);
    typename Device::template Array<AttentionTask> wide(plan.wide), narrow(plan.narrow);
    typename Device::template Array<AttentionMerge> merges(plan.merges);
    typename Device::template Array<AttentionCounts> counts({plan.counts()});
    typename Device::template Array<std::uint32_t> block_table(table);
    typename Device::template Array<T> q_there(q), out(std::vector<T>(rows * width));
    typename Device::template Array<std::byte> cache_there(cache);
    typename Device::template Array<float> partial(
        std::vector<float>(plan.partials * args.shape.partial_floats, std::nanf("")));
    args.wide = wide.data();
    args.narrow = narrow.data();
    args.merges = merges.data();
    args.counts = counts.data();
    args.most = {limits.wide, limits.narrow, limits.merges};
    args.block_table = block_table.data();
    args.heads = shape_.heads;
    args.dtype = dtype_of<T>();
    args.q_stride = q_stride;
    args.q = q_there.data();
    args.layout = layout_;
    args.cache = cache_there.data();
    args.out = out.data();
    args.partials = partial.data();
    attention(device, args);
    return out.values();
  }

  // The CPU's op in f32 over the same numbers.
  std::vector<float> want() const {
    const Cpu cpu{2};
    const KvLayout layout{shape_.kv_heads, shape_.head_dim, io::DType::f32};
    const std::vector<float> q = widened(q_), k = widened(k_), v = widened(v_);
    std::vector<std::uint32_t> positions(tokens_), row_blocks(tokens_), blocks;
    std::iota(positions.begin(), positions.end(), 0u);
    for (std::uint32_t i = 0; i < tokens_; ++i) row_blocks[i] = i / kKvBlockTokens;
    for (std::uint32_t i = 0; i <= tokens_ / kKvBlockTokens; ++i) blocks.push_back(i);
    std::vector<std::byte> cache(blocks.size() * layout.block_bytes());
    KvWrite write;
    write.rows = tokens_;
    write.row_stride = shape_.kv_heads * shape_.head_dim;
    write.k = k.data();
    write.v = v.data();
    write.blocks = row_blocks.data();
    write.positions = positions.data();
    write.layout = layout;
    write.cache = cache.data();
    kv_write(cpu, write);
    const AttentionSequence sequence{0, tokens_, 0, blocks.data()};
    std::vector<float> out(q.size());
    AttentionScratch scratch(cpu, shape_.heads, layout);
    Attention args;
    args.sequences = {&sequence, 1};
    args.heads = shape_.heads;
    args.q_stride = shape_.heads * shape_.head_dim;
    args.q = q.data();
    args.layout = layout;
    args.cache = cache.data();
    args.out = out.data();
    attention(cpu, args, scratch);
    return out;
  }

  std::size_t width() const { return shape_.heads * shape_.head_dim; }
  std::vector<Kv>& values() { return v_; }
  std::uint32_t tokens() const { return tokens_; }

 private:
  template <class From>
  static std::vector<float> widened(const std::vector<From>& from) {
    std::vector<float> to;
    for (const From& value : from) to.push_back(static_cast<float>(to_double(value)));
    return to;
  }

  // By CudaKvLayout's description.
  void fill_cache(std::uint32_t end, const std::uint32_t* blocks,
                  std::vector<std::byte>& cache) const {
    const std::size_t tile = 32 * shape_.head_dim;
    for (std::uint32_t token = 0; token < end; ++token) {
      for (std::size_t head = 0; head < shape_.kv_heads; ++head) {
        Kv* keys = reinterpret_cast<Kv*>(cache.data()) +
                   (blocks[token / 32] * shape_.kv_heads + head) * 2 * tile +
                   token % 32 * shape_.head_dim;
        const std::size_t from = (token * shape_.kv_heads + head) * shape_.head_dim;
        std::copy_n(k_.data() + from, shape_.head_dim, keys);
        std::copy_n(v_.data() + from, shape_.head_dim, keys + tile);
      }
    }
  }

  Shape shape_;
  std::uint32_t tokens_;
  CudaKvLayout layout_;
  std::vector<T> q_;
  std::vector<Kv> k_, v_;
};

template <class Device, class T, class Kv>
struct Types {
  using Place = Device;
  using Activation = T;
  using Cache = Kv;
};

template <class Types>
class CudaAttentionTest : public DeviceTest<typename Types::Place> {
 protected:
  using Sequence = Tokens<typename Types::Place, typename Types::Activation, typename Types::Cache>;
};
using AllTypes =
    testing::Types<Types<OnEmulator, float, float>, Types<OnEmulator, std::uint16_t, std::uint16_t>,
                   Types<OnEmulator, Half, Half>, Types<OnEmulator, float, std::uint16_t>,
                   Types<OnGpu, float, float>, Types<OnGpu, std::uint16_t, std::uint16_t>,
                   Types<OnGpu, Half, Half>, Types<OnGpu, float, std::uint16_t>,
                   Types<OnGpu, std::uint16_t, float>, Types<OnGpu, Half, std::uint16_t>>;
TYPED_TEST_SUITE(CudaAttentionTest, AllTypes);

template <class T>
std::vector<T> rows_of(const std::vector<T>& whole, const std::vector<Piece>& pieces,
                       std::size_t width) {
  std::vector<T> rows;
  for (const Piece& piece : pieces) {
    const auto first = whole.begin() + static_cast<std::ptrdiff_t>(piece.position * width);
    rows.insert(rows.end(), first, first + static_cast<std::ptrdiff_t>(piece.rows * width));
  }
  return rows;
}

TYPED_TEST(CudaAttentionTest, IsTheCpusOp) {
  using T = typename TypeParam::Activation;
  const std::vector<std::pair<Shape, std::uint32_t>> cases = {
      {{4, 2, 64}, 150}, {{9, 3, 64}, 70}, {{20, 1, 32}, 70}, {{2, 1, 8}, 40},   {{4, 2, 40}, 40},
      {{2, 1, 80}, 90},  {{2, 1, 96}, 90}, {{8, 1, 128}, 90}, {{1, 1, 256}, 70}, {{1, 1, 64}, 600}};
  for (const auto& [shape, tokens] : cases) {
    const typename TestFixture::Sequence sequence(shape, tokens, 1);
    const std::vector<float> want = sequence.want();
    // All at once; and the last rows alone, whose splits are merged.
    const auto whole = sequence.run({{0, tokens}});
    const std::vector<Piece> last = {{tokens - 1, 1}, {tokens / 2, 1}, {0, 1}};
    const auto alone = sequence.run(last);
    const auto want_alone = rows_of(want, last, sequence.width());
    // Weights are rounded as the activations before they meet the values, which are 2 at most.
    const double rounding = std::is_same_v<T, float> ? 1e-5 : relative_error<T>();
    const auto expect_near = [&](const std::vector<T>& got, const std::vector<float>& expected) {
      ASSERT_EQ(got.size(), expected.size());
      for (std::size_t i = 0; i < got.size(); ++i) {
        const double value = static_cast<double>(expected[i]);
        ASSERT_NEAR(to_double(got[i]), value, (std::abs(value) + 1.0) * rounding)
            << shape.heads << "/" << shape.kv_heads << "x" << shape.head_dim << " at " << i;
      }
    };
    expect_near(whole, want);
    expect_near(alone, want_alone);
  }
}

// The bytes of a position are the same in every chunk, alone, and however much memory there is for
// partial results. Values behind a position are large: the weight zero must make them nothing.
TYPED_TEST(CudaAttentionTest, BitsDoNotDependOnTheStep) {
  using T = typename TypeParam::Activation;
  using Kv = typename TypeParam::Cache;
  for (const auto& [shape, tokens] :
       {std::pair{Shape{3, 1, 64}, 600u}, {Shape{16, 2, 24}, 100u}, {Shape{20, 1, 128}, 70u}}) {
    typename TestFixture::Sequence sequence(shape, tokens, 7);
    const std::size_t row = shape.kv_heads * shape.head_dim;
    for (std::size_t i = 0; i < sequence.values().size(); ++i) {
      // Position 40's values are a thousand times those before, 41's are small again.
      if (i / row % 41 != 40) continue;
      Kv& value = sequence.values()[i];
      value = from_f32<Kv>(static_cast<float>(to_double(value)) * 1000.0f);
    }
    const auto whole = sequence.run({{0, tokens}});
    std::vector<std::vector<Piece>> steps = {
        {{0, 7}, {7, 1}, {8, 33}, {41, 2}, {64, 6}, {39, 1}, {40, 1}, {41, 1}, {63, 1}, {64, 1}},
        {{tokens - 1, 1}, {tokens - 30, 30}}};
    if (tokens > 512) {
      steps.push_back({{255, 1}, {256, 1}, {257, 1}, {511, 1}, {512, 1}, {513, 1}, {200, 60}});
      steps.push_back({{500, 20}, {255, 2}, {319, 1}, {320, 1}, {599, 1}});
    }
    for (const std::vector<Piece>& step : steps) {
      for (const std::uint32_t partials : {1000u, 4u, 0u}) {
        const auto got = sequence.run(step, partials);
        const auto want = rows_of(whole, step, sequence.width());
        ASSERT_EQ(got.size(), want.size());
        for (std::size_t i = 0; i < got.size(); ++i) {
          ASSERT_EQ(std::memcmp(&got[i], &want[i], sizeof(T)), 0)
              << "head_dim " << shape.head_dim << " row " << i / sequence.width() << " of "
              << step.front().position << "…, at " << i % sequence.width() << ", " << partials
              << " partial results: " << to_double(got[i]) << ", not " << to_double(want[i]);
        }
      }
    }
  }
}

TEST(CudaAttentionShapeTest, RefusesHeadsThatHaveNoKernel) {
  if (!OnGpu::missing().empty()) GTEST_SKIP() << OnGpu::missing();
  for (const std::size_t head_dim : {0u, 12u, 264u}) {
    EXPECT_THROW(AttentionShape(OnGpu::device(), 4, io::DType::bf16,
                                CudaKvLayout{2, head_dim, io::DType::bf16}),
                 ModelError);
  }
}

}  // namespace
}  // namespace penstock::model
