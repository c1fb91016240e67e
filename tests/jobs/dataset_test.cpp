#include "jobs/dataset.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "byte_tokenizer.hpp"
#include "io/error.hpp"

namespace penstock::jobs {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class DatasetTest : public ::testing::Test {
 protected:
  DatasetTest() : tokenizer_(byte_tokenizer()), chat_template_("") {
    folder_ = testing::TempDir() + "/dataset." + std::to_string(::getpid());
    std::filesystem::create_directories(folder_);
    RequestContext context;
    context.tokenizer = &tokenizer_;
    context.chat_template = &chat_template_;
    context.vocab_size = 259;
    context.context_limit = 1000;
    builder_.emplace(context);
  }
  ~DatasetTest() override { std::filesystem::remove_all(folder_); }

  void write(const std::string& content) {
    std::ofstream(folder_ + "/in") << content;
    io::build_index(folder_ + "/in", folder_ + "/index");
    input_.emplace(folder_ + "/in", folder_ + "/index");
    finished_ = io::RecordSet(0, input_->size());
  }
  Dataset dataset(io::InputFormat format = io::InputFormat::text,
                  std::uint32_t window_records = 65536) {
    return dataset_of({0, input_->size()}, format, window_records);
  }
  Dataset dataset_of(RecordRange range, io::InputFormat format = io::InputFormat::text,
                     std::uint32_t window_records = 65536) {
    return Dataset(*input_, format, *builder_, range, finished_, window_records);
  }
  // The indices in the order they come, failed ones negative minus one.
  static std::vector<std::int64_t> drain(Dataset& dataset) {
    std::vector<std::int64_t> order;
    while (const auto item = dataset.next()) {
      if (const auto* request = std::get_if<Request>(&*item)) {
        order.push_back(static_cast<std::int64_t>(request->index));
      } else {
        order.push_back(-1 - static_cast<std::int64_t>(std::get<FailedRecord>(*item).index));
      }
    }
    return order;
  }

  std::string folder_;
  model::Tokenizer tokenizer_;
  model::ChatTemplate chat_template_;
  std::optional<RequestBuilder> builder_;
  std::optional<io::IndexedInput> input_;
  io::RecordSet finished_;
};

TEST_F(DatasetTest, WindowsAreOrderedOneByOne) {
  write("1\n333\n22\n\n4444\n1\n55555\n22\n");
  Dataset all = dataset();
  EXPECT_THAT(drain(all), ElementsAre(5, 3, 1, 2, 6, 0, 4));
  EXPECT_EQ(all.next(), std::nullopt);
  Dataset windows = dataset(io::InputFormat::text, 3);
  EXPECT_THAT(drain(windows), ElementsAre(1, 2, 0, 5, 3, 4, 6));
}

// A window that held one record would leave nothing to fill the pipeline's drain with.
TEST_F(DatasetTest, WindowsAreOfEqualSize) {
  write("1\n22\n333\n4444\n55555\n666666\n7777777\n");
  Dataset two = dataset(io::InputFormat::text, 6);
  EXPECT_THAT(drain(two), ElementsAre(3, 2, 1, 0, 6, 5, 4));
}

TEST_F(DatasetTest, LongestAnswersFirst) {
  write(R"({"prompt":"a longer line than the others","max_tokens":1}
{"prompt":"a","max_tokens":30}
{"prompt":"b"}
{"prompt":"c","max_tokens":1000000}
)");
  Dataset data = dataset(io::InputFormat::jsonl);
  EXPECT_THAT(drain(data), ElementsAre(3, 2, 1, 0));  // 1000, 256, 30 and 1 token
}

// In a text a line is a prompt, whatever it looks like.
TEST_F(DatasetTest, TextHasNoFields) {
  write("{\"max_tokens\":1} and more text\n{\"max_tokens\":9}\n");
  Dataset data = dataset();
  EXPECT_THAT(drain(data), ElementsAre(0, 1));
}

TEST_F(DatasetTest, AnswersTeachTheOrder) {
  std::string lines;
  for (int i = 0; i < 200; ++i) lines += i % 2 == 0 ? "a long line of text\n" : "short\n";
  write(lines);
  Dataset data = dataset(io::InputFormat::text, 100);
  // Long lines, which are asked first, have short answers here.
  for (int i = 0; i < 100; ++i) {
    const auto item = data.next();
    const Request& request = std::get<Request>(*item);
    EXPECT_EQ(request.index % 2, i < 50 ? 0U : 1U);
    data.learn(request, request.index % 2 == 0 ? 1 : 200, true);
  }
  for (int i = 0; i < 100; ++i) {
    const auto item = data.next();
    EXPECT_EQ(std::get<Request>(*item).index % 2, i < 50 ? 1U : 0U);
  }
}

TEST_F(DatasetTest, RequestsAreParsedAndTokenized) {
  write("\n{\"id\":\"a\",\"prompt\":\"Hi\",\"max_tokens\":3}\n");
  Dataset one = dataset(io::InputFormat::jsonl);
  const auto item = one.next();
  const Request& request = std::get<Request>(*item);
  EXPECT_EQ(request.index, 0u);
  EXPECT_EQ(request.line, 2u);
  EXPECT_EQ(request.id, "a");
  EXPECT_THAT(request.prompt, ElementsAre(256, 'H', 'i'));
  EXPECT_EQ(request.params.max_tokens, 3u);
}

TEST_F(DatasetTest, BrokenRecordsAreItems) {
  write("{\"id\":7,\"prompt\":1}\n{\"prompt\":\"a\"}\n\nnonsense\n");
  Dataset data = dataset(io::InputFormat::jsonl);
  const auto first = data.next();
  const FailedRecord& failed = std::get<FailedRecord>(*first);
  EXPECT_EQ(failed.index, 0u);
  EXPECT_EQ(failed.id, 7);
  EXPECT_EQ(describe(failed), "line 1: 'prompt' must be a string, not an integer");
  EXPECT_THAT(drain(data), ElementsAre(1, -3));
}

TEST_F(DatasetTest, OnlyThePartsRecords) {
  write("1\n333\n22\n\n4444\n1\n55555\n22\n");
  Dataset middle = dataset_of({2, 5});
  EXPECT_THAT(drain(middle), ElementsAre(3, 2, 4));
  Dataset windows = dataset_of({1, 6}, io::InputFormat::text, 2);
  EXPECT_THAT(drain(windows), ElementsAre(1, 2, 3, 4, 5));
  Dataset last = dataset_of({6, 7});
  EXPECT_THAT(drain(last), ElementsAre(6));
  for (const std::uint64_t nowhere : {0U, 4U, 7U}) {
    Dataset none = dataset_of({nowhere, nowhere});
    EXPECT_THAT(drain(none), IsEmpty());
  }
}

// The others keep their order and their indexes.
TEST_F(DatasetTest, FinishedRecordsAreLeftOut) {
  write("1\n333\n22\n\n4444\n1\n55555\n22\n");
  for (const std::uint64_t record : {5U, 1U, 0U}) finished_.insert(record);
  Dataset all = dataset();
  EXPECT_THAT(drain(all), ElementsAre(3, 2, 6, 4));
  Dataset windows = dataset(io::InputFormat::text, 2);  // the first one is finished
  EXPECT_THAT(drain(windows), ElementsAre(3, 2, 4, 6));
  Dataset part = dataset_of({0, 3});
  EXPECT_THAT(drain(part), ElementsAre(2));
  for (const std::uint64_t record : {2U, 3U, 4U, 6U}) finished_.insert(record);
  Dataset none = dataset();
  EXPECT_THAT(drain(none), IsEmpty());
}

// Skipping costs neither reading nor tokenizing: what they hold does not matter any more.
TEST_F(DatasetTest, FinishedRecordsAreNotRead) {
  write("{\"prompt\":\"a\"}\n{\"prompt\":\"b\"}\n{\"prompt\":\"c\"}\n");
  std::filesystem::resize_file(folder_ + "/in", 16);
  finished_.insert(1);
  finished_.insert(2);
  Dataset data = dataset(io::InputFormat::jsonl);
  EXPECT_THAT(drain(data), ElementsAre(0));
  finished_ = io::RecordSet(0, 3);
  Dataset all = dataset(io::InputFormat::jsonl);
  EXPECT_THROW(drain(all), io::FileError);
}

}  // namespace
}  // namespace penstock::jobs
