#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

namespace penstock::tests {

// A variable of the environment for the length of a scope; without a value: it is not set.
class Variable {
 public:
  explicit Variable(std::string name, const std::optional<std::string>& value = {})
      : name_(std::move(name)) {
    if (const char* before = std::getenv(name_.c_str())) before_ = before;
    set(value);
  }
  ~Variable() { set(before_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  void set(const std::optional<std::string>& value) const {
    if (value) {
      setenv(name_.c_str(), value->c_str(), 1);
    } else {
      unsetenv(name_.c_str());
    }
  }
  std::string name_;
  std::optional<std::string> before_;
};

// For the length of a scope PATH leads to scripts of the test only, /bin/sh apart.
class FakeCommands {
 public:
  FakeCommands()
      : folder_(std::filesystem::path(testing::TempDir()) /
                ("penstock_commands_" + std::to_string(getpid()))),
        path_("PATH", folder_.string()) {
    std::filesystem::create_directories(folder_);
  }
  ~FakeCommands() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  // A command with the body of a shell script, which has no PATH but this folder either.
  void add(const std::string& name, const std::string& body) const {
    const std::filesystem::path file = folder_ / name;
    std::ofstream(file) << "#!/bin/sh\n" << body << "\n";
    std::filesystem::permissions(file, std::filesystem::perms::owner_all);
  }

 private:
  std::filesystem::path folder_;
  Variable path_;
};

}  // namespace penstock::tests
