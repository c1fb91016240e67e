// Broken and hostile checkpoints: each is one clear FileError that names the file and the reason.

#include <gmock/gmock.h>

#include "io/checkpoint.hpp"
#include "tests/io/checkpoint_support.hpp"

namespace penstock::io {
namespace {

using test::CheckpointBrokenTest;
using test::RawMessage;
using test::read_file;
using test::set_number;
using test::write_file;
using testing::AnyOf;
using testing::HasSubstr;

constexpr unsigned kDataspaceMessage = 1;
constexpr unsigned kLayoutMessage = 8;

TEST_F(CheckpointBrokenTest, ASoundFileIsRead) {
  EXPECT_EQ(error(), "");
  patch([](std::string&) {});  // the repair of checksums changes nothing in a sound file
  EXPECT_EQ(error(), "");
  edit([](hid_t) {});
  EXPECT_EQ(error(), "");
}

TEST_F(CheckpointBrokenTest, MissingEmptyAndForeignFiles) {
  std::filesystem::remove(file_);
  expect("No such file");
  write_file(file_, "");
  expect("is empty");
  write_file(file_, "{\"architectures\": [\"LlamaForCausalLM\"]}");
  expect("is not an HDF5 file");
  std::filesystem::remove(file_);
  std::filesystem::create_directory(file_);
  expect("");
}

TEST_F(CheckpointBrokenTest, CutAtAnyLength) {
  const std::string bytes = read_file(file_);
  for (std::size_t length = 0; length < bytes.size(); length += length < 64 ? 1 : 997) {
    write_file(file_, bytes.substr(0, length));
    EXPECT_THAT(error(), AnyOf(HasSubstr("is cut short"), HasSubstr("is empty"),
                               HasSubstr("is not an HDF5 file")))
        << length;
  }
  write_file(file_, bytes.substr(0, bytes.size() - 1));
  expect("is cut short: it has " + std::to_string(bytes.size() - 1) + " bytes of " +
         std::to_string(bytes.size()));
}

TEST_F(CheckpointBrokenTest, OtherFormats) {
  edit([](hid_t file) { set_string(file, "/", "format", "pensteck"); });
  expect("has the format 'pensteck', not 'penstock'");
  edit([](hid_t file) { H5Adelete(file, "format"); });
  expect("is an HDF5 file but not a checkpoint");
}

TEST_F(CheckpointBrokenTest, OtherSchemas) {
  edit([](hid_t file) { set_integer(file, "/", "schema", 2); });
  expect("has checkpoint schema 2; this program knows schema 1: use a newer penstock");
  edit([](hid_t file) { set_integer(file, "/", "schema", 0); });
  expect("has checkpoint schema 0, which does not exist");
}

TEST_F(CheckpointBrokenTest, ShapeLargerThanTheStoredBytes) {
  patch_message("/embed/weight", kDataspaceMessage,
                [](std::string& bytes, const RawMessage& space) {
                  set_number(bytes, space.offset + 4, 51, 8);   // version 2: extents after 4 bytes
                  set_number(bytes, space.offset + 20, 51, 8);  // the largest extents, if stored
                });
  expect("/embed/weight");
}

TEST_F(CheckpointBrokenTest, ShapeThatOverflows) {
  patch_message("/embed/weight", kDataspaceMessage,
                [](std::string& bytes, const RawMessage& space) {
                  set_number(bytes, space.offset + 4, std::uint64_t{1} << 58, 8);
                });
  expect("'/embed/weight' has a shape with more elements than 64 bits can count");
}

TEST_F(CheckpointBrokenTest, StorageBeyondTheFile) {
  patch_message("/embed/weight", kLayoutMessage, [](std::string& bytes, const RawMessage& layout) {
    set_number(bytes, layout.offset + 2, bytes.size() - 100, 8);  // address
  });
  expect("'/embed/weight' claims the bytes ");
  patch_message("/embed/weight", kLayoutMessage, [](std::string& bytes, const RawMessage& layout) {
    set_number(bytes, layout.offset + 2, UINT64_MAX - 100, 8);
  });
  expect("'/embed/weight' claims the bytes ");
}

TEST_F(CheckpointBrokenTest, TensorsThatShareBytes) {
  const std::uint64_t norm = CheckpointReader(file_).find("/layers/0000/attn/norm")->offset;
  patch_message("/embed/weight", kLayoutMessage, [&](std::string& bytes, const RawMessage& layout) {
    set_number(bytes, layout.offset + 2, norm, 8);
  });
  EXPECT_THAT(error(),
              AnyOf(HasSubstr("'/embed/weight' and '/layers/0000/attn/norm' share bytes"),
                    HasSubstr("'/layers/0000/attn/norm' and '/embed/weight' share bytes")));
}

TEST_F(CheckpointBrokenTest, NoStorage) {
  patch_message("/embed/weight", kLayoutMessage, [](std::string& bytes, const RawMessage& layout) {
    set_number(bytes, layout.offset + 2, UINT64_MAX, 8);
  });
  expect("'/embed/weight' has no data");
}

TEST_F(CheckpointBrokenTest, DataInAShapesOnlyFile) {
  edit([](hid_t file) { set_integer(file, "/", "no_data", 1); });
  expect("'/embed/weight' has data in a file that is marked as shapes only");
  edit([](hid_t file) { set_integer(file, "/", "no_data", 7); });
  expect("attribute 'no_data' of / must be 0 or 1");
}

TEST_F(CheckpointBrokenTest, ChecksumTable) {
  edit([](hid_t file) { replace(file, "/checksums", H5T_STD_U8LE, {8, 16}, [](hid_t) {}); });
  expect("attribute 'algorithm' of /checksums");
  edit([](hid_t file) { H5Ldelete(file, "/checksums", H5P_DEFAULT); });
  expect("the table /checksums is missing");
}

TEST_F(CheckpointBrokenTest, ChecksumTableOfAnotherLength) {
  patch_message("/checksums", kDataspaceMessage, [](std::string& bytes, const RawMessage& space) {
    set_number(bytes, space.offset + 4, 8, 8);
  });
  expect("checksums");
  patch_message("/checksums", kDataspaceMessage, [](std::string& bytes, const RawMessage& space) {
    set_number(bytes, space.offset + 4, std::uint64_t{1} << 40, 8);
  });
  expect("checksums");
}

TEST_F(CheckpointBrokenTest, ChecksumsOfAnotherKind) {
  edit([](hid_t file) { set_string(file, "/checksums", "algorithm", "xxh3-064"); });
  expect("/checksums is 'xxh3-064' of blocks of 4194304 bytes; schema 1 has xxh3-128");
  edit([](hid_t file) {
    set_string(file, "/checksums", "algorithm", "xxh3-128");
    set_integer(file, "/checksums", "block_bytes", 0);
  });
  expect("of blocks of 0 bytes");
}

TEST_F(CheckpointBrokenTest, HugeBlob) {
  patch_message("/tokenizer/tokenizer.json", kDataspaceMessage,
                [](std::string& bytes, const RawMessage& space) {
                  set_number(bytes, space.offset + 4, std::uint64_t{1} << 40, 8);
                });
  expect("tokenizer.json");
}

TEST_F(CheckpointBrokenTest, BlobAboveTheLimit) {
  edit([](hid_t file) {
    replace(file, "/tokenizer/tokenizer.json", H5T_STD_U8LE, {300u << 20},
            [](hid_t plist) { H5Pset_fill_time(plist, H5D_FILL_TIME_NEVER); });
  });
  std::filesystem::resize_file(file_, 400u << 20);  // sparse: the bytes are there
  expect("'/tokenizer/tokenizer.json' has 314572800 bytes; at most 268435456");
}

TEST_F(CheckpointBrokenTest, BlobOfAnotherKind) {
  edit([](hid_t file) {
    replace(file, "/tokenizer/tokenizer.json", H5T_STD_I32LE, {4}, [](hid_t) {});
  });
  expect("'/tokenizer/tokenizer.json' must be a one-dimensional array of unsigned bytes");
  edit([](hid_t file) {
    H5Ldelete(file, "/tokenizer/tokenizer.json", H5P_DEFAULT);
    H5Gclose(H5Gcreate2(file, "/tokenizer/tokenizer.json", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  });
  expect("'/tokenizer/tokenizer.json' cannot be opened as a dataset");
}

TEST_F(CheckpointBrokenTest, AttributesThatAreMissingOrOfAnotherKind) {
  edit([](hid_t file) { set_string(file, "/", "dtype", "fp8"); });
  expect("attribute 'dtype' of / is 'fp8'; known are f32, f16 and bf16");
  edit([](hid_t file) { H5Adelete(file, "architecture"); });
  expect("attribute 'architecture' of / cannot be opened");
}

TEST_F(CheckpointBrokenTest, ConfigWithAnArray) {
  edit([](hid_t file) {
    const hsize_t three = 3;
    const hid_t space = H5Screate_simple(1, &three, nullptr);
    const hid_t group = H5Gopen2(file, "/config", H5P_DEFAULT);
    H5Aclose(H5Acreate2(group, "list", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT));
  });
  expect("attribute 'list' of /config must be a single value");
}

TEST_F(CheckpointBrokenTest, ElementTypesThatAreNotKnown) {
  const auto retype = [&](hid_t type) {
    edit([&](hid_t file) { replace(file, "/embed/weight", type, {50, 64}, [](hid_t) {}); });
    expect("'/embed/weight' has an element type that is none of f32, f16, bf16");
  };
  retype(H5T_IEEE_F64LE);
  retype(H5T_IEEE_F32BE);
  retype(H5T_STD_I16LE);
}

TEST_F(CheckpointBrokenTest, OrderThatDoesNotNumberTheTensors) {
  edit([](hid_t file) { set_integer(file, "/final/norm", "order", 3); });
  expect("attribute 'order' of ");
  edit([](hid_t file) { set_integer(file, "/final/norm", "order", -1); });
  expect("attribute 'order' of '/final/norm' is -1, where 0 comes next");
}

TEST_F(CheckpointBrokenTest, ChangedConfigDoesNotMatchTheDigest) {
  edit([](hid_t file) { set_integer(file, "/config", "hidden_size", 65); });
  expect("its digest says '");
}

TEST_F(CheckpointBrokenTest, DamagedTokenizerDoesNotMatchTheDigest) {
  std::string bytes = read_file(file_);
  const std::size_t at = bytes.find("\"BPE\"");
  ASSERT_NE(at, std::string::npos);
  bytes[at + 1] = 'b';
  write_file(file_, bytes);
  expect("its digest says '");
}

}  // namespace
}  // namespace penstock::io
