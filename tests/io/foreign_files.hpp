#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "io/error.hpp"
#include "tests/support/temporary_folder.hpp"

// What the tests of foreign model formats share: a folder for files, files made by hand, and
// Python for those made by the formats' own libraries.
namespace penstock::io::testing {

using tests::TemporaryFolder;

template <typename T>
std::string bytes_of(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

// A safetensors file: the header's length, the header, the data.
inline std::string safetensors(std::string_view header, std::string_view data) {
  return bytes_of(std::uint64_t{header.size()}) + std::string(header) + std::string(data);
}

// A GGUF file put together piece by piece; every number is the caller's, true or not.
class Gguf {
 public:
  enum Type : std::uint32_t {
    u8,
    i8,
    u16,
    i16,
    u32,
    i32,
    f32,
    boolean,
    string,
    array,
    u64,
    i64,
    f64
  };

  explicit Gguf(std::uint64_t tensors = 0, std::uint64_t keys = 0, std::uint32_t version = 3)
      : bytes_("GGUF" + bytes_of(version) + bytes_of(tensors) + bytes_of(keys)) {}

  static std::string text(std::string_view value) {
    return bytes_of(std::uint64_t{value.size()}) + std::string(value);
  }

  Gguf& key(std::string_view name, std::uint32_t type, std::string_view value) {
    bytes_ += text(name) + bytes_of(type) + std::string(value);
    return *this;
  }
  Gguf& array_key(std::string_view name, std::uint32_t type, std::uint64_t count,
                  std::string_view elements) {
    return key(name, array, bytes_of(type) + bytes_of(count) + std::string(elements));
  }
  // `shape` with the fastest dimension first, as the file has it.
  Gguf& tensor(std::string_view name, const std::vector<std::uint64_t>& shape, std::uint32_t type,
               std::uint64_t offset) {
    bytes_ += text(name) + bytes_of(static_cast<std::uint32_t>(shape.size()));
    for (const std::uint64_t extent : shape) bytes_ += bytes_of(extent);
    bytes_ += bytes_of(type) + bytes_of(offset);
    return *this;
  }
  // Zeros up to a multiple of `alignment`, then the data.
  Gguf& data(std::string_view data, std::size_t alignment = 32) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
    bytes_ += data;
    return *this;
  }
  Gguf& raw(std::string_view more) {
    bytes_ += more;
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// The message of the FileError that `function` throws; fails the test if there is none.
template <typename Function>
std::string message_of(Function function) {
  try {
    function();
  } catch (const FileError& error) {
    return error.what();
  }
  ADD_FAILURE() << "no FileError";
  return "";
}

inline bool have_python() { return !std::string_view(PENSTOCK_TEST_PYTHON).empty(); }

// Runs tests/reference/SCRIPT.
inline void run_python(const std::string& script, const std::string& arguments) {
  const std::string command = std::string("'") + PENSTOCK_TEST_PYTHON +
                              "' '" PENSTOCK_SOURCE_DIR "/tests/reference/" + script + "' " +
                              arguments;
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
}

template <typename T>
std::vector<T> load(const std::string& path) {
  std::vector<T> values(std::filesystem::file_size(path) / sizeof(T));
  std::ifstream(path, std::ios::binary)
      .read(reinterpret_cast<char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(T)));
  return values;
}

#define PENSTOCK_NEEDS_PYTHON()                                                      \
  if (!::penstock::io::testing::have_python()) {                                     \
    GTEST_SKIP() << "configure with -DPENSTOCK_TEST_PYTHON=PYTHON to run this test"; \
  }

}  // namespace penstock::io::testing
