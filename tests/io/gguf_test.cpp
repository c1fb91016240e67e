#include "io/gguf.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <stdexcept>

#include "tests/io/foreign_files.hpp"

namespace penstock::io {
namespace {

using testing::bytes_of;
using ::testing::ElementsAre;
using testing::Gguf;
using ::testing::HasSubstr;
using testing::load;
using testing::message_of;
using ::testing::StartsWith;
using testing::TemporaryFolder;

constexpr std::uint32_t kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ8_0 = 8, kQ4_K = 12, kBF16 = 30;

std::vector<float> read_all(TensorSource& source, std::size_t tensor) {
  std::vector<float> values(source.tensors()[tensor].elements);
  source.read(tensor, 0, values);
  return values;
}

// Metadata of each kind and one F32 tensor.
std::string small_model() {
  return Gguf(1, 3)
      .key("general.architecture", Gguf::string, Gguf::text("llama"))
      .array_key("tokens", Gguf::string, 2, Gguf::text("a") + Gguf::text("bc"))
      .array_key("scores", Gguf::f32, 2, bytes_of(0.5f) + bytes_of(-1.0f))
      .tensor("w", {3}, kF32, 0)
      .data(bytes_of(1.0f) + bytes_of(2.0f) + bytes_of(3.0f))
      .bytes();
}

template <typename T>
const T& value(const GgufFile& file, std::string_view key) {
  const GgufValue* found = file.find(key);
  if (found == nullptr) throw std::runtime_error("no such key");
  return std::get<T>(*found);
}

TEST(GgufTest, ReadsMetadataOfEveryType) {
  const TemporaryFolder folder;
  GgufFile file(
      folder.write("m.gguf", Gguf(0, 17)
                                 .key("u8", Gguf::u8, "\xff")
                                 .key("i8", Gguf::i8, "\xff")
                                 .key("u16", Gguf::u16, "\xfe\xff")
                                 .key("i16", Gguf::i16, "\xfe\xff")
                                 .key("u32", Gguf::u32, bytes_of(0xfffffffdu))
                                 .key("i32", Gguf::i32, bytes_of(-3))
                                 .key("u64", Gguf::u64, bytes_of(~std::uint64_t{0}))
                                 .key("i64", Gguf::i64, bytes_of(std::int64_t{-5}))
                                 .key("f32", Gguf::f32, bytes_of(0.1f))
                                 .key("f64", Gguf::f64, bytes_of(0.1))
                                 .key("yes", Gguf::boolean, "\x01")
                                 .key("no", Gguf::boolean, std::string(1, '\0'))
                                 .key("text", Gguf::string, Gguf::text("any\xff bytes"))
                                 .array_key("bytes", Gguf::i8, 3, "\x01\xff\x02")
                                 .array_key("shorts", Gguf::u16, 2, "\x01\x02\xff\xff")
                                 .array_key("flags", Gguf::boolean, 3, std::string("\1\0\1", 3))
                                 .array_key("none", Gguf::string, 0, "")
                                 .bytes()));
  EXPECT_EQ(value<std::uint64_t>(file, "u8"), 255u);
  EXPECT_EQ(value<std::int64_t>(file, "i8"), -1);
  EXPECT_EQ(value<std::uint64_t>(file, "u16"), 65534u);
  EXPECT_EQ(value<std::int64_t>(file, "i16"), -2);
  EXPECT_EQ(value<std::uint64_t>(file, "u32"), 4294967293u);
  EXPECT_EQ(value<std::int64_t>(file, "i32"), -3);
  EXPECT_EQ(value<std::uint64_t>(file, "u64"), ~std::uint64_t{0});
  EXPECT_EQ(value<std::int64_t>(file, "i64"), -5);
  EXPECT_EQ(value<double>(file, "f32"), static_cast<double>(0.1f));
  EXPECT_EQ(value<double>(file, "f64"), 0.1);
  EXPECT_TRUE(value<bool>(file, "yes"));
  EXPECT_FALSE(value<bool>(file, "no"));
  EXPECT_EQ(value<std::string>(file, "text"), "any\xff bytes");
  EXPECT_THAT(value<std::vector<std::int64_t>>(file, "bytes"), ElementsAre(1, -1, 2));
  EXPECT_THAT(value<std::vector<std::uint64_t>>(file, "shorts"), ElementsAre(0x0201, 0xffff));
  EXPECT_THAT(value<std::vector<bool>>(file, "flags"), ElementsAre(true, false, true));
  EXPECT_TRUE(file.texts("none").empty());
  EXPECT_EQ(file.find("missing"), nullptr);
  EXPECT_TRUE(file.tensors().empty());
}

TEST(GgufTest, TypedLookUpsSayWhatIsWrong) {
  const TemporaryFolder folder;
  const std::string path =
      folder.write("m.gguf", Gguf(0, 5)
                                 .key("large", Gguf::u64, bytes_of(~std::uint64_t{0}))
                                 .key("count", Gguf::u32, bytes_of(7u))
                                 .key("below", Gguf::i8, "\xff")
                                 .key("text", Gguf::string, Gguf::text("t"))
                                 .array_key("texts", Gguf::string, 1, Gguf::text("x"))
                                 .bytes());
  const GgufFile file(path);
  EXPECT_EQ(file.path(), path);
  EXPECT_EQ(file.integer("count"), 7);
  EXPECT_EQ(file.integer("below"), -1);
  EXPECT_EQ(file.real("count"), 7.0);
  EXPECT_EQ(file.real("below"), -1.0);
  EXPECT_EQ(file.text("text"), "t");
  EXPECT_THAT(file.texts("texts"), ElementsAre("x"));
  const auto reason = [&](auto look_up) { return message_of(look_up).substr(path.size() + 2); };
  EXPECT_EQ(reason([&] { file.integer("missing"); }), "metadata key 'missing' is missing");
  EXPECT_EQ(reason([&] { file.integer("text"); }), "metadata key 'text' is not an integer");
  EXPECT_EQ(reason([&] { file.integer("large"); }),
            "metadata key 'large' is not a 64-bit signed integer: 18446744073709551615");
  EXPECT_EQ(reason([&] { file.real("text"); }), "metadata key 'text' is not a number");
  EXPECT_EQ(reason([&] { file.text("texts"); }), "metadata key 'texts' is not a string");
  EXPECT_EQ(reason([&] { file.texts("text"); }), "metadata key 'text' is not an array of strings");
}

TEST(GgufTest, ListsTensorsRowMajorAndReadsBothVersions) {
  const TemporaryFolder folder;
  for (const std::uint32_t version : {2u, 3u}) {
    GgufFile file(folder.write("m.gguf", Gguf(2, 0, version)
                                             .tensor("b", {2, 3}, kF32, 32)
                                             .tensor("a", {1}, kF16, 0)
                                             .data(bytes_of<std::uint16_t>(0x3c00))
                                             .data(bytes_of(0.f) + bytes_of(1.f) + bytes_of(2.f) +
                                                   bytes_of(3.f) + bytes_of(4.f) + bytes_of(5.f))
                                             .bytes()));
    ASSERT_EQ(file.tensors().size(), 2u);
    EXPECT_EQ(file.tensors()[0].name, "b");
    EXPECT_EQ(file.tensors()[0].dtype, "F32");
    EXPECT_THAT(file.tensors()[0].shape, ElementsAre(3, 2));
    EXPECT_EQ(file.tensors()[0].elements, 6u);
    EXPECT_EQ(file.tensors()[0].file, file.path());
    EXPECT_THAT(read_all(file, 0), ElementsAre(0, 1, 2, 3, 4, 5));
    EXPECT_THAT(read_all(file, 1), ElementsAre(1));
  }
}

TEST(GgufTest, FollowsTheAlignmentKey) {
  const TemporaryFolder folder;
  GgufFile file(folder.write("m.gguf", Gguf(2, 1)
                                           .key("general.alignment", Gguf::u32, bytes_of(256u))
                                           .tensor("a", {1}, kF32, 0)
                                           .tensor("b", {1}, kF32, 256)
                                           .data(bytes_of(1.0f), 256)
                                           .data(bytes_of(2.0f), 256)
                                           .bytes()));
  EXPECT_THAT(read_all(file, 0), ElementsAre(1));
  EXPECT_THAT(read_all(file, 1), ElementsAre(2));
}

// Blocks whose values follow from the definition: element i of a block has nibble (or byte) i.
TEST(GgufTest, DequantizesBlocksByDefinition) {
  std::string nibbles, counts;
  for (int i = 0; i < 16; ++i) {
    nibbles += static_cast<char>(i | (15 - i) << 4);  // element i holds i, element 16 + i 15 - i
  }
  for (int i = 0; i < 32; ++i) counts += static_cast<char>(i * 8 - 128);
  const std::string half = bytes_of<std::uint16_t>(0x3800);         // 0.5
  const std::string minus_three = bytes_of<std::uint16_t>(0xc200);  // -3
  const TemporaryFolder folder;
  GgufFile file(folder.write("m.gguf", Gguf(4, 0)
                                           .tensor("q4_0", {32}, kQ4_0, 0)
                                           .tensor("q4_1", {32}, kQ4_1, 32)
                                           .tensor("q8_0", {32}, kQ8_0, 64)
                                           .tensor("bf16", {2}, kBF16, 128)
                                           .data(half + nibbles)
                                           .data(half + minus_three + nibbles)
                                           .data(half + counts)
                                           .data("\x80\x3f\x49\xc0")
                                           .bytes()));
  const std::vector<float> q4_0 = read_all(file, 0), q4_1 = read_all(file, 1),
                           q8_0 = read_all(file, 2);
  for (int i = 0; i < 32; ++i) {
    const int nibble = i < 16 ? i : 31 - i;
    const auto at = static_cast<std::size_t>(i);
    EXPECT_EQ(q4_0[at], 0.5f * static_cast<float>(nibble - 8)) << i;
    EXPECT_EQ(q4_1[at], 0.5f * static_cast<float>(nibble) - 3.0f) << i;
    EXPECT_EQ(q8_0[at], 0.5f * static_cast<float>(i * 8 - 128)) << i;
  }
  EXPECT_THAT(read_all(file, 3), ElementsAre(1.0f, -3.140625f));
}

TEST(GgufTest, ReadsPiecesAndRefusesOtherRanges) {
  constexpr std::uint64_t kElements = (1u << 18) + 256 + 32;
  std::string data;
  for (std::uint64_t block = 0; block < kElements / 32; ++block) {
    data += bytes_of<std::uint16_t>(0x3c00) + std::string(32, static_cast<char>(block % 100));
  }
  const TemporaryFolder folder;
  GgufFile file(
      folder.write("m.gguf", Gguf(1, 0).tensor("t", {kElements}, kQ8_0, 0).data(data).bytes()));
  const std::vector<float> all = read_all(file, 0);
  for (std::size_t i = 0; i < all.size(); ++i) {
    ASSERT_EQ(all[i], static_cast<float>(i / 32 % 100)) << i;
  }
  std::vector<float> piece(512);
  file.read(0, 256 * 7, piece);
  EXPECT_TRUE(std::equal(piece.begin(), piece.end(), all.begin() + 256 * 7));
  std::vector<float> tail(288);
  file.read(0, kElements - 288, tail);
  EXPECT_TRUE(std::equal(tail.begin(), tail.end(), all.end() - 288));
  EXPECT_THROW(file.read(0, 32, piece), std::invalid_argument);
  EXPECT_THROW(file.read(0, 0, std::span(piece).first(32)), std::invalid_argument);
  EXPECT_THROW(file.read(0, kElements - 256, piece), std::invalid_argument);
}

TEST(GgufTest, OtherTypesAreListedAndRefusedWhenRead) {
  const TemporaryFolder folder;
  const std::string path = folder.write("m.gguf", Gguf(2, 0)
                                                      .tensor("k", {256}, kQ4_K, 0)
                                                      .tensor("new", {8}, 999, 160)
                                                      .data(std::string(160, 'x'))
                                                      .bytes());
  GgufFile file(path);
  EXPECT_EQ(file.tensors()[0].dtype, "Q4_K");
  EXPECT_EQ(file.tensors()[1].dtype, "type 999");
  EXPECT_EQ(message_of([&] { read_all(file, 0); }),
            path + ": tensor 'k' is of type Q4_K; F32, F16, BF16, Q8_0, Q4_0 and Q4_1 are read");
  EXPECT_EQ(
      message_of([&] { read_all(file, 1); }),
      path + ": tensor 'new' is of type type 999; F32, F16, BF16, Q8_0, Q4_0 and Q4_1 are read");
}

struct Broken {
  std::string name;
  std::string bytes;
  std::string reason;  // what() after the file's name
};

std::vector<Broken> broken_files() {
  const std::uint64_t huge = ~std::uint64_t{0};
  const auto one = [](const std::vector<std::uint64_t>& shape, std::uint32_t type,
                      std::uint64_t offset, std::size_t bytes) {
    return Gguf(1).tensor("t", shape, type, offset).data(std::string(bytes, '\0')).bytes();
  };
  const auto key = [](std::uint32_t type, std::string_view bytes) {
    return Gguf(0, 1).key("k", type, bytes).bytes();
  };
  const auto list = [](std::uint32_t type, std::uint64_t count, std::string_view bytes) {
    return Gguf(0, 1).array_key("k", type, count, bytes).bytes();
  };
  return {
      {"empty", "", "ends too early: the GGUF preamble needs 4 bytes at byte 0, where 0 are left"},
      {"magic", "GGML....................",
       "is not a GGUF file (it does not begin with the bytes 'GGUF')"},
      {"magic_only", "GGUF",
       "ends too early: the GGUF preamble needs 4 bytes at byte 4, where 0 are left"},
      {"version_0", Gguf(0, 0, 0).bytes(), "is GGUF version 0; versions 2 and 3 are read"},
      {"version_1", Gguf(0, 0, 1).bytes(), "is GGUF version 1; versions 2 and 3 are read"},
      {"version_4", Gguf(0, 0, 4).bytes(), "is GGUF version 4; versions 2 and 3 are read"},
      {"big_endian", Gguf(0, 0, 0x03000000).bytes(),
       "is a big-endian GGUF file; only little-endian files are read"},
      {"absurd_keys", Gguf(0, huge).bytes(),
       "the metadata is said to hold 18446744073709551615 elements at byte 24, where 0 bytes are "
       "left"},
      {"absurd_tensors", Gguf(std::uint64_t{1} << 61).bytes(),
       "the list of tensors is said to hold 2305843009213693952 elements at byte 24, where 0 bytes "
       "are left"},
      {"key_length", Gguf(0, 1).raw(bytes_of(huge) + "abcdefgh").bytes(),
       "the name of metadata key 1 is said to be 18446744073709551615 bytes long; at most 65535 "
       "are allowed"},
      {"key_cut", Gguf(0, 1).raw(bytes_of(std::uint64_t{9}) + "abcdefgh").bytes(),
       "ends too early: the name of metadata key 1 needs 9 bytes at byte 32, where 8 are left"},
      {"key_utf8", Gguf(0, 1).key("k\xff", Gguf::u8, "x").bytes(),
       "metadata key 'k\xef\xbf\xbd' is not UTF-8"},
      {"key_twice", Gguf(0, 2).key("k", Gguf::u8, "x").key("k", Gguf::u8, "x").bytes(),
       "metadata key 'k' appears twice"},
      {"value_type", key(13, "x"),
       "metadata key 'k' has value type 13, which GGUF does not define"},
      {"value_cut", key(Gguf::u64, "1234567"),
       "ends too early: metadata key 'k' needs 8 bytes at byte 37, where 7 are left"},
      {"boolean", key(Gguf::boolean, "\x02"), "metadata key 'k' is a boolean of value 2"},
      {"string_length", key(Gguf::string, bytes_of(std::uint64_t{1} << 20)),
       "ends too early: metadata key 'k' needs 1048576 bytes at byte 45, where 0 are left"},
      {"string_absurd", key(Gguf::string, bytes_of(huge)),
       "metadata key 'k' is said to be 18446744073709551615 bytes long; at most 268435456 are "
       "allowed"},
      {"array_of_arrays", list(Gguf::array, 1, "0123456789abcdef"),
       "metadata key 'k' is an array of arrays, which is not read"},
      {"array_type", list(77, 1, "x"),
       "metadata key 'k' is an array of value type 77, which GGUF does not define"},
      {"array_absurd", list(Gguf::u8, huge, "x"),
       "metadata key 'k' is said to hold 18446744073709551615 elements at byte 49, where 1 bytes "
       "are left"},
      {"array_lying", list(Gguf::f64, 3, "0123456789abcdef"),
       "metadata key 'k' is said to hold 3 elements at byte 49, where 16 bytes are left"},
      {"array_of_strings", list(Gguf::string, 2, bytes_of(std::uint64_t{7}) + "0123456789"),
       "ends too early: metadata key 'k' needs 8 bytes at byte 64, where 3 are left"},
      {"array_boolean", list(Gguf::boolean, 2, "\1\7"), "metadata key 'k' is a boolean of value 7"},
      {"array_too_large", list(Gguf::u8, (4u << 20) + 1, std::string((4u << 20) + 1, 'x')),
       "metadata key 'k' holds 4194305 elements; all arrays together may hold 4194304"},
      {"tensor_utf8", Gguf(1).tensor("\xc3", {1}, kF32, 0).data("0123").bytes(),
       "the name of tensor '\xef\xbf\xbd' is not UTF-8"},
      {"tensor_twice",
       Gguf(2)
           .tensor("t", {1}, kF32, 0)
           .tensor("t", {1}, kF32, 32)
           .data(std::string(64, '\0'))
           .bytes(),
       "tensor 't' appears twice"},
      {"dimensions", one({1, 1, 1, 1, 1}, kF32, 0, 64),
       "tensor 't' has 5 dimensions; at most 4 are allowed"},
      {"overflow", one({1u << 31, 1u << 31, 4}, kF32, 0, 64),
       "tensor 't': the shape [4, 2147483648, 2147483648] is too large"},
      {"byte_overflow", one({std::uint64_t{1} << 62}, kF32, 0, 64),
       "tensor 't': the shape [4611686018427387904] is too large"},
      {"odd_row", one({33, 32}, kQ8_0, 0, 4096),
       "tensor 't': rows of 33 elements do not fit Q8_0's blocks of 32"},
      {"misaligned", one({1}, kF32, 4, 64),
       "tensor 't': its offset 4 is not a multiple of the alignment 32"},
      {"offset_outside", one({1}, kF32, 64, 64),
       "tensor 't': its 4 bytes at offset 64 of the data section, which begins at byte 64, reach "
       "beyond the file's 128 bytes"},
      {"offset_absurd", one({1}, kF32, huge - 31, 64),
       "tensor 't': its 4 bytes at offset 18446744073709551584 of the data section, which begins "
       "at byte 64, reach beyond the file's 128 bytes"},
      {"data_cut", one({16}, kF32, 0, 63),
       "tensor 't': its 64 bytes at offset 0 of the data section, which begins at byte 64, reach "
       "beyond the file's 127 bytes"},
      {"overlap",
       Gguf(2)
           .tensor("b", {1}, kF32, 32)
           .tensor("a", {9}, kF32, 0)
           .data(std::string(64, '\0'))
           .bytes(),
       "tensors 'a' and 'b' overlap"},
      {"alignment_0", Gguf(0, 1).key("general.alignment", Gguf::u32, bytes_of(0u)).bytes(),
       "metadata key 'general.alignment' is not an unsigned 32-bit power of two"},
      {"alignment_48", Gguf(0, 1).key("general.alignment", Gguf::u32, bytes_of(48u)).bytes(),
       "metadata key 'general.alignment' is not an unsigned 32-bit power of two"},
      {"alignment_text",
       Gguf(0, 1).key("general.alignment", Gguf::string, Gguf::text("32")).bytes(),
       "metadata key 'general.alignment' is not an unsigned 32-bit power of two"},
      {"split", Gguf(0, 1).key("split.count", Gguf::u16, bytes_of<std::uint16_t>(3)).bytes(),
       "is one of 3 parts of a split GGUF; join them first (llama-gguf-split --merge)"},
  };
}

TEST(GgufTest, BrokenFilesAreRefusedWithOneClearMessage) {
  const TemporaryFolder folder;
  for (const Broken& broken : broken_files()) {
    const std::string path = folder.write(broken.name, broken.bytes);
    EXPECT_EQ(message_of([&] { GgufFile{path}; }), path + ": " + broken.reason) << broken.name;
  }
}

TEST(GgufTest, EveryPrefixIsRefused) {
  const TemporaryFolder folder;
  const std::string whole = small_model();
  EXPECT_EQ(GgufFile(folder.write("whole", whole)).tensors().size(), 1u);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const std::string path = folder.write("cut", whole.substr(0, size));
    EXPECT_THAT(message_of([&] { GgufFile{path}; }), StartsWith(path + ": ")) << size;
  }
}

// Headers that promise much in a file that is large but empty: no bytes were ever written.
TEST(GgufTest, AHugeEmptyFileCostsNothing) {
  const TemporaryFolder folder;
  const auto sparse = [&](const Gguf& gguf) {
    const std::string path = folder.write("sparse", gguf.bytes());
    std::filesystem::resize_file(path, std::uint64_t{1} << 40);
    return message_of([&] { GgufFile{path}; }).substr(path.size() + 2);
  };
  const std::uint64_t many = std::uint64_t{1} << 36;
  EXPECT_EQ(sparse(Gguf(0, 1).array_key("k", Gguf::string, many, "")),
            fmt::format("metadata key 'k' is said to hold {} elements at byte 49, where {} bytes "
                        "are left",
                        many, (1u << 28) - 49));
  EXPECT_EQ(sparse(Gguf(0, 1).key("k", Gguf::string, bytes_of(std::uint64_t{1} << 28))),
            "metadata key 'k' reaches beyond the 268435456 bytes allowed for a header");
}

// Counts that the file's size allows, but memory and time do not. What is counted is not there.
TEST(GgufTest, CountsAreLimited) {
  const TemporaryFolder folder;
  const auto refusal = [&](const Gguf& gguf) {
    const std::string path = folder.write("many", gguf.bytes());
    std::filesystem::resize_file(path, 16u << 20);
    return message_of([&] { GgufFile{path}; }).substr(path.size() + 2);
  };
  EXPECT_EQ(refusal(Gguf(0, 65537)), "has 65537 metadata keys; at most 65536 are allowed");
  EXPECT_EQ(refusal(Gguf(262145, 0)), "has 262145 tensors; at most 262144 are allowed");
  // These are read: the second one is the first without a name again.
  EXPECT_THAT(refusal(Gguf(0, 65536)), HasSubstr("appears twice"));
  EXPECT_THAT(refusal(Gguf(262144, 0)), HasSubstr("appears twice"));
}

TEST(GgufTest, AFileCutAfterItWasOpenedIsRefusedWhenRead) {
  const TemporaryFolder folder;
  const std::string path = folder.write("m.gguf", small_model());
  GgufFile file(path);
  std::filesystem::resize_file(path, small_model().size() - 1);
  EXPECT_THAT(message_of([&] { read_all(file, 0); }), HasSubstr("ends too early"));
}

TEST(GgufTest, IsRecognizedByItsMagic) {
  const TemporaryFolder folder;
  EXPECT_TRUE(is_gguf(folder.write("a", small_model())));
  EXPECT_FALSE(is_gguf(folder.write("b", "GGU")));
  EXPECT_FALSE(is_gguf(folder.write("c", "{\"a\": 1}")));
  EXPECT_FALSE(is_gguf(folder / "missing"));
  EXPECT_FALSE(is_gguf(folder.path()));
}

// A file as the gguf library writes it, and the values its dequantize() gives, bit for bit.
TEST(GgufTest, ReadsAFileOfTheLibrary) {
  PENSTOCK_NEEDS_PYTHON();
  const TemporaryFolder folder;
  testing::run_python("gguf_reference.py", "write '" + folder.path() + "'");
  if (HasFatalFailure()) return;
  GgufFile file(folder / "model.gguf");
  EXPECT_EQ(file.text("general.architecture"), "llama");
  EXPECT_EQ(file.integer("llama.block_count"), 3);
  EXPECT_EQ(file.integer("a.large"), std::int64_t{1} << 40);
  EXPECT_EQ(file.real("llama.rope.freq_base"), 10000.0);
  EXPECT_THAT(file.texts("tokenizer.ggml.tokens"), ElementsAre("a", "é", "Ġ😀", ""));
  EXPECT_THAT(value<std::vector<std::int64_t>>(file, "a.numbers"), ElementsAre(-1, 2, 3));
  EXPECT_THAT(value<std::vector<double>>(file, "a.reals"), ElementsAre(0.5, -1.5));
  EXPECT_TRUE(value<bool>(file, "a.flag"));
  ASSERT_EQ(file.tensors().size(), 8u);
  for (std::size_t i = 0; i < file.tensors().size(); ++i) {
    const SourceTensor& tensor = file.tensors()[i];
    EXPECT_EQ(tensor.shape, load<std::uint64_t>(folder / (tensor.name + ".shape")));
    const auto expected = load<float>(folder / (tensor.name + ".f32"));
    const std::vector<float> got = read_all(file, i);
    ASSERT_EQ(got.size(), expected.size()) << tensor.name;
    for (std::size_t k = 0; k < got.size(); ++k) {
      ASSERT_EQ(std::memcmp(&got[k], &expected[k], sizeof(float)), 0)
          << tensor.name << "[" << k << "]: " << got[k] << " and " << expected[k];
    }
  }
}

}  // namespace
}  // namespace penstock::io
