// Broken and hostile files: each is one clear FileError that names the file and the reason.

#include <gmock/gmock.h>

#include "io/checkpoint.hpp"
#include "tests/io/checkpoint_support.hpp"

namespace penstock::io {
namespace {

using test::error_of;
using test::number_at;
using test::RawMessage;
using test::read_file;
using test::set_number;
using test::small_header;
using test::small_tensors;
using test::walk_object;
using test::write_checkpoint;
using test::write_file;
using testing::AnyOf;
using testing::HasSubstr;
using testing::StartsWith;

constexpr unsigned kDataspaceMessage = 1;
constexpr unsigned kLayoutMessage = 8;

// The functions below use HDF5 as another program would; what they make need not be checked.
class CheckpointBrokenTest : public test::CheckpointTest {
 protected:
  CheckpointBrokenTest() : file_(path("a.h5")) {
    write_checkpoint(file_, small_header(), small_tensors());
  }

  std::string error() const {
    return error_of([&] {
      const CheckpointReader reader(file_);
      for (const TensorInfo& tensor : reader.tensors()) {
        std::vector<std::byte> out(tensor.size_bytes);
        reader.read(tensor, out);
      }
    });
  }
  void expect(const std::string& reason) const {
    const std::string message = error();
    EXPECT_THAT(message, StartsWith(file_ + ": "));
    EXPECT_THAT(message, HasSubstr(reason));
  }

  static hid_t access(H5F_libver_t low = H5F_LIBVER_V18) {
    const hid_t plist = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(plist, low, H5F_LIBVER_V18);
    H5Pset_fclose_degree(plist, H5F_CLOSE_STRONG);
    return plist;
  }
  // Changes the file through HDF5.
  void edit(const std::function<void(hid_t)>& change) const {
    const hid_t plist = access();
    const hid_t file = H5Fopen(file_.c_str(), H5F_ACC_RDWR, plist);
    ASSERT_GE(file, 0);
    change(file);
    ASSERT_GE(H5Fclose(file), 0);
    H5Pclose(plist);
  }
  static void set_integer(hid_t file, const char* object, const char* name, std::int64_t value) {
    const hid_t owner = H5Oopen(file, object, H5P_DEFAULT);
    const hid_t attribute = H5Aopen(owner, name, H5P_DEFAULT);
    ASSERT_GE(H5Awrite(attribute, H5T_NATIVE_INT64, &value), 0);
    H5Aclose(attribute);
    H5Oclose(owner);
  }
  static void set_string(hid_t file, const char* object, const char* name, std::string value) {
    const hid_t owner = H5Oopen(file, object, H5P_DEFAULT);
    const hid_t attribute = H5Aopen(owner, name, H5P_DEFAULT);
    const hid_t type = H5Aget_type(attribute);
    value.resize(H5Tget_size(type));
    ASSERT_GE(H5Awrite(attribute, type, value.data()), 0);
    H5Aclose(attribute);
    H5Oclose(owner);
  }
  static void add_order(hid_t dataset, std::int64_t order) {
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t attribute =
        H5Acreate2(dataset, "order", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    ASSERT_GE(H5Awrite(attribute, H5T_NATIVE_INT64, &order), 0);
    H5Aclose(attribute);
  }
  // Replaces a dataset by one of another kind with the same order.
  static void replace(hid_t file, const char* name, hid_t type, std::vector<hsize_t> shape,
                      const std::function<void(hid_t)>& set_up, std::int64_t order = 0) {
    ASSERT_GE(H5Ldelete(file, name, H5P_DEFAULT), 0);
    const hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_alloc_time(plist, H5D_ALLOC_TIME_EARLY);
    set_up(plist);
    const hid_t space = H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
    const hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    ASSERT_GE(dataset, 0);
    add_order(dataset, order);
    H5Dclose(dataset);
  }

  // Changes the raw bytes; HDF5's own checksums are made right again.
  void patch(const std::function<void(std::string&)>& change) const {
    std::string bytes = read_file(file_);
    change(bytes);
    test::repair_checksums(bytes);
    write_file(file_, bytes);
  }
  std::uint64_t address_of(const char* name) const {
    std::uint64_t address = 0;
    edit([&](hid_t file) {
      const hid_t object = H5Oopen(file, name, H5P_DEFAULT);
      H5O_info_t info;
      H5Oget_info2(object, &info, H5O_INFO_BASIC);
      address = info.addr;
    });
    return address;
  }
  // Changes one header message of an object.
  void patch_message(const char* name, unsigned type,
                     const std::function<void(std::string&, const RawMessage&)>& change) const {
    const std::uint64_t address = address_of(name);
    bool found = false;
    patch([&](std::string& bytes) {
      for (const RawMessage& message : walk_object(bytes, address, false)) {
        if (message.type == type) {
          change(bytes, message);
          found = true;
        }
      }
    });
    ASSERT_TRUE(found);
  }

  const std::string file_;
};

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

TEST_F(CheckpointBrokenTest, ADamagedByteOfTheStructureIsSeen) {
  const std::string bytes = read_file(file_);
  const std::uint64_t end = CheckpointReader(file_).tensors()[0].offset;
  std::size_t tried = 0;
  std::size_t unseen = 0;
  for (std::size_t at = 0; at < end; at += 7) {
    if (bytes[at] == 0) continue;  // most zeros are unused space, which may change
    ++tried;
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x20);
    write_file(file_, damaged);
    if (error().empty()) ++unseen;
  }
  EXPECT_GT(tried, 100u);
  EXPECT_EQ(unseen, 0u);
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

TEST_F(CheckpointBrokenTest, DatasetsThatAreNotContiguous) {
  edit([](hid_t file) {
    replace(file, "/embed/weight", H5T_IEEE_F32LE, {50, 64}, [](hid_t plist) {
      const hsize_t chunk[] = {10, 64};
      H5Pset_chunk(plist, 2, chunk);
    });
  });
  expect("'/embed/weight' is chunked");
  edit([](hid_t file) {
    replace(file, "/embed/weight", H5T_IEEE_F32LE, {50, 64},
            [](hid_t plist) { H5Pset_layout(plist, H5D_COMPACT); });
  });
  expect("'/embed/weight' is compact");
}

TEST_F(CheckpointBrokenTest, CompressedDataset) {
  edit([](hid_t file) {
    replace(file, "/embed/weight", H5T_IEEE_F32LE, {50, 64}, [](hid_t plist) {
      const hsize_t chunk[] = {10, 64};
      H5Pset_chunk(plist, 2, chunk);
      H5Pset_deflate(plist, 6);
    });
  });
  EXPECT_THAT(error(), AnyOf(HasSubstr("'/embed/weight' has filters"),
                             HasSubstr("'/embed/weight' is chunked")));
}

TEST_F(CheckpointBrokenTest, VirtualDataset) {
  edit([](hid_t file) {
    H5Ldelete(file, "/embed/weight", H5P_DEFAULT);
    const hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t shape[] = {50, 64};
    const hid_t space = H5Screate_simple(2, shape, nullptr);
    H5Pset_virtual(plist, space, "/etc/passwd", "/x", space);
    const hid_t plist_v110 =
        H5Dcreate2(file, "/embed/weight", H5T_IEEE_F32LE, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    // With the bounds of 1.8 HDF5 may refuse to make one; then there is nothing to read.
    if (plist_v110 >= 0) H5Dclose(plist_v110);
  });
  EXPECT_NE(error(), "");
}

TEST_F(CheckpointBrokenTest, ExternalStorage) {
  edit([](hid_t file) {
    replace(file, "/embed/weight", H5T_IEEE_F32LE, {50, 64},
            [](hid_t plist) { H5Pset_external(plist, "/etc/passwd", 0, 12800); });
  });
  expect("'/embed/weight' keeps its data in another file (external storage)");
}

TEST_F(CheckpointBrokenTest, SoftLinks) {
  edit([](hid_t file) {
    H5Lcreate_soft("/embed/weight", file, "/embed/again", H5P_DEFAULT, H5P_DEFAULT);
  });
  expect("'/embed' has a soft link, 'again'");
}

TEST_F(CheckpointBrokenTest, SoftLinkCycle) {
  edit([](hid_t file) { H5Lcreate_soft("/x/y", file, "/x", H5P_DEFAULT, H5P_DEFAULT); });
  expect("'/' has a soft link, 'x'");
}

TEST_F(CheckpointBrokenTest, HardLinkCycle) {
  const std::uint64_t layers = address_of("/layers");
  const std::uint64_t inner = address_of("/layers/0000/attn");
  // A link message ends with the address.
  patch([&](std::string& bytes) {
    bool found = false;
    for (const RawMessage& message : walk_object(bytes, address_of("/layers/0000"), false)) {
      if (message.type == 6 && number_at(bytes, message.offset + message.size - 8, 8) == inner) {
        set_number(bytes, message.offset + message.size - 8, layers, 8);
        found = true;
      }
    }
    ASSERT_TRUE(found);
  });
  expect("is reached by two links, or a link leads back to it");
}

TEST_F(CheckpointBrokenTest, SecondHardLink) {
  edit([](hid_t file) {
    H5Lcreate_hard(file, "/embed/weight", file, "/embed/again", H5P_DEFAULT, H5P_DEFAULT);
  });
  // HDF5 then also stores a count of references.
  EXPECT_THAT(error(), AnyOf(HasSubstr("is reached by two links"), HasSubstr("type 22")));
}

TEST_F(CheckpointBrokenTest, ExternalLinksOutOfTheFolder) {
  const auto link = [&](const char* target) {
    edit([&](hid_t file) {
      H5Ldelete(file, "/embed/weight", H5P_DEFAULT);
      H5Lcreate_external(target, "/embed/weight", file, "/embed/weight", H5P_DEFAULT, H5P_DEFAULT);
    });
  };
  for (const char* target : {"../a.h5", "/etc/passwd", "..", ".", "sub/a.h5"}) {
    link(target);
    expect("the external link '/embed/weight' points to the file '" + std::string(target) +
           "'; only names of files in the checkpoint's own folder");
  }
  link("absent.h5");
  EXPECT_THAT(error(), HasSubstr(path("absent.h5") + ": cannot open: No such file"));
  link("a.h5");  // the file itself, where the name is that very link
  expect("has no object '/embed/weight', where the external link '/embed/weight'");
}

TEST_F(CheckpointBrokenTest, ExternalLinksInsideTheFolderAreFollowed) {
  const std::string digest = CheckpointReader(file_).digest();
  write_checkpoint(path("b.h5"), small_header(), small_tensors());
  const std::uint64_t one = std::filesystem::file_size(file_);
  edit([](hid_t file) {
    for (const char* name : {"/embed/weight", "/layers/0001"}) {  // a dataset and a group
      H5Ldelete(file, name, H5P_DEFAULT);
      H5Lcreate_external("b.h5", name, file, name, H5P_DEFAULT, H5P_DEFAULT);
    }
  });
  EXPECT_EQ(error(), "");
  {
    const CheckpointReader reader(file_);
    EXPECT_EQ(reader.digest(), digest);
    EXPECT_EQ(reader.find("/embed/weight")->file, path("b.h5"));
    EXPECT_EQ(reader.find("/layers/0001/attn/q")->file, path("b.h5"));
    EXPECT_EQ(reader.find("/layers/0000/attn/q")->file, file_);
    EXPECT_GE(reader.size_bytes(), 2 * one);
    EXPECT_TRUE(reader.verify({}).empty());
  }
  // One that links on is refused.
  write_checkpoint(path("c.h5"), small_header(), small_tensors());
  edit([](hid_t file) {
    H5Ldelete(file, "/embed/weight", H5P_DEFAULT);
    H5Lcreate_external("c.h5", "/embed/weight", file, "/embed/weight", H5P_DEFAULT, H5P_DEFAULT);
  });
  std::filesystem::rename(file_, path("d.h5"));
  write_checkpoint(file_, small_header(), small_tensors());
  edit([](hid_t file) {
    H5Ldelete(file, "/embed", H5P_DEFAULT);
    H5Lcreate_external("d.h5", "/embed", file, "/embed", H5P_DEFAULT, H5P_DEFAULT);
  });
  EXPECT_THAT(error(), HasSubstr(path("d.h5") + ": the external link '/embed/weight' must stand in "
                                                "the checkpoint itself"));
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

TEST_F(CheckpointBrokenTest, VariableLengthStrings) {
  edit([](hid_t file) {
    H5Adelete(file, "source");
    const hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t attribute = H5Acreate2(file, "source", type, space, H5P_DEFAULT, H5P_DEFAULT);
    const char* text = "here";
    H5Awrite(attribute, type, &text);
    H5Aclose(attribute);
  });
  expect("'/' has a variable-length type; a checkpoint's strings have a fixed length");
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

TEST_F(CheckpointBrokenTest, CompoundType) {
  edit([](hid_t file) {
    const hid_t type = H5Tcreate(H5T_COMPOUND, 8);
    H5Tinsert(type, "a", 0, H5T_IEEE_F32LE);
    replace(file, "/embed/weight", type, {50, 64}, [](hid_t) {});
  });
  expect("'/embed/weight' has a type that is neither number nor string");
}

TEST_F(CheckpointBrokenTest, CommittedType) {
  edit([](hid_t file) {
    const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    H5Tcommit2(file, "/type", type, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  });
  expect("'/type' is neither a group nor a whole dataset");
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

TEST_F(CheckpointBrokenTest, OldHdf5Formats) {
  const hid_t plist = access(H5F_LIBVER_EARLIEST);
  const hid_t file = H5Fcreate(file_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, plist);
  H5Fclose(file);
  expect("has HDF5 superblock version 0; a checkpoint has 2 or 3");
}

TEST_F(CheckpointBrokenTest, UserBlock) {
  const std::string bytes = read_file(file_);
  write_file(file_, std::string(512, '\0') + bytes);
  expect("is not an HDF5 file");
}

TEST_F(CheckpointBrokenTest, FileThatWasNotClosed) {
  patch([](std::string& bytes) {
    bytes[8] = 3;
    bytes[11] = 1;
  });
  expect("was not closed by its writer");
}

TEST_F(CheckpointBrokenTest, DenseGroup) {
  edit([](hid_t file) {
    const hid_t group = H5Gcreate2(file, "/many", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    for (int i = 0; i < 20; ++i) {
      H5Gclose(H5Gcreate2(group, std::to_string(i).c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    }
  });
  expect("'/many' keeps its links in a dense index");
}

TEST_F(CheckpointBrokenTest, DeepGroups) {
  edit([](hid_t file) {
    std::string name;
    for (int i = 0; i < 40; ++i) {
      name += "/g";
      H5Gclose(H5Gcreate2(file, name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    }
  });
  expect("lies deeper than 16 groups");
}

TEST_F(CheckpointBrokenTest, HeaderContinuationCycle) {
  // The root has many attributes, so its header goes on elsewhere.
  patch_message("/", 0x10, [](std::string& bytes, const RawMessage& message) {
    const std::uint64_t next = number_at(bytes, message.offset, 8);
    // The first message there becomes a continuation to the chunk itself.
    const std::uint64_t length = number_at(bytes, message.offset + 8, 8);
    ASSERT_GE(length, 32u);
    bytes[next + 4] = 0x10;
    set_number(bytes, next + 5, 16, 2);
    set_number(bytes, next + 10, next, 8);
    set_number(bytes, next + 18, length, 8);
  });
  expect("has an object header that is a cycle");
}

TEST_F(CheckpointBrokenTest, DirtyBytesInEveryHeaderNeverCrash) {
  const std::string bytes = read_file(file_);
  const std::uint64_t end = CheckpointReader(file_).tensors()[0].offset;
  for (std::size_t at = 8; at < end; at += 31) {
    for (const int value : {0x00, 0x7f, 0xff}) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(value);
      test::repair_checksums(damaged);
      write_file(file_, damaged);
      error();  // anything but a crash or another exception
    }
  }
}

}  // namespace
}  // namespace penstock::io
