#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "io/error.hpp"
#include "tests/io/checkpoint_bytes.hpp"

namespace penstock::io::test {

// A folder of the running test's own, removed afterwards.
class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest() {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = testing::TempDir() + "penstock_" + info->test_suite_name() + "_" + info->name() +
              "_" + std::to_string(::getpid()) + "/";
    std::filesystem::create_directories(folder_);
  }
  ~CheckpointTest() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name) const { return folder_ + name; }
  std::size_t files_in_folder() const {
    return static_cast<std::size_t>(
        std::distance(std::filesystem::directory_iterator(folder_), {}));
  }

 private:
  std::string folder_;
};

// What a call's FileError says; empty if there was none.
inline std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const FileError& error) {
    return error.what();
  }
  return {};
}

// The functions below use HDF5 as another program would; what they make need not be checked.
class CheckpointBrokenTest : public CheckpointTest {
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
    EXPECT_THAT(message, testing::StartsWith(file_ + ": "));
    EXPECT_THAT(message, testing::HasSubstr(reason));
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
    repair_checksums(bytes);
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

}  // namespace penstock::io::test
