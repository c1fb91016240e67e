#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include "jobs/job_folder.hpp"

namespace penstock::jobs {

namespace fs = std::filesystem;

class JobFolderTest : public testing::Test {
 protected:
  JobFolderTest()
      : here_(testing::TempDir() + "/penstock_job_folder_" +
              testing::UnitTest::GetInstance()->current_test_info()->name() + "_" +
              std::to_string(::getpid())) {
    fs::create_directory(here_);
  }
  ~JobFolderTest() override {
    std::error_code ignored;
    fs::remove_all(here_, ignored);
  }

  std::string at(const std::string& name) const { return (here_ / name).string(); }
  std::string output() const { return at("answers.jsonl"); }

  void write(const std::string& name, const std::string& text = "x") const {
    fs::create_directories(fs::path(at(name)).parent_path());
    std::ofstream(at(name)) << text;
  }
  std::string read(const std::string& name) const {
    std::ifstream file(at(name));
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // All that is in the test's folder, but for the lock of a job that is at work.
  std::set<std::string> names() const {
    std::set<std::string> found;
    for (const auto& entry : fs::recursive_directory_iterator(here_)) {
      if (entry.path().filename() == "lock") continue;
      found.insert(fs::relative(entry.path(), here_).string());
    }
    return found;
  }
  // What a job that began leaves.
  void write_job() const {
    for (const char* name : {"state", "manifest.json", "index", "journal-0000.jsonl"}) {
      write(std::string("answers.jsonl.job/") + name, "earlier");
    }
  }

  auto made(bool fresh) const {
    return [this, fresh] { JobFolder(output(), fresh, {}); };
  }

  const fs::path here_;
};

using Names = std::set<std::string>;

}  // namespace penstock::jobs
