#include "io/checkpoint_slice.hpp"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <csignal>
#include <cstddef>
#include <thread>

#include "io/checkpoint_structure.hpp"
#include "tests/io/checkpoint_support.hpp"

namespace penstock::io::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

// Larger than a piece of the copying, so that several threads have work, and far enough apart that
// what lies between is a hole on any file system.
std::vector<TensorSpec> large_tensors() {
  std::vector<TensorSpec> tensors{{"/embed/weight", DType::bf16, {2500, 1000}}};
  for (const std::string layer : {"/layers/0000", "/layers/0001", "/layers/0002"}) {
    tensors.push_back({layer + "/attn/norm", DType::f32, {1000}});
    tensors.push_back({layer + "/attn/q", DType::bf16, {5000, 1000}});
  }
  tensors.push_back({"/head/weight", DType::bf16, {1250, 1000}});
  return tensors;
}

class CheckpointSliceTest : public CheckpointTest {
 protected:
  CheckpointSliceTest() {
    write_checkpoint(path("a.h5"), small_header(), large_tensors());
    checkpoint_.emplace(path("a.h5"));
  }

  std::vector<const TensorInfo*> tensors(std::size_t first, std::size_t end) const {
    std::vector<const TensorInfo*> chosen;
    for (std::size_t i = first; i < end; ++i) chosen.push_back(&checkpoint_->tensors()[i]);
    return chosen;
  }
  // The second layer and the third.
  CheckpointSlice slice() const { return {*checkpoint_, tensors(3, 7), folder_}; }

  std::optional<CheckpointReader> open() const {
    std::string damage;
    auto copy = slice().open(damage);
    EXPECT_EQ(damage, "");
    return copy;
  }
  void expect_removed_for(const std::string& reason) const {
    std::string damage;
    EXPECT_FALSE(slice().open(damage));
    EXPECT_THAT(damage, StartsWith(slice().path() + ": "));
    EXPECT_THAT(damage, HasSubstr(reason));
    EXPECT_FALSE(fs::exists(slice().path()));
  }
  std::string read_tensor(const CheckpointReader& copy, std::size_t i) const {
    std::string bytes(copy.tensors()[i].size_bytes, '\0');
    copy.read(copy.tensors()[i], std::as_writable_bytes(std::span(bytes)), 2);
    return bytes;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      names.push_back(entry.path().filename());
    }
    return names;
  }

  std::string folder_ = path("local");
  std::optional<CheckpointReader> checkpoint_;
};

TEST_F(CheckpointSliceTest, HoldsStructureAndChosenTensorsAndHolesElsewhere) {
  EXPECT_FALSE(open());
  slice().copy(4, {});
  const std::string original = read_file(path("a.h5"));
  const std::string copied = read_file(slice().path());
  ASSERT_EQ(copied.size(), original.size());
  const auto& all = checkpoint_->tensors();
  const std::uint64_t structure_end = all[0].offset;
  const std::uint64_t first = all[3].offset;
  const std::uint64_t end = all[6].offset + all[6].size_bytes;
  EXPECT_EQ(slice().ranges(), (std::vector<ByteRange>{{0, structure_end}, {first, end}}));
  EXPECT_EQ(slice().size_bytes(), structure_end + end - first);
  for (std::uint64_t i = 0; i < copied.size(); ++i) {
    const bool inside = i < structure_end || (i >= first && i < end);
    ASSERT_EQ(copied[i], inside ? original[i] : '\0') << i;
  }
  struct stat status {};
  ASSERT_EQ(::stat(slice().path().c_str(), &status), 0);
  // Whole pages, and what the file system keeps of the file itself.
  EXPECT_LT(static_cast<std::uint64_t>(status.st_blocks) * 512,
            slice().size_bytes() + (std::uint64_t{256} << 10));
  EXPECT_LT(slice().size_bytes() + (std::uint64_t{4} << 20), original.size());
}

TEST_F(CheckpointSliceTest, OpensAsTheSameCheckpointWithEqualTensors) {
  slice().copy(1, {});
  const auto copy = open();
  ASSERT_TRUE(copy);
  EXPECT_EQ(copy->digest(), checkpoint_->digest());
  EXPECT_EQ(copy->header().tokenizer.size(), checkpoint_->header().tokenizer.size());
  for (const std::size_t i : {3, 4, 5, 6}) {
    EXPECT_EQ(read_tensor(*copy, i), read_tensor(*checkpoint_, i)) << i;
  }
  // A tensor that was not copied cannot be taken for zeros.
  EXPECT_THAT(error_of([&] { read_tensor(*copy, 2); }), HasSubstr("wrong checksum"));
}

TEST_F(CheckpointSliceTest, TellsDigestAndBytesInItsName) {
  const auto& all = checkpoint_->tensors();
  EXPECT_EQ(slice().path(), folder_ + "/penstock-" + std::to_string(::geteuid()) + "-" +
                                checkpoint_->digest() + "-" + std::to_string(all[3].offset) + "-" +
                                std::to_string(all[6].offset + all[6].size_bytes - 1) + ".h5");
}

TEST_F(CheckpointSliceTest, OfTensorsThatLieApartHasARangeForEach) {
  const CheckpointSlice apart(*checkpoint_, std::vector{tensors(6, 7)[0], tensors(0, 1)[0]},
                              folder_);
  const auto& all = checkpoint_->tensors();
  EXPECT_EQ(apart.ranges(),
            (std::vector<ByteRange>{{0, all[0].offset + all[0].size_bytes},
                                    {all[6].offset, all[6].offset + all[6].size_bytes}}));
  apart.copy(3, {});
  std::string damage;
  const auto copy = apart.open(damage);
  ASSERT_TRUE(copy) << damage;
  EXPECT_EQ(read_tensor(*copy, 0), read_tensor(*checkpoint_, 0));
  EXPECT_EQ(read_tensor(*copy, 6), read_tensor(*checkpoint_, 6));
}

TEST_F(CheckpointSliceTest, TellsProgressInTheCallersThread) {
  const std::thread::id here = std::this_thread::get_id();
  for (const int threads : {1, 4}) {
    std::uint64_t told = 0;
    slice().copy(threads, [&](std::uint64_t done, std::uint64_t total) {
      EXPECT_EQ(std::this_thread::get_id(), here);
      EXPECT_GT(done, told);
      EXPECT_EQ(total, slice().size_bytes());
      told = done;
    });
    EXPECT_EQ(threads == 1 ? told : slice().size_bytes(), slice().size_bytes());
  }
}

TEST_F(CheckpointSliceTest, HasTheUsersUsualPermissions) {
  const mode_t before = ::umask(077);
  slice().copy(1, {});
  ::umask(before);
  EXPECT_EQ(fs::status(slice().path()).permissions(),
            fs::perms::owner_read | fs::perms::owner_write);
}

TEST_F(CheckpointSliceTest, CutShortIsRemoved) {
  slice().copy(1, {});
  fs::resize_file(slice().path(), fs::file_size(slice().path()) - (5u << 20));
  expect_removed_for("is cut short");
  slice().copy(1, {});
  fs::resize_file(slice().path(), 0);
  expect_removed_for("is empty");
}

TEST_F(CheckpointSliceTest, WithOtherChecksumsIsRemoved) {
  slice().copy(1, {});
  const BlockChecksum last =
      read_structure(path("a.h5"), CheckpointReader::Contents::all).checksums.back();
  std::string bytes = read_file(slice().path());
  const std::size_t at = bytes.find(std::string(last.begin(), last.end()));
  ASSERT_NE(at, std::string::npos);
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  write_file(slice().path(), bytes);
  expect_removed_for("digest");
}

TEST_F(CheckpointSliceTest, OfAnotherCheckpointIsRemoved) {
  CheckpointHeader header = small_header();
  header.config_text = "{}";
  fs::create_directory(folder_);
  write_checkpoint(slice().path(), header, large_tensors());
  expect_removed_for("is a copy of another checkpoint");
}

TEST_F(CheckpointSliceTest, IsNotTakenFromOthersNorThroughLinks) {
  fs::create_directory(folder_);
  fs::create_symlink(path("a.h5"), slice().path());
  std::string damage;
  EXPECT_THAT(error_of([&] { (void)slice().open(damage); }), HasSubstr("not a file of yours"));
  // Nor is anything written through one.
  const std::string before = read_file(path("a.h5"));
  slice().copy(1, {});
  EXPECT_TRUE(fs::is_symlink(slice().path()));
  EXPECT_EQ(read_file(path("a.h5")), before);
  fs::remove(slice().path());
  slice().copy(1, {});
  if (::chown(slice().path().c_str(), 12345, 12345) != 0) GTEST_SKIP() << "only root gives away";
  EXPECT_THAT(error_of([&] { (void)slice().open(damage); }), HasSubstr("not a file of yours"));
}

TEST_F(CheckpointSliceTest, CopiesOfManyAtTheSameTimeDoNotDisturbEachOther) {
  std::vector<std::string> errors(6);
  {
    std::vector<std::jthread> jobs;
    for (std::string& error : errors) {
      jobs.emplace_back([&] {
        error = error_of([&] {
          for (int round = 0; round < 5; ++round) {
            const CheckpointSlice mine = slice();
            std::string damage;
            auto copy = mine.open(damage);
            if (!copy) {
              mine.copy(2, {});
              copy = mine.open(damage);
            }
            // Another may have removed it meanwhile.
            if (copy && read_tensor(*copy, 4) != read_tensor(*checkpoint_, 4)) {
              throw FileError(mine.path(), "differs");
            }
            if (damage != "") throw FileError(mine.path(), damage);
            mine.remove();
          }
        });
      });
    }
  }
  EXPECT_THAT(errors, testing::Each(IsEmpty()));
  EXPECT_THAT(names(), IsEmpty());
}

// As a file system whose largest file is too small for it.
TEST_F(CheckpointSliceTest, ThatCannotBeWrittenLeavesNothing) {
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  for (const rlim_t limit : {rlim_t{100}, rlim_t{20} << 20}) {
    const rlimit now{limit, before.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &now);
    const std::string error = error_of([&] { slice().copy(2, {}); });
    ::setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_THAT(error, StartsWith(folder_ + ": "));
    EXPECT_THAT(error, HasSubstr("File too large"));
    EXPECT_THAT(names(), IsEmpty());
  }
  std::signal(SIGXFSZ, old_handler);
}

TEST_F(CheckpointSliceTest, OfACheckpointThatShrankSinceLeavesNothing) {
  fs::resize_file(path("a.h5"), 5u << 20);
  EXPECT_THAT(error_of([&] { slice().copy(3, {}); }),
              StartsWith(path("a.h5") + ": ends too early"));
  EXPECT_THAT(names(), IsEmpty());
}

TEST_F(CheckpointSliceTest, NeedsAFolder) {
  write_file(path("file"), "x");
  const CheckpointSlice in_a_file(*checkpoint_, tensors(3, 4), path("file"));
  std::string damage;
  EXPECT_FALSE(in_a_file.open(damage));
  EXPECT_THAT(error_of([&] { in_a_file.copy(1, {}); }), StartsWith(path("file") + ": cannot"));
}

// Only for this process and its children, so it is called in a child.
void refuse_files_without_names() {
  const auto argument = static_cast<unsigned>(offsetof(seccomp_data, args) + 2 * sizeof(__u64));
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_openat, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, argument),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_TMPFILE & ~O_DIRECTORY, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
    ::_exit(77);
  }
}

// As on many network file systems.
TEST_F(CheckpointSliceTest, IsMadeWhereFilesMustHaveNames) {
  const pid_t child = ::fork();
  if (child == 0) {
    refuse_files_without_names();
    const std::string folder = folder_;
    const bool refused = ::open(folder.c_str(), O_TMPFILE | O_WRONLY, 0600) < 0;
    bool good = refused;
    slice().copy(1, [&](std::uint64_t, std::uint64_t) {
      const std::string name = fs::path(slice().path()).filename();
      good = good && names().size() == 1 && names()[0].starts_with(name + ".") &&
             names()[0].ends_with(".tmp");
    });
    fs::resize_file(path("a.h5"), 5u << 20);
    good = good && error_of([&] { slice().copy(1, {}); }) != "";
    ::_exit(good ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "no seccomp here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(names().size(), 1u);
  const auto copy = open();
  ASSERT_TRUE(copy);
  EXPECT_EQ(read_tensor(*copy, 4).size(), 10'000'000u);
}

// Made by HDF5: a part of it is an external link.
TEST_F(CheckpointBrokenTest, SliceOfSeveralFilesIsRefused) {
  fs::copy_file(file_, path("b.h5"));
  edit([&](hid_t file) {
    ASSERT_GE(H5Ldelete(file, "/layers/0001", H5P_DEFAULT), 0);
    ASSERT_GE(
        H5Lcreate_external("b.h5", "/layers/0001", file, "/layers/0001", H5P_DEFAULT, H5P_DEFAULT),
        0);
  });
  const CheckpointReader checkpoint(file_);
  const std::vector<const TensorInfo*> first{&checkpoint.tensors()[0]};
  EXPECT_THAT(error_of([&] { const CheckpointSlice slice(checkpoint, first, path("local")); }),
              testing::AllOf(StartsWith(file_ + ": spans several files, '" + path("b.h5") + "'"),
                             HasSubstr("--stage-dir")));
}

}  // namespace
}  // namespace penstock::io::test
