#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <utility>

#include "model/ops/linear.hpp"
#include "model/ops/machine_limits.hpp"
#include "model/ops/product_cuda.hpp"
#include "model/ops/product_proof_cuda.hpp"
#include "model/ops/product_rows.hpp"
#include "tests/model/ops/devices.hpp"

namespace penstock::model {
namespace {

// ---- the proof's numbers, which are the same on the CPU

// A row times a column, summed forwards and backwards in f32: the numbers must show the difference.
TEST(CudaProductProofTest, NumbersShowTheOrderOfASum) {
  constexpr std::size_t kWidth = 576;
  int different = 0;
  for (std::uint64_t column = 0; column < 100; ++column) {
    float forwards = 0, backwards = 0;
    for (std::size_t i = 0; i < kWidth; ++i) {
      const std::size_t j = kWidth - 1 - i;
      forwards += proof_element(column, i, kWidth, true) * proof_element(3, i, kWidth, false);
      backwards += proof_element(column, j, kWidth, true) * proof_element(3, j, kWidth, false);
    }
    different += forwards != backwards ? 1 : 0;
  }
  EXPECT_GT(different, 95);
}

// As the outputs of short types show it, in a small product too.
TEST(CudaProductProofTest, ShortOutputsShowTheOrderOfASum) {
  constexpr std::size_t kWidth = 64, kColumns = 100;
  const auto differences = [](auto zero) {
    using T = decltype(zero);
    std::vector<T> bias(kColumns);
    simt::Machine::run(2, 1, 32, 0, [&] { fill_proof_bias(kColumns, bias.data()); });
    int different = 0;
    for (std::size_t column = 0; column < kColumns; ++column) {
      const auto term = [&](std::size_t i) {
        return to_f32(rounded<T>(proof_element(column, i, kWidth, true))) *
               to_f32(rounded<T>(proof_element(2, i, kWidth, false)));
      };
      // Straight on, and the even and the odd terms each for themselves.
      float sum = 0, even = 0, odd = 0;
      for (std::size_t i = 0; i < kWidth; ++i) {
        sum += term(i);
        (i % 2 == 0 ? even : odd) += term(i);
      }
      const float added = to_f32(bias[column]);
      different +=
          to_f32(rounded<T>(sum + added)) != to_f32(rounded<T>(even + odd + added)) ? 1 : 0;
    }
    return different;
  };
  EXPECT_GT(differences(__nv_bfloat16()), 10);
  EXPECT_GT(differences(__half()), 10);
}

TEST(CudaProductProofTest, RowsRepeatAndAnOddElementIsZero) {
  for (std::size_t i = 0; i < 7; ++i) {
    EXPECT_EQ(proof_element(3, i, 7, false), proof_element(3 + kProofRows, i, 7, false));
    EXPECT_NE(proof_element(3, i / 6, 7, true), proof_element(3 + kProofRows, i / 6, 7, true));
  }
  EXPECT_EQ(proof_element(1, 6, 7, true), 0.0f);
  EXPECT_EQ(proof_element(1, 5, 7, false), -proof_element(1, 2, 7, false) * (65.0f / 64));
}

// A row's bits are compared with those of the same row elsewhere: at every place of every tile that
// an algorithm may have.
TEST(CudaProductProofTest, EachRowComesToEveryPlaceOfATile) {
  constexpr std::size_t kTile = 128;
  std::set<std::pair<std::size_t, std::size_t>> rows_and_places;
  for (std::size_t row = 0; row < kMostProductRows; ++row) {
    std::size_t same = 0;
    while (proof_element(same, 0, 8, false) != proof_element(row, 0, 8, false)) ++same;
    rows_and_places.emplace(same, row % kTile);
  }
  EXPECT_EQ(rows_and_places.size(), kProofRows * kTile);
  EXPECT_LE(kProofRows, product_row_bucket(1));
}

// An algorithm that rounds before it adds the bias gives other bits than one that rounds once.
TEST(CudaProductProofTest, BiasShowsARoundingBeforeIt) {
  constexpr std::size_t kWidth = 576, kColumns = 200;
  const auto differences = [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> bias(kColumns);
    simt::Machine::run(2, 1, 32, 0, [&] { fill_proof_bias(kColumns, bias.data()); });
    int different = 0;
    for (std::size_t column = 0; column < kColumns; ++column) {
      float sum = 0;
      for (std::size_t i = 0; i < kWidth; ++i) {
        sum += to_f32(rounded<T>(proof_element(column, i, kWidth, true))) *
               to_f32(rounded<T>(proof_element(3, i, kWidth, false)));
      }
      const float once = to_f32(rounded<T>(sum + to_f32(bias[column])));
      const float twice = to_f32(rounded<T>(to_f32(rounded<T>(sum)) + to_f32(bias[column])));
      different += once != twice ? 1 : 0;
    }
    return different;
  };
  EXPECT_GT(differences(__nv_bfloat16()), 20);
  EXPECT_GT(differences(__half()), 20);
}

TEST(CudaProductProofTest, KernelsFillAndCompare) {
  constexpr std::size_t kWidth = 10, kRows = 40;
  std::vector<float> rows(kRows * kWidth);
  simt::Machine::run(2, 1, 32, 0, [&] { fill_proof(kRows, kWidth, false, rows.data()); });
  for (std::size_t i = 0; i < rows.size(); ++i) {
    ASSERT_EQ(rows[i], proof_element(i / kWidth, i % kWidth, kWidth, false));
  }
  std::vector<std::uint32_t> bits(rows.size());
  std::memcpy(bits.data(), rows.data(), rows.size() * sizeof(float));
  std::uint32_t unequal = 0;
  const auto compare = [&] {
    unequal = 0;
    simt::Machine::run(2, 1, 32, 0,
                       [&] { count_unequal(bits.data(), kRows, kWidth, bits.data(), &unequal); });
    return unequal;
  };
  EXPECT_EQ(compare(), 0u);
  bits[399] ^= 1;
  EXPECT_EQ(compare(), 1u);
  bits[399] ^= 1;
  for (std::size_t i = 0; i < kWidth * kRows; ++i) bits[i] = 0xFFFFFFFFu;
  EXPECT_EQ(compare(), kWidth * kRows);
}

// ---- on a GPU

template <class T, class Out>
struct Types {
  using In = T;
  using OutType = Out;
};

template <class Pair>
class CudaLinearTest : public DeviceTest<OnGpu> {
 protected:
  using Input = typename Pair::In;
  using Output = typename Pair::OutType;

  static LinearShape shape(std::size_t in, std::size_t out, bool bias) {
    LinearShape shape;
    shape.in_features = in;
    shape.out_features = out;
    shape.dtype = dtype_of<Input>();
    shape.out_dtype = dtype_of<Output>();
    shape.bias = bias;
    shape.max_rows = 2500;
    return shape;
  }

  static std::vector<Output> apply(LinearFactory& factory, Linear& linear, const LinearShape& shape,
                                   const std::vector<Input>& in, std::size_t first,
                                   std::size_t rows) {
    std::vector<Input> padded(factory.padded_rows(rows) * shape.in_features);
    std::copy_n(in.begin() + static_cast<std::ptrdiff_t>(first * shape.in_features),
                rows * shape.in_features, padded.begin());
    OnGpu::Array<Input> from(padded);
    OnGpu::Array<Output> to(std::vector<Output>(factory.padded_rows(rows) * shape.out_features));
    linear.apply(rows, from.data(), to.data());
    std::vector<Output> out = to.values();
    out.resize(rows * shape.out_features);
    return out;
  }
};
using AllTypes = testing::Types<Types<float, float>, Types<std::uint16_t, std::uint16_t>,
                                Types<std::uint16_t, float>, Types<Half, Half>, Types<Half, float>>;
TYPED_TEST_SUITE(CudaLinearTest, AllTypes);

TYPED_TEST(CudaLinearTest, IsTheSumOfProducts) {
  using In = typename TypeParam::In;
  using Out = typename TypeParam::OutType;
  for (const bool bias : {false, true}) {
    for (const auto& [in, out] :
         {std::pair<std::size_t, std::size_t>{64, 96}, {576, 960}, {1536, 576}}) {
      const LinearShape shape = TestFixture::shape(in, out, bias);
      const auto weight = random_values<In>(in * out, 1, 0.1f);
      auto biases = random_values<float>(out, 2);
      for (float& value : biases) value = static_cast<float>(to_double(from_f32<Out>(value)));
      const auto x = random_values<In>(19 * in, 3);
      auto factory = make_linear_factory(OnGpu::device());
      auto linear = factory->make(shape, weight.data(), bias ? biases.data() : nullptr);
      const auto y = TestFixture::apply(*factory, *linear, shape, x, 0, 19);
      for (std::size_t i = 0; i < y.size(); ++i) {
        const std::size_t row = i / out, column = i % out;
        double want = bias ? to_double(biases[column]) : 0;
        double magnitude = std::abs(want);
        for (std::size_t k = 0; k < in; ++k) {
          const double term = to_double(x[row * in + k]) * to_double(weight[column * in + k]);
          want += term;
          magnitude += std::abs(term);
        }
        // Tensor cores cut bits off where the CPU rounds.
        ASSERT_NEAR(to_double(y[i]), want,
                    std::abs(want) * relative_error<Out>() + magnitude * 1e-5)
            << in << " x " << out << " row " << row << " column " << column;
      }
    }
  }
}

TYPED_TEST(CudaLinearTest, RowsDoNotDependOnTheBatch) {
  using In = typename TypeParam::In;
  for (const auto& [in, out] : {std::pair<std::size_t, std::size_t>{576, 960}, {1536, 576}}) {
    const LinearShape shape = TestFixture::shape(in, out, true);
    const auto weight = random_values<In>(in * out, 4, 0.1f);
    const auto bias = random_values<float>(out, 5);
    const std::size_t rows = 2500;
    const auto x = random_values<In>(rows * in, 6);
    auto factory = make_linear_factory(OnGpu::device());
    auto linear = factory->make(shape, weight.data(), bias.data());
    for (const std::size_t batch : {1u, 2u, 16u, 17u, 64u, 100u, 200u, 513u, 1025u, 2048u, 2500u}) {
      const auto y = TestFixture::apply(*factory, *linear, shape, x, 0, batch);
      for (const std::size_t row : {std::size_t{0}, batch / 3, batch / 2, batch - 1}) {
        const auto want = TestFixture::apply(*factory, *linear, shape, x, row, 1);
        ASSERT_EQ(std::memcmp(want.data(), y.data() + row * out, want.size() * sizeof(want[0])), 0)
            << in << " x " << out << " batch " << batch << " row " << row;
      }
    }
  }
}

TEST(CudaLinearFactoryTest, AViewComputesAsACopy) {
  if (!OnGpu::missing().empty()) GTEST_SKIP() << OnGpu::missing();
  LinearShape shape;
  shape.in_features = shape.out_features = 256;
  shape.dtype = io::DType::bf16;
  shape.max_rows = 64;
  const auto weight = random_values<std::uint16_t>(256 * 256, 1);
  const auto factory = make_linear_factory(OnGpu::device());
  OnGpu::Array<std::uint16_t> there(weight), in(random_values<std::uint16_t>(64 * 256, 2));
  OnGpu::Array<float> a(std::vector<float>(64 * 256)), b(std::vector<float>(64 * 256));
  const auto copy = factory->make(shape, weight.data(), nullptr);
  copy->apply(64, in.data(), a.data());
  const auto view = factory->make_view(shape, there.data(), nullptr);
  view->apply(64, in.data(), b.data());
  EXPECT_EQ(a.values(), b.values());
  EXPECT_EQ(view->weight_bytes(), 256u * 256 * 2);
  EXPECT_THAT(factory->numeric_class(), testing::HasSubstr("cublaslt-"));
}

TEST(CudaMachineLimits, ArePositiveAndFinite) {
  if (!OnGpu::missing().empty()) GTEST_SKIP() << OnGpu::missing();
  for (const io::DType dtype : {io::DType::f32, io::DType::bf16, io::DType::f16}) {
    const MachineLimits limits = measure_machine(OnGpu::device(), dtype);
    EXPECT_TRUE(std::isfinite(limits.flops_per_second) && limits.flops_per_second > 0);
    EXPECT_TRUE(std::isfinite(limits.bytes_per_second) && limits.bytes_per_second > 0);
  }
}

}  // namespace
}  // namespace penstock::model
