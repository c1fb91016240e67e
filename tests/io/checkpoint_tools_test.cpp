// Other tools read the true numbers: h5py (which carries its own, newer HDF5) and h5dump.

#include <gmock/gmock.h>

#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "io/checkpoint.hpp"
#include "tests/io/checkpoint_support.hpp"

namespace penstock::io {
namespace {

using test::CheckpointTest;
using testing::HasSubstr;

// Output of a shell command; empty when it failed.
std::string run(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "r"), ::pclose);
  std::string output;
  std::array<char, 4096> buffer{};
  for (std::size_t n; (n = std::fread(buffer.data(), 1, buffer.size(), pipe.get())) > 0;) {
    output.append(buffer.data(), n);
  }
  return output;
}

// By hand, as bits: values every float type holds, a subnormal, the largest bf16 and infinity.
const std::vector<std::uint16_t> kBf16{0x3f80, 0xc000, 0x3f00, 0x0000,
                                       0x4049, 0x0001, 0x7f7f, 0xff80};
const std::vector<double> kBf16Values{
    1.0, -2.0, 0.5, 0.0, 3.140625, std::ldexp(1.0, -133), std::ldexp(255.0, 120), -HUGE_VAL};
const std::vector<std::uint16_t> kF16{0x3c00, 0xc000, 0x3800, 0x0000,
                                      0x4248, 0x0001, 0x7bff, 0xfc00};
const std::vector<double> kF16Values{1.0,     -2.0,     0.5, 0.0, 3.140625, std::ldexp(1.0, -24),
                                     65504.0, -HUGE_VAL};
const std::vector<float> kF32{1.0f, -2.0f, 0.5f, 0.0f, 3.140625f, 1e-40f, 3e38f, -HUGE_VALF};

class CheckpointToolsTest : public CheckpointTest {
 protected:
  void write() const {
    const std::vector<TensorSpec> tensors{{"/embed/weight", DType::bf16, {2, 4}},
                                          {"/layers/0000/attn/q", DType::f16, {8}},
                                          {"/final/norm", DType::f32, {4, 2}}};
    CheckpointWriter writer(path("a.h5"), test::small_header(), tensors);
    writer.append(0, std::as_bytes(std::span(kBf16)));
    writer.append(1, std::as_bytes(std::span(kF16)));
    writer.append(2, std::as_bytes(std::span(kF32)));
    writer.finish();
  }
};

TEST_F(CheckpointToolsTest, H5py) {
  if (std::string_view(PENSTOCK_TEST_PYTHON).empty()) {
    GTEST_SKIP() << "PENSTOCK_TEST_PYTHON is not set";
  }
  write();
  const std::string output =
      run(std::string(PENSTOCK_TEST_PYTHON) +
          " " PENSTOCK_SOURCE_DIR "/tests/reference/read_checkpoint.py " + path("a.h5"));
  const auto seen = nlohmann::json::parse(output, nullptr, false);
  ASSERT_TRUE(seen.is_object()) << output;

  const CheckpointReader reader(path("a.h5"));
  EXPECT_EQ(seen["root"]["format"], "penstock");
  EXPECT_EQ(seen["root"]["schema"], 1);
  EXPECT_EQ(seen["root"]["source"], "a folder of ünïcode");
  EXPECT_EQ(seen["root"]["digest"], reader.digest());
  EXPECT_EQ(seen["config"]["hidden_size"], 64);
  EXPECT_EQ(seen["config"]["negative"], -1);
  EXPECT_EQ(seen["config"]["rope_theta"], 10000.0);
  EXPECT_EQ(seen["config"]["empty"], "");
  EXPECT_EQ(seen["config_text"], R"({"hidden_size": 64})");
  EXPECT_EQ(seen["tokenizer"]["chat_template"], std::string("{{ messages }}\n\0x", 17));
  EXPECT_EQ(seen["digest"], reader.digest());
  EXPECT_EQ(seen["checksums_match"], true);
  ASSERT_EQ(seen["tensors"].size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    const TensorInfo& tensor = reader.tensors()[i];
    const auto& other = seen["tensors"][i];
    EXPECT_EQ(other["name"], tensor.name);
    EXPECT_EQ(other["dtype"], std::string(to_string(tensor.dtype)));
    EXPECT_EQ(other["shape"], tensor.shape);
    EXPECT_EQ(other["offset"], tensor.offset);
  }
  const auto values = [&](std::size_t i) {
    std::vector<double> list;
    for (const auto& value : seen["tensors"][i]["first"]) {
      list.push_back(value.is_number() ? value.get<double>() : std::stod(value.get<std::string>()));
    }
    return list;
  };
  EXPECT_EQ(values(0), kBf16Values);
  EXPECT_EQ(values(1), kF16Values);
  EXPECT_EQ(values(2), std::vector<double>(kF32.begin(), kF32.end()));
}

TEST_F(CheckpointToolsTest, H5dump) {
  if (run("h5dump --version 2>/dev/null").empty()) GTEST_SKIP() << "h5dump is not installed";
  write();
  const auto dump = [&](const std::string& dataset) {
    return run("h5dump -m %.9g -y -w 200 -d " + dataset + " " + path("a.h5") + " 2>&1");
  };
  EXPECT_THAT(dump("/embed/weight"), HasSubstr("1, -2, 0.5, 0"));
  EXPECT_THAT(dump("/embed/weight"), HasSubstr("3.140625, 9.18354962e-41, 3.38953139e+38, -inf"));
  EXPECT_THAT(dump("/layers/0000/attn/q"),
              HasSubstr("1, -2, 0.5, 0, 3.140625, 5.96046448e-08, 65504, -inf"));
  EXPECT_THAT(run("h5dump -A " + path("a.h5") + " 2>&1"), HasSubstr("\"penstock\""));
}

// The very fields of HDF5 2.0's H5T_FLOAT_BFLOAT16LE, and of IEEE binary16.
TEST_F(CheckpointToolsTest, TypesHaveTheRightFields) {
  write();
  const hid_t file = H5Fopen(path("a.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  const auto check = [&](const char* name, std::size_t exponent_at, std::size_t exponent,
                         std::size_t mantissa, std::size_t bias) {
    const hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    const hid_t type = H5Dget_type(dataset);
    std::size_t sign_at = 0, e_at = 0, e_size = 0, m_at = 9, m_size = 0;
    H5Tget_fields(type, &sign_at, &e_at, &e_size, &m_at, &m_size);
    EXPECT_EQ(H5Tget_class(type), H5T_FLOAT);
    EXPECT_EQ(H5Tget_order(type), H5T_ORDER_LE);
    EXPECT_EQ(H5Tget_size(type), 2u);
    EXPECT_EQ(H5Tget_precision(type), 16u);
    EXPECT_EQ(H5Tget_offset(type), 0);
    EXPECT_EQ(sign_at, 15u);
    EXPECT_EQ(e_at, exponent_at);
    EXPECT_EQ(e_size, exponent);
    EXPECT_EQ(m_at, 0u);
    EXPECT_EQ(m_size, mantissa);
    EXPECT_EQ(H5Tget_ebias(type), bias);
    EXPECT_EQ(H5Tget_norm(type), H5T_NORM_IMPLIED);
    EXPECT_EQ(H5Tget_inpad(type), H5T_PAD_ZERO);
    H5T_pad_t low{}, high{};
    H5Tget_pad(type, &low, &high);
    EXPECT_EQ(low, H5T_PAD_ZERO);
    EXPECT_EQ(high, H5T_PAD_ZERO);
    H5Tclose(type);
    H5Dclose(dataset);
  };
  check("/embed/weight", 7, 8, 7, 127);
  check("/layers/0000/attn/q", 10, 5, 10, 15);
  H5Fclose(file);
}

}  // namespace
}  // namespace penstock::io
