#include "model/ops/linear.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "model/ops/product_cpu.hpp"
#include "model/ops/product_proof_cpu.hpp"
#include "tests/model/ops/ops_support.hpp"

namespace penstock::model {
namespace {

LinearShape shape_of(std::size_t in, std::size_t out, io::DType dtype, io::DType out_dtype,
                     bool bias) {
  LinearShape shape;
  shape.in_features = in;
  shape.out_features = out;
  shape.dtype = dtype;
  shape.out_dtype = out_dtype;
  shape.bias = bias;
  shape.max_rows = 600;
  return shape;
}

template <class T, class Out>
struct Types {
  using In = T;
  using OutType = Out;
};

template <class Pair>
class LinearTest : public testing::Test {
 protected:
  using Input = typename Pair::In;
  using Output = typename Pair::OutType;

  LinearShape shape(std::size_t in, std::size_t out, bool bias) const {
    return shape_of(in, out, dtype_of<Input>(), dtype_of<Output>(), bias);
  }

  // Rows [first, first + rows) of `in`, in buffers as large as apply wants them.
  std::vector<Output> apply(LinearFactory& factory, Linear& linear, const LinearShape& shape,
                            const std::vector<Input>& in, std::size_t first, std::size_t rows) {
    std::vector<Input> padded(factory.padded_rows(rows) * shape.in_features);
    std::memcpy(padded.data(), in.data() + first * shape.in_features,
                rows * shape.in_features * sizeof(Input));
    std::vector<Output> out(factory.padded_rows(rows) * shape.out_features);
    linear.apply(rows, padded.data(), out.data());
    out.resize(rows * shape.out_features);
    return out;
  }
};
using AllTypes = testing::Types<Types<float, float>, Types<std::uint16_t, std::uint16_t>,
                                Types<std::uint16_t, float>>;
TYPED_TEST_SUITE(LinearTest, AllTypes);

TYPED_TEST(LinearTest, IsTheSumOfProducts) {
  using In = typename TypeParam::In;
  using Out = typename TypeParam::OutType;
  for (const bool bias : {false, true}) {
    for (const auto& [in, out] : {std::pair<std::size_t, std::size_t>{5, 3},
                                  {64, 100},
                                  {576, 960},
                                  {33, 300},
                                  {1536, 576}}) {
      const LinearShape shape = this->shape(in, out, bias);
      const auto weight = random_values<In>(in * out, 1, 0.1f);
      const auto biases = random_values<float>(out, 2);
      const auto x = random_values<In>(19 * in, 3);
      auto factory = make_linear_factory(Cpu{2});
      auto linear = factory->make(shape, weight.data(), bias ? biases.data() : nullptr);
      const auto y = this->apply(*factory, *linear, shape, x, 0, 19);
      for (std::size_t i = 0; i < y.size(); ++i) {
        const std::size_t row = i / out, column = i % out;
        double want = bias ? to_double(biases[column]) : 0;
        double magnitude = std::abs(want);
        for (std::size_t k = 0; k < in; ++k) {
          const double term = to_double(x[row * in + k]) * to_double(weight[column * in + k]);
          want += term;
          magnitude += std::abs(term);
        }
        ASSERT_NEAR(to_double(y[i]), want,
                    std::abs(want) * relative_error<Out>() + magnitude * 2e-6)
            << in << " x " << out << " row " << row << " column " << column;
      }
    }
  }
}

TYPED_TEST(LinearTest, RowsDoNotDependOnBatchOrThreads) {
  using In = typename TypeParam::In;
  for (const auto& [in, out] :
       {std::pair<std::size_t, std::size_t>{576, 960}, {1536, 576}, {48, 1000}}) {
    const LinearShape shape = this->shape(in, out, true);
    const auto weight = random_values<In>(in * out, 4, 0.1f);
    const auto bias = random_values<float>(out, 5);
    const std::size_t rows = 530;
    const auto x = random_values<In>(rows * in, 6);
    auto one = make_linear_factory(Cpu{1});
    auto two = make_linear_factory(Cpu{2});
    auto linear_one = one->make(shape, weight.data(), bias.data());
    auto linear_two = two->make(shape, weight.data(), bias.data());
    const auto alone = [&](std::size_t row) {
      return this->apply(*one, *linear_one, shape, x, row, 1);
    };
    for (const std::size_t batch :
         {1u, 2u, 7u, 8u, 13u, 32u, 33u, 64u, 100u, 200u, 256u, 257u, 530u}) {
      const auto y = this->apply(*two, *linear_two, shape, x, 0, batch);
      for (const std::size_t row : {std::size_t{0}, batch / 3, batch / 2, batch - 1}) {
        const auto want = alone(row);
        ASSERT_EQ(std::memcmp(want.data(), y.data() + row * out, want.size() * sizeof(want[0])), 0)
            << in << " x " << out << " batch " << batch << " row " << row;
      }
    }
  }
}

// The ways that are taken only where the fast one fails its proof.
TYPED_TEST(LinearTest, EveryModeIsExactAndInvariant) {
  using In = typename TypeParam::In;
  using Out = typename TypeParam::OutType;
  const LinearShape shape = this->shape(96, 300, true);
  const auto weight = random_values<In>(96 * 300, 7, 0.1f);
  const auto bias = random_values<float>(300, 8);
  const auto x = random_values<In>(product_padded_rows(64) * 96, 9);
  for (const bool widened : {false, true}) {
    if (!widened && sizeof(In) < sizeof(float) && !multiplies_bf16()) continue;
    if (widened && sizeof(In) == sizeof(float)) continue;
    for (const ProductMode& mode :
         {ProductMode{}, ProductMode{.single_thread = true}, ProductMode{.sliced = true},
          ProductMode{.sliced = true, .tile_rows = 16},
          ProductMode{.sliced = true, .tile_rows = 1}}) {
      if (widened && !mode.sliced) continue;
      ProductWorkspace workspace(2);
      Product product(workspace, shape, mode, widened);
      const auto packed = product.pack(weight.data(), bias.data());
      std::vector<Out> y(product_padded_rows(64) * 300);
      product.apply(packed, 61, x.data(), y.data());
      for (std::size_t i = 0; i < 61 * 300; ++i) {
        double want = to_double(bias[i % 300]);
        for (std::size_t k = 0; k < 96; ++k) {
          want += to_double(x[i / 300 * 96 + k]) * to_double(weight[i % 300 * 96 + k]);
        }
        ASSERT_NEAR(to_double(y[i]), want, std::abs(want) * relative_error<Out>() + 1e-4);
      }
      if (mode.tile_rows == 0 && !product.batch_reduce()) continue;
      std::vector<Out> one(product_padded_rows(1) * 300);
      for (const std::size_t row : {0u, 17u, 60u}) {
        product.apply(packed, 1, x.data() + row * 96, one.data());
        ASSERT_EQ(std::memcmp(one.data(), y.data() + row * 300, 300 * sizeof(Out)), 0)
            << "sliced " << mode.sliced << " tile " << mode.tile_rows << " row " << row;
      }
    }
  }
}

// The proof's numbers must show a sum that is taken in another order. Weight and input are
// permuted alike here, which changes nothing but the order.
TYPED_TEST(LinearTest, TheProofSeesAnotherOrderOfSummation) {
  const LinearShape shape = this->shape(576, 960, false);
  ProductWorkspace workspace(2);
  const bool widened = sizeof(typename TypeParam::In) < sizeof(float) && !multiplies_bf16();
  Product product(workspace, shape, ProductMode{.sliced = true, .tile_rows = 1}, widened);
  const ProductProof proof(Cpu{2}, shape);
  const auto in_order = proof.rows_alone(product);
  EXPECT_TRUE(proof.matches(product, in_order));
  const ProductProof reversed(Cpu{2}, shape, true);
  EXPECT_NE(reversed.rows_alone(product), in_order);
  EXPECT_FALSE(reversed.matches(product, in_order));
}

TEST(ProductProofTest, TriesEveryNumberOfRowsThatACallMayHave) {
  LinearShape shape = shape_of(8, 8, io::DType::f32, io::DType::f32, false);
  for (const std::size_t max_rows : {1u, 16u, 20u, 150u, 256u, 1000u}) {
    shape.max_rows = max_rows;
    const auto batches = ProductProof(Cpu{1}, shape).batches();
    for (std::size_t rows = 1; rows <= std::min<std::size_t>(max_rows, kMaxCallRows); ++rows) {
      EXPECT_THAT(batches, testing::Contains(row_bucket(rows))) << "of at most " << max_rows;
    }
    EXPECT_LE(batches.back(), product_padded_rows(max_rows));
  }
}

// A proof of few columns stands for many: they must be cut into slices of the same widths.
TEST(ProductProofTest, DistinctSlicesAreOneOfEachWidth) {
  EXPECT_EQ(distinct_slice_columns(1), 1u);
  EXPECT_EQ(distinct_slice_columns(127), 127u);
  EXPECT_EQ(distinct_slice_columns(128), 128u);
  EXPECT_EQ(distinct_slice_columns(200), 200u);
  EXPECT_EQ(distinct_slice_columns(256), 128u);
  EXPECT_EQ(distinct_slice_columns(300), 172u);
  EXPECT_EQ(distinct_slice_columns(49152), 128u);
}

// oneDNN reads its instruction set once in a process, so older machines are played by running this
// program again.
class OlderMachineTest : public testing::TestWithParam<const char*> {};

TEST_P(OlderMachineTest, ProductsAreExactInvariantAndMeasured) {
  if (std::getenv("ONEDNN_MAX_CPU_ISA") != nullptr) GTEST_SKIP() << "an older machine already";
  const std::string program = std::filesystem::read_symlink("/proc/self/exe");
  const std::string command =
      fmt::format("ONEDNN_MAX_CPU_ISA={} '{}' --gtest_filter='LinearTest*:MachineLimits*' 2>&1",
                  GetParam(), program);
  FILE* pipe = popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string output;
  std::array<char, 4096> piece{};
  while (fgets(piece.data(), static_cast<int>(piece.size()), pipe) != nullptr) {
    output += piece.data();
  }
  EXPECT_EQ(pclose(pipe), 0) << output;
  EXPECT_THAT(output, testing::HasSubstr("[  PASSED  ] 13 tests"));
}
INSTANTIATE_TEST_SUITE_P(Isa, OlderMachineTest, testing::Values("AVX2", "AVX512_CORE"));

TEST(LinearFactoryTest, PaddedRowsCoverEveryMode) {
  const auto factory = make_linear_factory(Cpu{1});
  for (std::size_t rows = 1; rows < 1500; ++rows) {
    const std::size_t padded = factory->padded_rows(rows);
    EXPECT_GE(padded, (rows + 15) / 16 * 16);
    EXPECT_GE(padded, rows / 256 * 256 + row_bucket(rows % 256));
    EXPECT_GE(row_bucket(rows), std::min<std::size_t>(rows, 256));
  }
}

TEST(LinearFactoryTest, WeightsStayInTheirDtype) {
  const auto factory = make_linear_factory(Cpu{1});
  const auto weight = random_values<std::uint16_t>(512 * 512, 1);
  const auto linear = factory->make(shape_of(512, 512, io::DType::bf16, io::DType::bf16, false),
                                    weight.data(), nullptr);
  EXPECT_EQ(linear->weight_bytes(), 512u * 512 * 2);
}

}  // namespace
}  // namespace penstock::model
