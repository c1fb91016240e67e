#include "io/safetensors.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "io/checkpoint_format.hpp"
#include "io/dtype.hpp"
#include "tests/io/foreign_files.hpp"

namespace penstock::io {
namespace {

using testing::bytes_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::load;
using testing::message_of;
using testing::safetensors;
using ::testing::StartsWith;
using testing::TemporaryFolder;

constexpr const char* kModel = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

std::vector<std::string> names(const TensorSource& source) {
  std::vector<std::string> result;
  for (const SourceTensor& tensor : source.tensors()) result.push_back(tensor.name);
  return result;
}

std::vector<float> read_all(TensorSource& source, std::size_t tensor) {
  std::vector<float> values(source.tensors()[tensor].elements);
  source.read(tensor, 0, values);
  return values;
}

// Two tensors; the header names the second one first, and is padded as the library does.
std::string small_model() {
  return safetensors(R"({"__metadata__":{"format":"pt"},)"
                     R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]},)"
                     R"("a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}   )",
                     bytes_of(1.0f) + bytes_of(-2.5f) + bytes_of(0.0f) + bytes_of(1e-40f) +
                         bytes_of<std::uint16_t>(0x3f80) + bytes_of<std::uint16_t>(0xc049) +
                         bytes_of<std::uint16_t>(0x7f80));
}

TEST(SafetensorsTest, ReadsAFileMadeByHand) {
  const TemporaryFolder folder;
  folder.write(kModel, small_model());
  SafetensorsFolder source(folder.path());
  ASSERT_THAT(names(source), ElementsAre("a", "b"));  // in the data's order
  const SourceTensor& a = source.tensors()[0];
  EXPECT_EQ(a.dtype, "F32");
  EXPECT_THAT(a.shape, ElementsAre(2, 2));
  EXPECT_EQ(a.elements, 4u);
  EXPECT_EQ(a.file, folder / kModel);
  EXPECT_THAT(read_all(source, 0), ElementsAre(1.0f, -2.5f, 0.0f, 1e-40f));
  EXPECT_THAT(read_all(source, 1),
              ElementsAre(1.0f, -3.140625f, std::numeric_limits<float>::infinity()));
}

TEST(SafetensorsTest, ReadsF16AndScalarsAndEmptyTensors) {
  const TemporaryFolder folder;
  folder.write(kModel, safetensors(R"({"h":{"dtype":"F16","shape":[],"data_offsets":[0,2]},)"
                                   R"("e":{"dtype":"F16","shape":[0,7],"data_offsets":[2,2]}})",
                                   bytes_of<std::uint16_t>(0xc500)));
  SafetensorsFolder source(folder.path());
  ASSERT_THAT(names(source), ElementsAre("h", "e"));
  EXPECT_THAT(read_all(source, 0), ElementsAre(-5.0f));
  EXPECT_EQ(source.tensors()[1].elements, 0u);
  EXPECT_THAT(read_all(source, 1), ElementsAre());
}

TEST(SafetensorsTest, ReadsPiecesOfTensorsLargerThanItsBuffer) {
  const TemporaryFolder folder;
  constexpr std::size_t kElements = (1u << 18) * 2 + 77;
  std::string data;
  for (std::size_t i = 0; i < kElements; ++i) data += bytes_of(static_cast<float>(i));
  folder.write(kModel, safetensors(fmt::format(R"({{"t":{{"dtype":"F32","shape":[{}],)"
                                               R"("data_offsets":[0,{}]}}}})",
                                               kElements, data.size()),
                                   data));
  SafetensorsFolder source(folder.path());
  const std::vector<float> all = read_all(source, 0);
  for (std::size_t i = 0; i < kElements; ++i) ASSERT_EQ(all[i], static_cast<float>(i));
  std::vector<float> piece(256);
  source.read(0, 256 * 999, piece);
  EXPECT_EQ(piece.front(), 256.0f * 999);
  EXPECT_EQ(piece.back(), 256.0f * 999 + 255);
  std::vector<float> tail(77);
  source.read(0, kElements - 77, tail);
  EXPECT_EQ(tail.back(), static_cast<float>(kElements - 1));
  EXPECT_THROW(source.read(0, 1, piece), std::invalid_argument);
  EXPECT_THROW(source.read(0, kElements, piece), std::invalid_argument);
  EXPECT_THROW(source.read(0, 256, std::span(tail)), std::invalid_argument);
}

TEST(SafetensorsTest, OtherTypesAreListedAndRefusedWhenRead) {
  const TemporaryFolder folder;
  folder.write(kModel, safetensors(R"({"ids":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
                                   R"("q":{"dtype":"F4","shape":[4],"data_offsets":[8,10]}})",
                                   "0123456789"));
  SafetensorsFolder source(folder.path());
  EXPECT_EQ(source.tensors()[0].dtype, "I64");
  EXPECT_EQ(message_of([&] { read_all(source, 0); }),
            (folder / kModel) + ": tensor 'ids' is of dtype I64; F32, F16 and BF16 are read");
}

TEST(SafetensorsTest, IgnoresFieldsThatTheLibraryIgnores) {
  const TemporaryFolder folder;
  folder.write(kModel,
               safetensors(R"({"a":{"dtype":"F16","x":[[1],{"shape":[9]},null],"shape":[1],)"
                           R"("y":{"dtype":"U8","z":[{}]},"data_offsets":[0,2]}})",
                           "ab"));
  SafetensorsFolder source(folder.path());
  EXPECT_EQ(source.tensors()[0].dtype, "F16");
  EXPECT_THAT(source.tensors()[0].shape, ElementsAre(1));
}

TEST(SafetensorsTest, ReadsShards) {
  const TemporaryFolder folder;
  folder.write(
      "x-2.safetensors",
      safetensors(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", bytes_of(2.0f)));
  folder.write("x-1.safetensors",
               safetensors(R"({"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},)"
                           R"("c":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                           bytes_of(1.0f) + bytes_of(3.0f)));
  folder.write(kIndex, R"({"metadata":{"total_size":12,"more":{"x":[1]}},"weight_map":)"
                       R"({"a":"x-2.safetensors","b":"x-1.safetensors","c":"x-1.safetensors"}})");
  SafetensorsFolder source(folder.path());
  ASSERT_THAT(names(source), ElementsAre("c", "b", "a"));
  EXPECT_THAT(read_all(source, 0), ElementsAre(1.0f));
  EXPECT_THAT(read_all(source, 1), ElementsAre(3.0f));
  EXPECT_THAT(read_all(source, 2), ElementsAre(2.0f));
  EXPECT_EQ(source.tensors()[2].file, folder / "x-2.safetensors");
}

TEST(SafetensorsTest, ATensorTheIndexPutsElsewhereIsTakenFromThere) {
  const TemporaryFolder folder;
  const char* header = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})";
  folder.write("1", safetensors(header, bytes_of(1.0f) + bytes_of(2.0f)));
  folder.write("2", safetensors(header, bytes_of(3.0f) + bytes_of(4.0f)));
  folder.write(kIndex, R"({"weight_map":{"a":"1","b":"2"}})");
  SafetensorsFolder source(folder.path());
  ASSERT_THAT(names(source), ElementsAre("a", "b"));
  EXPECT_THAT(read_all(source, 0), ElementsAre(1.0f));
  EXPECT_THAT(read_all(source, 1), ElementsAre(4.0f));
}

struct Broken {
  std::string name;
  std::string bytes;
  std::string reason;  // what() after the file's name
};

// A header with one tensor 'a' whose fields are given, and its data.
std::string one(std::string_view fields, std::string_view data = "0123") {
  return safetensors(fmt::format(R"({{"a":{{{}}}}})", fields), data);
}

std::vector<Broken> broken_files() {
  const std::string nested(100'000, '[');
  return {
      {"empty", "",
       "is only 0 bytes long; a safetensors file begins with the 8-byte length of its header"},
      {"length_cut", "\x01\x02\x03",
       "is only 3 bytes long; a safetensors file begins with the 8-byte length of its header"},
      {"another_format", "GGUF\x03  abcdefgh",
       "is not a safetensors file, or a broken one: its header is said to be 6998629019370735431 "
       "bytes long; at most 100000000 are allowed"},
      {"absurd_length", bytes_of(~std::uint64_t{0}) + "{}",
       "is not a safetensors file, or a broken one: its header is said to be 18446744073709551615 "
       "bytes long; at most 100000000 are allowed"},
      {"lying_length", bytes_of(std::uint64_t{3}) + "{}",
       "ends too early: its header is said to be 3 bytes long, but 2 bytes follow"},
      {"no_object", safetensors("[]", ""), "the safetensors header does not begin with '{'"},
      {"no_header", safetensors("", ""), "the safetensors header does not begin with '{'"},
      {"broken_json", safetensors(R"({"a":)", ""),
       "broken JSON at byte 6 of it: syntax error while parsing value - unexpected end of input; "
       "expected '[', '{', or a literal"},
      {"nested", safetensors(R"({"a":{"x":)" + nested, ""),
       "broken JSON at byte 100011 of it: syntax error while parsing value - unexpected end of "
       "input; expected '[', '{', or a literal"},
      {"bad_utf8_name", safetensors("{\"\xff\":{}}", ""),
       "broken JSON at byte 3 of it: syntax error while parsing object key - invalid string: "
       "ill-formed UTF-8 byte"},
      {"section_is_no_object", safetensors(R"({"a":1})", ""),
       "the JSON is not an object of objects"},
      {"metadata_is_no_string", safetensors(R"({"__metadata__":{"x":1}})", ""),
       "a value of '__metadata__' is not a string"},
      {"twice",
       safetensors(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"a":{}})", "0123"),
       "tensor 'a' appears twice"},
      {"field_twice", one(R"("dtype":"F32","dtype":"F16")"), "tensor 'a': 'dtype' appears twice"},
      {"no_dtype", one(R"("shape":[1],"data_offsets":[0,4])"), "tensor 'a': 'dtype' is missing"},
      {"no_shape", one(R"("dtype":"F32","data_offsets":[0,4])"), "tensor 'a': 'shape' is missing"},
      {"no_offsets", one(R"("dtype":"F32","shape":[1])"),
       "tensor 'a': 'data_offsets' does not have two elements"},
      {"three_offsets", one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,8])"),
       "tensor 'a': 'data_offsets' has more than two elements"},
      {"unknown_dtype", one(R"("dtype":"F31","shape":[1],"data_offsets":[0,4])"),
       "tensor 'a': the dtype 'F31' is unknown"},
      {"negative", one(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"),
       "tensor 'a': 'shape' is not an array of whole numbers from 0 to 2^64 - 1"},
      {"fraction", one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4.0])"),
       "tensor 'a': 'data_offsets' is not an array of whole numbers from 0 to 2^64 - 1"},
      {"beyond_64_bits",
       one(R"("dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4])"),
       "tensor 'a': 'shape' is not an array of whole numbers from 0 to 2^64 - 1"},
      {"scalar_shape", one(R"("dtype":"F32","shape":1,"data_offsets":[0,4])"),
       "tensor 'a': 'shape' is not an array of whole numbers from 0 to 2^64 - 1"},
      {"overflow", one(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4])"),
       "tensor 'a': the shape [4294967296, 4294967296] is too large"},
      {"overflow_to_true_size",
       one(R"("dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4])"),
       "tensor 'a': the shape [4611686018427387905] is too large"},
      {"wrong_size", one(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"),
       "tensor 'a': shape [2] of F32 needs 8 bytes, but 'data_offsets' span 4"},
      {"half_a_byte", one(R"("dtype":"F4","shape":[7],"data_offsets":[0,4])"),
       "tensor 'a': 7 elements of F4 are not a whole number of bytes"},
      {"backwards", one(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"),
       "tensor 'a': the data end at 0, before they begin at 4"},
      {"gap", one(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])", "01234567"),
       "tensor 'a': its data begin at 4, but the data before end at 0"},
      {"overlap",
       safetensors(
           R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
           "012345"),
       "tensor 'b': its data begin at 2, but the data before end at 4"},
      {"data_cut", one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])", "012"),
       "the tensors need 4 bytes of data, but the file holds 3"},
      {"data_too_long", one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])", "01234"),
       "the tensors need 4 bytes of data, but the file holds 5"},
      {"offsets_outside",
       one(R"("dtype":"U8","shape":[9223372036854775807],"data_offsets":[0,9223372036854775807])"),
       "tensor 'a': the shape [9223372036854775807] is too large"},
      {"control_characters", safetensors(R"({"\u001b[2J":{}})", ""),
       "tensor '\\x1b[2J': 'dtype' is missing"},
  };
}

TEST(SafetensorsTest, BrokenFilesAreRefusedWithOneClearMessage) {
  const TemporaryFolder folder;
  for (const Broken& broken : broken_files()) {
    const std::string path = folder.write(kModel, broken.bytes);
    EXPECT_EQ(message_of([&] { SafetensorsFolder{folder.path()}; }), path + ": " + broken.reason)
        << broken.name;
  }
}

// More tensors than a checkpoint could hold: refused before memory is taken for all of them.
TEST(SafetensorsTest, TheNumberOfTensorsIsLimited) {
  const TemporaryFolder folder;
  const auto header = [](std::size_t count) {
    std::string text = "{";
    for (std::size_t i = 0; i < count; ++i) {
      text += fmt::format(R"({}"{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                          i == 0 ? "" : ",", i);
    }
    return text + "}";
  };
  const std::string path = folder.write(kModel, safetensors(header(kMaxTensors + 1), ""));
  EXPECT_EQ(message_of([&] { SafetensorsFolder{folder.path()}; }),
            path + ": has more than 262144 tensors");
  folder.write(kModel, safetensors(header(kMaxTensors), ""));
  EXPECT_EQ(SafetensorsFolder(folder.path()).tensors().size(), kMaxTensors);
}

TEST(SafetensorsTest, TheNumberOfTensorsOfAnIndexIsLimited) {
  const TemporaryFolder folder;
  std::string index = R"({"weight_map":{"0":"one")";
  for (std::size_t i = 1; i <= kMaxTensors; ++i) index += fmt::format(R"(,"{}":"one")", i);
  const std::string path = folder.write(kIndex, index + "}}");
  EXPECT_EQ(message_of([&] { SafetensorsFolder{folder.path()}; }),
            path + ": 'weight_map' names more than 262144 tensors");
}

TEST(SafetensorsTest, EveryPrefixIsRefused) {
  const TemporaryFolder folder;
  const std::string whole = small_model();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const std::string path = folder.write(kModel, whole.substr(0, size));
    EXPECT_THAT(message_of([&] { SafetensorsFolder{folder.path()}; }), StartsWith(path + ": "))
        << size;
  }
}

TEST(SafetensorsTest, AFileCutAfterItWasOpenedIsRefusedWhenRead) {
  const TemporaryFolder folder;
  folder.write(kModel, small_model());
  SafetensorsFolder source(folder.path());
  std::filesystem::resize_file(folder / kModel, small_model().size() - 1);
  EXPECT_THAT(message_of([&] { read_all(source, 1); }), HasSubstr("ends too early"));
}

TEST(SafetensorsTest, BrokenIndexesAreRefusedWithOneClearMessage) {
  const TemporaryFolder folder;
  folder.write("one", safetensors(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})",
                                  bytes_of(1.0f)));
  std::filesystem::create_directory(folder / "sub");
  const Broken cases[] = {
      {kIndex, "",
       "broken JSON at byte 1 of it: syntax error while parsing value - unexpected end of input; "
       "expected '[', '{', or a literal"},
      {kIndex, "[]", "the JSON is not an object"},
      {kIndex, "{}", "has no 'weight_map'"},
      {kIndex, R"({"weight_map":[]})", "the JSON is not an object of objects"},
      {kIndex, R"({"weight_map":{"a":1}})", "'weight_map' gives tensor 'a' no file name"},
      {kIndex, R"({"weight_map":{"a":["one"]}})", "'weight_map' gives tensor 'a' no file name"},
      {kIndex, R"({"weight_map":{"a":"one","a":"one"}})", "'weight_map' names tensor 'a' twice"},
      {kIndex, R"({"weight_map":{"a":"one"},"weight_map":{}})", "'weight_map' appears twice"},
      {kIndex, R"({"weight_map":{"a":"two"}})",
       "names the shard 'two', which is not in the folder"},
      {kIndex, R"({"weight_map":{"a":"../one"}})",
       "'weight_map' puts tensor 'a' into '../one', which is not the name of a file in this "
       "folder"},
      {kIndex, R"({"weight_map":{"a":"/etc/passwd"}})",
       "'weight_map' puts tensor 'a' into '/etc/passwd', which is not the name of a file in this "
       "folder"},
      {kIndex, R"({"weight_map":{"a":".."}})",
       "'weight_map' puts tensor 'a' into '..', which is not the name of a file in this folder"},
      {kIndex, R"({"weight_map":{"a":""}})",
       "'weight_map' puts tensor 'a' into '', which is not the name of a file in this folder"},
      {kIndex, R"({"weight_map":{"a":"one\u0000.safetensors"}})",
       "'weight_map' puts tensor 'a' into 'one\\x00.safetensors', which is not the name of a file "
       "in this folder"},
      {"one", R"({"weight_map":{"a":"one","b":"one"}})",
       "does not hold tensor 'b', which model.safetensors.index.json puts there"},
      {"sub", R"({"weight_map":{"a":"sub"}})", "is a folder, not a file"},
  };
  for (const Broken& broken : cases) {
    folder.write(kIndex, broken.bytes);
    EXPECT_EQ(message_of([&] { SafetensorsFolder{folder.path()}; }),
              (folder / broken.name) + ": " + broken.reason)
        << broken.bytes;
  }
}

TEST(SafetensorsTest, AFolderWithoutEitherFileIsRefused) {
  const TemporaryFolder folder;
  EXPECT_EQ(message_of([&] { SafetensorsFolder{folder.path()}; }),
            folder.path() + ": holds neither model.safetensors nor model.safetensors.index.json");
}

// A folder as the safetensors library writes it, and the values that it was given.
void compare_with_library(const std::string& layout) {
  const TemporaryFolder folder;
  testing::run_python("safetensors_reference.py", layout + " '" + folder.path() + "'");
  if (::testing::Test::HasFatalFailure()) return;
  SafetensorsFolder source(folder.path());
  ASSERT_EQ(source.tensors().size(), 12u);
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    const SourceTensor& tensor = source.tensors()[i];
    if (tensor.dtype == "I64") continue;
    const auto expected = load<float>(folder / (tensor.name + ".f32"));
    const auto shape = load<std::uint64_t>(folder / (tensor.name + ".shape"));
    EXPECT_EQ(tensor.shape, shape) << tensor.name;
    const std::vector<float> got = read_all(source, i);
    ASSERT_EQ(got.size(), expected.size()) << tensor.name;
    for (std::size_t k = 0; k < got.size(); ++k) {
      ASSERT_EQ(std::memcmp(&got[k], &expected[k], sizeof(float)), 0) << tensor.name << " " << k;
    }
  }
}

TEST(SafetensorsTest, ReadsAFileOfTheLibrary) {
  PENSTOCK_NEEDS_PYTHON();
  compare_with_library("single");
}

TEST(SafetensorsTest, ReadsShardsOfTheLibrary) {
  PENSTOCK_NEEDS_PYTHON();
  compare_with_library("sharded");
}

// What is called broken here, the library calls broken too, save where this reader is stricter.
TEST(SafetensorsTest, TheLibraryRefusesTheSameFiles) {
  PENSTOCK_NEEDS_PYTHON();
  const TemporaryFolder folder;
  for (const Broken& broken : broken_files()) {
    const bool stricter = broken.name == "twice";  // the library keeps the last one
    if (!stricter) folder.write(broken.name, broken.bytes);
  }
  testing::run_python("safetensors_reference.py", "refuse '" + folder.path() + "'");
}

}  // namespace
}  // namespace penstock::io
