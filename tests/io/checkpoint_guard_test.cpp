// HDF5 structure that the guard refuses before HDF5 sees it, and links.

#include <gmock/gmock.h>

#include "io/checkpoint.hpp"
#include "tests/io/checkpoint_support.hpp"

namespace penstock::io {
namespace {

using test::CheckpointBrokenTest;
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
