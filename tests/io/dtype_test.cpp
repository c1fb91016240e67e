#include "io/dtype.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "tests/io/foreign_files.hpp"

namespace penstock::io {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::uint32_t bits(float value) { return std::bit_cast<std::uint32_t>(value); }

// The value of a 16-bit pattern by the definition of IEEE 754: exact in double.
double defined_value(std::uint16_t pattern, int mantissa_bits, int bias) {
  const int sign = pattern >> 15;
  const int exponent = (pattern & 0x7fff) >> mantissa_bits;
  const int mantissa = pattern & ((1 << mantissa_bits) - 1);
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                    : std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
  return sign != 0 ? -magnitude : magnitude;
}

struct Format {
  const char* name;
  DType dtype;
  int mantissa_bits;
  int bias;
  std::uint16_t infinity;
  float (*widen)(std::uint16_t);
  std::uint16_t (*narrow)(float);
};

void PrintTo(const Format& format, std::ostream* out) { *out << format.name; }

class HalfTest : public ::testing::TestWithParam<Format> {};

INSTANTIATE_TEST_SUITE_P(
    Formats, HalfTest,
    ::testing::Values(Format{"f16", DType::f16, 10, 15, 0x7c00, f16_to_f32, f32_to_f16},
                      Format{"bf16", DType::bf16, 7, 127, 0x7f80, bf16_to_f32, f32_to_bf16}),
    [](const auto& format) { return format.param.name; });

TEST_P(HalfTest, EveryPatternHasItsDefinedValueAndComesBack) {
  const Format& format = GetParam();
  for (std::uint32_t i = 0; i <= 0xffff; ++i) {
    const auto pattern = static_cast<std::uint16_t>(i);
    const std::uint16_t magnitude = pattern & 0x7fff;
    const float value = format.widen(pattern);
    if (magnitude > format.infinity) {
      ASSERT_TRUE(std::isnan(value)) << i;
      const std::uint16_t back = format.narrow(value);
      ASSERT_GT(back & 0x7fff, format.infinity) << i;
      ASSERT_EQ(back & 0x8000, pattern & 0x8000) << i;
      continue;
    }
    if (magnitude == format.infinity) {
      ASSERT_EQ(value, pattern & 0x8000 ? -kInfinity : kInfinity);
    } else {
      ASSERT_EQ(static_cast<double>(value),
                defined_value(pattern, format.mantissa_bits, format.bias))
          << i;
    }
    ASSERT_EQ(std::signbit(value), (pattern & 0x8000) != 0) << i;
    ASSERT_EQ(format.narrow(value), pattern) << i;
  }
}

TEST_P(HalfTest, RoundsToNearestAndTiesToEven) {
  const Format& format = GetParam();
  // Between each finite pattern and the next; the last pair ends at 2^(max exponent + 1), which is
  // where infinity stands.
  for (std::uint32_t low = 0; low < format.infinity; ++low) {
    const std::uint32_t high = low + 1;
    const double below =
        defined_value(static_cast<std::uint16_t>(low), format.mantissa_bits, format.bias);
    const double above =
        defined_value(static_cast<std::uint16_t>(high), format.mantissa_bits, format.bias);
    const auto middle = static_cast<float>((below + above) / 2);
    ASSERT_EQ(static_cast<double>(middle), (below + above) / 2) << "not exact in f32";
    const auto even = low % 2 == 0 ? low : high;
    for (const float sign : {1.0f, -1.0f}) {
      const std::uint32_t sign_bit = sign < 0 ? 0x8000 : 0;
      ASSERT_EQ(format.narrow(sign * middle), even | sign_bit) << low;
      ASSERT_EQ(format.narrow(sign * std::nextafterf(middle, 0.0f)), low | sign_bit) << low;
      ASSERT_EQ(format.narrow(sign * std::nextafterf(middle, kInfinity)), high | sign_bit) << low;
    }
  }
}

TEST_P(HalfTest, NanStaysNanAndOverflowBecomesInfinity) {
  const Format& format = GetParam();
  // Payloads whose upper bits are zero must not turn into infinity.
  for (const std::uint32_t nan :
       {0x7f800001u, 0xff800001u, 0x7fffffffu, 0xffffffffu, 0x7fc00000u}) {
    const std::uint16_t half = format.narrow(std::bit_cast<float>(nan));
    EXPECT_GT(half & 0x7fff, format.infinity) << std::hex << nan;
    EXPECT_EQ(half >> 15, nan >> 31) << std::hex << nan;
  }
  EXPECT_EQ(format.narrow(std::numeric_limits<float>::max()), format.infinity);
  EXPECT_EQ(format.narrow(-std::numeric_limits<float>::max()), format.infinity | 0x8000);
  EXPECT_EQ(format.narrow(kInfinity), format.infinity);
}

TEST(ConvertTest, AgreesWithTheScalarFunctionsForAllPairsAndLengths) {
  // Lengths around the widths of vector registers, from addresses that are not aligned.
  std::vector<float> values;
  for (std::uint32_t i = 0; i < 67; ++i) values.push_back(std::bit_cast<float>(i * 0x03d1f0a7u));
  const auto narrow = [](DType dtype, float value) {
    return dtype == DType::f16 ? f32_to_f16(value) : f32_to_bf16(value);
  };
  const auto widen = [](DType dtype, std::uint16_t half) {
    return dtype == DType::f16 ? f16_to_f32(half) : bf16_to_f32(half);
  };
  for (const DType half : {DType::f16, DType::bf16}) {
    const DType other = half == DType::f16 ? DType::bf16 : DType::f16;
    for (std::size_t count = 0; count <= values.size(); ++count) {
      std::vector<std::byte> narrowed(2 * values.size() + 1);
      convert(values.data(), DType::f32, narrowed.data() + 1, half, count);
      std::vector<std::byte> widened(4 * values.size() + 1);
      convert(narrowed.data() + 1, half, widened.data() + 1, DType::f32, count);
      std::vector<std::byte> crossed(2 * values.size() + 1);
      convert(narrowed.data() + 1, half, crossed.data() + 1, other, count);
      for (std::size_t i = 0; i < values.size(); ++i) {
        std::uint16_t got_narrow, got_cross;
        std::uint32_t got_wide;
        std::memcpy(&got_narrow, &narrowed[1 + 2 * i], 2);
        std::memcpy(&got_wide, &widened[1 + 4 * i], 4);
        std::memcpy(&got_cross, &crossed[1 + 2 * i], 2);
        const std::uint16_t expected = i < count ? narrow(half, values[i]) : std::uint16_t{0};
        ASSERT_EQ(got_narrow, expected) << count << " " << i;
        const float wide = widen(half, expected);
        ASSERT_EQ(got_wide, i < count ? bits(wide) : 0u) << count << " " << i;
        ASSERT_EQ(got_cross, i < count ? narrow(other, wide) : 0) << count << " " << i;
      }
    }
  }
}

TEST(ConvertTest, EqualTypesAreCopiedBitByBit) {
  const std::vector<std::uint16_t> signalling = {0x7c01, 0x7f81, 0xffff, 1};
  std::vector<std::uint16_t> copy(4);
  for (const DType dtype : {DType::f16, DType::bf16}) {
    convert(signalling.data(), dtype, copy.data(), dtype, 4);
    EXPECT_EQ(copy, signalling);
  }
  const std::vector<std::uint32_t> patterns = {0x7f800001, 0xffffffff};
  std::vector<std::uint32_t> wide(2);
  convert(patterns.data(), DType::f32, wide.data(), DType::f32, 2);
  EXPECT_EQ(wide, patterns);
}

TEST(DTypeTest, NamesAndSizes) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    EXPECT_EQ(parse_dtype(to_string(dtype)), dtype);
  }
  EXPECT_EQ(parse_dtype("f64"), std::nullopt);
  EXPECT_EQ(parse_dtype(""), std::nullopt);
  EXPECT_EQ(size_of(DType::f32), 4u);
  EXPECT_EQ(size_of(DType::f16), 2u);
  EXPECT_EQ(size_of(DType::bf16), 2u);
}

// numpy's float16 and ml_dtypes' bfloat16 for a million f32 patterns, and all 16-bit patterns.
TEST(DTypeTest, AgreesWithNumpyAndMlDtypes) {
  PENSTOCK_NEEDS_PYTHON();
  const testing::TemporaryFolder folder;
  testing::run_python("dtype_reference.py", folder.path());
  if (HasFatalFailure()) return;
  const auto wide = testing::load<float>(folder / "f32");
  ASSERT_GT(wide.size(), 1'000'000u);
  const auto is_nan = [](std::uint16_t half, std::uint16_t infinity) {
    return (half & 0x7fff) > infinity;
  };
  const auto check = [&](const char* name, DType dtype, std::uint16_t infinity) {
    const auto expected = testing::load<std::uint16_t>(folder / name);
    std::vector<std::uint16_t> got(wide.size());
    convert(wide.data(), DType::f32, got.data(), dtype, wide.size());
    ASSERT_EQ(expected.size(), got.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      // Which NaN is each library's own choice.
      if (is_nan(got[i], infinity) && is_nan(expected[i], infinity)) continue;
      ASSERT_EQ(got[i], expected[i]) << name << " of " << wide[i];
    }
    const auto values = testing::load<float>(folder / (std::string(name) + "_patterns"));
    ASSERT_EQ(values.size(), 65536u);
    for (std::uint32_t i = 0; i < 65536; ++i) {
      float value;
      const auto pattern = static_cast<std::uint16_t>(i);
      convert(&pattern, dtype, &value, DType::f32, 1);
      if (std::isnan(value) && std::isnan(values[i])) continue;
      ASSERT_EQ(bits(value), bits(values[i])) << name << " pattern " << i;
    }
  };
  check("f16", DType::f16, 0x7c00);
  check("bf16", DType::bf16, 0x7f80);
}

}  // namespace
}  // namespace penstock::io
