#include "jobs/dataset_tokens.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "byte_tokenizer.hpp"
#include "io/error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace penstock::jobs {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class DatasetTokensTest : public ::testing::Test {
 protected:
  DatasetTokensTest() : tokenizer_(byte_tokenizer()), chat_template_("") {
    RequestContext context;
    context.tokenizer = &tokenizer_;
    context.chat_template = &chat_template_;
    context.vocab_size = 259;
    context.context_limit = 100;
    context.defaults.max_tokens = 60;
    builder_.emplace(context);
  }

  DatasetTokens read(const std::string& content, DatasetTokensOptions options = {}) {
    options.path = folder_.write("in.jsonl", content);
    failures_.clear();
    return read_dataset_tokens(options, *builder_, [&](const FailedRecord& failed) {
      failures_.push_back(describe(failed));
    });
  }

  tests::TemporaryFolder folder_;
  model::Tokenizer tokenizer_;
  model::ChatTemplate chat_template_;
  std::optional<RequestBuilder> builder_;
  std::vector<std::string> failures_;
};

std::vector<std::uint32_t> prompts(const DatasetTokens& tokens) {
  std::vector<std::uint32_t> all;
  for (const RecordTokens& record : tokens.lengths) all.push_back(record.prompt);
  return all;
}

// A token a byte, and one in front; token ids are taken as they are.
TEST_F(DatasetTokensTest, LengthsAreThoseOfARun) {
  const DatasetTokens tokens = read(
      "{\"prompt\": \"abcd\"}\n\n{\"tokens\": [1, 2, 3], \"max_tokens\": 7}\n"
      "{\"prompt\": \"0123456789012345678901234567890123456789012345678\"}\n");
  EXPECT_EQ(tokens.records, 3u);
  EXPECT_EQ(tokens.read, 3u);
  EXPECT_THAT(prompts(tokens), ElementsAre(5, 3, 50));
  EXPECT_EQ(tokens.lengths[0].max_tokens, 60u);
  EXPECT_EQ(tokens.lengths[0].line_bytes, 18u);  // {"prompt": "abcd"}
  EXPECT_NE(tokens.lengths[0].prefix_hash, tokens.lengths[1].prefix_hash);
  EXPECT_EQ(tokens.lengths[1].max_tokens, 7u);
  EXPECT_EQ(tokens.lengths[2].max_tokens, 50u);  // what the context leaves
  EXPECT_THAT(failures_, IsEmpty());
}

TEST_F(DatasetTokensTest, BadRecordsAreToldWithTheirLines) {
  const DatasetTokens tokens =
      read("{\"prompt\": \"abcd\"}\n\n{\"prompt\": 5}\n{\"prompt\": \"ab\"}\nnonsense\n");
  EXPECT_EQ(tokens.records, 4u);
  EXPECT_EQ(tokens.failed, 2u);
  EXPECT_THAT(prompts(tokens), ElementsAre(5, 3));
  EXPECT_THAT(failures_, ElementsAre(HasSubstr("line 3: "), HasSubstr("line 5: ")));
}

TEST_F(DatasetTokensTest, ASampleIsSpreadOverTheDataset) {
  std::string content;
  for (int i = 0; i < 10; ++i) {
    content += "{\"prompt\": \"" + std::string(static_cast<std::size_t>(i + 1), 'a') + "\"}\n";
  }
  DatasetTokensOptions options;
  options.most = 4;  // records 0, 2, 5 and 7
  const DatasetTokens tokens = read(content, options);
  EXPECT_EQ(tokens.records, 10u);
  EXPECT_EQ(tokens.read, 4u);
  EXPECT_THAT(prompts(tokens), ElementsAre(2, 4, 7, 9));
  options.limit = 3;
  EXPECT_THAT(prompts(read(content, options)), ElementsAre(2, 3, 4));
}

TEST_F(DatasetTokensTest, NothingStaysInTheTemporaryFolder) {
  const tests::TemporaryFolder temporary;
  const char* const before = std::getenv("TMPDIR");
  const std::string old = before == nullptr ? "" : before;
  setenv("TMPDIR", temporary.path().c_str(), 1);
  read("{\"prompt\": \"abcd\"}\n");
  EXPECT_TRUE(std::filesystem::is_empty(temporary.path()));
  setenv("TMPDIR", (temporary / "none").c_str(), 1);
  EXPECT_ANY_THROW(read("{\"prompt\": \"abcd\"}\n"));
  if (before == nullptr) {
    unsetenv("TMPDIR");
  } else {
    setenv("TMPDIR", old.c_str(), 1);
  }
}

TEST(TokenHistogram, ByHand) {
  const TokenHistogram histogram = token_histogram({9, 1, 2, 3, 40, 3, 2, 2, 8, 10});
  EXPECT_EQ(histogram.records, 10u);
  EXPECT_EQ(histogram.sum, 80u);
  EXPECT_DOUBLE_EQ(histogram.mean(), 8);
  EXPECT_EQ(histogram.median, 3u);          // five of ten have no more
  EXPECT_EQ(histogram.percentile_90, 10u);  // nine of ten
  EXPECT_EQ(histogram.longest, 40u);
  std::vector<std::vector<std::uint64_t>> buckets;
  for (const TokenHistogram::Bucket& b : histogram.buckets) {
    buckets.push_back({b.least, b.most, b.records});
  }
  EXPECT_THAT(buckets,
              ElementsAre(ElementsAre(1, 1, 1), ElementsAre(2, 3, 5), ElementsAre(4, 7, 0),
                          ElementsAre(8, 15, 3), ElementsAre(16, 31, 0), ElementsAre(32, 63, 1)));
  EXPECT_EQ(describe(histogram), "mean 8, median 3, 90 % at most 10, longest 40");
  EXPECT_EQ(token_histogram({5}).buckets.at(0).least, 4u);
  EXPECT_EQ(token_histogram({}).records, 0u);
}

}  // namespace
}  // namespace penstock::jobs
