#include "jobs/job_input.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "io/error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace penstock::jobs {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

// The program's standard input is a file for the length of a scope.
class StandardInput {
 public:
  explicit StandardInput(const std::string& path) : before_(::dup(0)) {
    const int file = ::open(path.c_str(), O_RDONLY);
    ::dup2(file, 0);
    ::close(file);
  }
  ~StandardInput() {
    ::dup2(before_, 0);
    ::close(before_);
  }

 private:
  int before_;
};

class JobInputTest : public testing::Test {
 protected:
  JobInputTest() {
    options_.path = (here_ / "in.txt");
    here_.write("in.txt", "zero\none\n\ntwo\nthree\nfour\n");
  }

  std::string in_folder(const std::string& name) const { return (here_ / "out.job/" + name); }
  static std::string bytes(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string read_index() const { return bytes(in_folder("index")); }

  // What a run of the job does at its start. One that begins leaves its manifest.
  struct Run {
    std::vector<std::string> lines;  // of the records
    RecordRange range;
    std::vector<std::string> differences;
    std::string told;
  };
  Run run() {
    JobFolder folder((here_ / "out"), false, {});
    json before;
    if (folder.resumes()) before = folder.read_json("manifest.json");
    Run result;
    const JobInput input(
        options_, folder, before.is_null() ? nullptr : &before,
        [&](std::string_view text) { result.told += text; },
        [&](std::uint64_t done) {
          EXPECT_GT(done, 0U);
          ++alive_;
        });
    const json now = to_manifest("1", "model.h5", "digest", input.description(), {}, 100);
    if (!before.is_null()) result.differences = differences(before, now);
    result.range = input.description().range;
    EXPECT_EQ(input.description().records, input.records().size());
    if (!result.differences.empty()) return result;
    for (const io::IndexEntry& entry : input.records().entries(0, input.records().size())) {
      result.lines.push_back(input.records().line(entry));
    }
    folder.begin();
    folder.write_json("manifest.json", now);
    input.check_unchanged();
    return result;
  }

  void age(const std::string& path, std::chrono::seconds by) const {
    fs::last_write_time(path, fs::last_write_time(path) + by);
  }

  const tests::TemporaryFolder here_;
  InputOptions options_;
  int alive_ = 0;
};

const std::vector<std::string> kLines = {"zero", "one", "two", "three", "four"};

TEST_F(JobInputTest, IsIndexedOnce) {
  const Run first = run();
  EXPECT_EQ(first.lines, kLines);
  EXPECT_EQ(first.range.first, 0U);
  EXPECT_EQ(first.range.end, 5U);
  EXPECT_GT(alive_, 0);
  const auto made = fs::last_write_time(in_folder("index"));
  age(in_folder("index"), std::chrono::seconds(-100));
  const Run second = run();
  EXPECT_EQ(second.lines, kLines);
  EXPECT_THAT(second.differences, IsEmpty());
  EXPECT_EQ(fs::last_write_time(in_folder("index")), made - std::chrono::seconds(100));
  EXPECT_EQ(second.told, "");
}

TEST_F(JobInputTest, ADamagedIndexIsMadeAgain) {
  run();
  const std::string index = read_index();
  std::string flipped = index;
  flipped[index.size() / 2] ^= 1;
  for (const std::string& damaged :
       {std::string(), index.substr(0, index.size() - 24), index.substr(0, 7), flipped,
        index + index.substr(index.size() - 24), std::string(index.size(), '\0')}) {
    std::ofstream(in_folder("index"), std::ios::binary) << damaged;
    const Run again = run();
    EXPECT_EQ(again.lines, kLines);
    EXPECT_THAT(again.differences, IsEmpty());
    EXPECT_EQ(read_index(), index);
  }
  fs::remove(in_folder("index"));
  EXPECT_EQ(run().lines, kLines);
  EXPECT_EQ(read_index(), index);
}

TEST_F(JobInputTest, AChangedFileIsTold) {
  run();
  const std::string content = bytes(options_.path);
  here_.write("in.txt", content + "five\n");
  age(options_.path, std::chrono::seconds(5));
  const Run grown = run();
  EXPECT_THAT(grown.differences, Contains(HasSubstr("the input's size was 25, is 30")));
  EXPECT_THAT(grown.differences, Contains(HasSubstr("the input's lines")));
  here_.write("in.txt", "zerO" + content.substr(4));
  age(options_.path, std::chrono::seconds(10));
  const Run changed = run();
  EXPECT_THAT(changed.differences, Contains(HasSubstr("the input's beginning")));
  // Copied back, or only touched, it is the same.
  here_.write("in.txt", content);
  age(options_.path, std::chrono::seconds(15));
  const Run back = run();
  EXPECT_THAT(back.differences, IsEmpty());
  EXPECT_EQ(back.lines, kLines);
}

// Between the first and the last MiB, with the same size.
TEST_F(JobInputTest, TheMiddleIsComparedWhereTheTimeDiffersOrTheUserAsks) {
  std::string content;
  while (content.size() < 3u << 20) content += std::string(99, 'a') + "\n";
  here_.write("in.txt", content);
  run();
  const auto time = fs::last_write_time(options_.path);
  content[content.size() / 2] = 'b';
  here_.write("in.txt", content);
  fs::last_write_time(options_.path, time + std::chrono::seconds(1));
  EXPECT_THAT(run().differences, ElementsAre(HasSubstr("the input's lines")));
  fs::last_write_time(options_.path, time);
  options_.verify = true;
  EXPECT_THAT(run().differences, ElementsAre(HasSubstr("the input's lines")));
  // Else its time is believed: reading a terabyte takes an hour. But no changed line is answered.
  options_.verify = false;
  EXPECT_THAT([&] { run(); }, ThrowsMessage<io::FileError>(HasSubstr("has changed")));
  content[content.size() / 2] = 'a';
  here_.write("in.txt", content);
  fs::last_write_time(options_.path, time);
  options_.verify = true;
  EXPECT_THAT(run().differences, IsEmpty());
}

TEST_F(JobInputTest, AChangeWhileTheJobRuns) {
  JobFolder folder((here_ / "out"), false, {});
  const JobInput input(options_, folder, nullptr, {}, [](std::uint64_t) {});
  input.check_unchanged();
  here_.write("in.txt", "zero\none\n");
  EXPECT_THAT([&] { input.check_unchanged(); },
              ThrowsMessage<io::FileError>(HasSubstr("in.txt: was changed while the job ran")));
  fs::remove(options_.path);  // read through a descriptor
  input.check_unchanged();
}

TEST_F(JobInputTest, PartsAreSharesOfAllRecords) {
  for (const std::size_t records : {0U, 1U, 2U, 5U, 7U, 64U}) {
    std::string content;
    for (std::size_t i = 0; i < records; ++i) content += "a\n";
    here_.write("in.txt", content);
    JobFolder folder((here_ / "out"), false, {});
    for (const std::uint32_t parts : {1U, 2U, 3U, 7U, 64U, 100U, UINT32_MAX}) {
      SCOPED_TRACE(testing::Message() << records << " records, " << parts << " parts");
      options_.parts = parts;
      std::uint64_t end = 0;
      const auto share = [&](std::uint32_t part) {
        options_.part = part;
        const JobInput input(options_, folder, nullptr, {}, [](std::uint64_t) {});
        EXPECT_EQ(input.description().records, records);
        return input.description().range;
      };
      if (parts == UINT32_MAX) {
        EXPECT_EQ(share(1).first, 0U);
        EXPECT_EQ(share(parts).end, records);
        continue;
      }
      for (std::uint32_t part = 1; part <= parts; ++part) {
        const RecordRange range = share(part);
        EXPECT_EQ(range.first, end);
        EXPECT_GE(range.size(), records / parts);
        EXPECT_LE(range.size(), records / parts + 1);
        end = range.end;
      }
      EXPECT_EQ(end, records);
    }
  }
}

TEST_F(JobInputTest, OnlyTheFirstRecords) {
  options_.limit = 3;
  options_.part = 2;
  options_.parts = 2;
  const Run first = run();
  EXPECT_EQ(first.lines, (std::vector<std::string>{"zero", "one", "two"}));
  EXPECT_EQ(first.range.first, 1U);
  EXPECT_EQ(first.range.end, 3U);
  options_.limit = 5;
  // The index of the first run is whole, and has three.
  fs::remove(in_folder("index"));
  EXPECT_THAT(run().differences, Contains(HasSubstr("--limit")));
}

TEST_F(JobInputTest, ANewLimitIsToldThoughTheIndexIsThere) {
  options_.limit = 3;
  run();
  options_.limit = 4;
  EXPECT_THAT(run().differences, Contains(HasSubstr("--limit")));
  options_.limit = 2;
  EXPECT_THAT(run().differences, Contains(HasSubstr("--limit")));
  options_.limit = 3;
  EXPECT_THAT(run().differences, IsEmpty());
}

TEST_F(JobInputTest, StandardInputIsCopiedOnce) {
  options_.path = "-";
  {
    const StandardInput in((here_ / "in.txt"));
    const Run first = run();
    EXPECT_EQ(first.lines, kLines);
    EXPECT_EQ(first.told, "");
  }
  EXPECT_EQ(bytes(in_folder("input")), here_.read("in.txt"));
  here_.write("other.txt", "something else\n");
  const StandardInput in((here_ / "other.txt"));
  const Run second = run();
  EXPECT_EQ(second.lines, kLines);
  EXPECT_THAT(second.differences, IsEmpty());
  EXPECT_THAT(second.told, HasSubstr("standard input is not read"));
}

TEST_F(JobInputTest, ACopyThatIsGoneIsMadeAgain) {
  options_.path = "-";
  {
    const StandardInput in((here_ / "in.txt"));
    run();
  }
  fs::remove(in_folder("input"));
  here_.write("other.txt", "something else\n");
  {
    const StandardInput in((here_ / "other.txt"));
    EXPECT_THAT(run().differences, Contains(HasSubstr("the input's size")));
  }
  // What was wrong does not stay.
  const StandardInput in((here_ / "in.txt"));
  const Run again = run();
  EXPECT_THAT(again.differences, IsEmpty());
  EXPECT_EQ(again.lines, kLines);
  EXPECT_EQ(bytes(in_folder("input")), here_.read("in.txt"));
}

TEST_F(JobInputTest, HostileManifest) {
  for (const char* text : {"{}", R"({"input": 7, "index_xxh3": 7})", R"({"input": ["a"]})",
                           R"({"input": {"mtime_ns": "x", "whole_xxh3": 3}, "index_xxh3": ""})"}) {
    SCOPED_TRACE(text);
    const json before = json::parse(text);
    JobFolder folder((here_ / "out"), false, {});
    const JobInput input(options_, folder, &before, {}, [](std::uint64_t) {});
    EXPECT_EQ(input.records().size(), 5U);
  }
}

}  // namespace
}  // namespace penstock::jobs
