#include "jobs/generate_workload.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "io/input_index.hpp"
#include "io/journal_scan.hpp"
#include "jobs/output_row.hpp"
#include "tests/jobs/byte_tokenizer.hpp"

namespace penstock::jobs {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

// A dataset of prompts, whose answers the test gives token by token.
class GenerateWorkloadTest : public testing::Test {
 protected:
  ~GenerateWorkloadTest() override { std::filesystem::remove_all(folder_); }

  void begin(const std::string& lines, const json& decoder = nullptr) {
    std::filesystem::create_directories(folder_);
    std::ofstream(folder_ + "/in") << lines;
    io::build_index(folder_ + "/in", folder_ + "/index");
    input_.emplace(folder_ + "/in", folder_ + "/index");
    tokenizer_.emplace(byte_tokenizer(decoder));
    RequestContext context;
    context.tokenizer = &*tokenizer_;
    context.chat_template = &chat_template_;
    context.vocab_size = 259;
    context.context_limit = 1000;
    context.eos_token_ids = {256};
    builder_.emplace(context);
    std::filesystem::remove(folder_ + "/journal");
    go_on();
  }

  // As the next run of a job does, after one that is gone.
  void go_on() {
    workload_.reset();
    journal_.reset();
    EarlierWork earlier;
    finished_ = io::RecordSet(0, input_->size());
    if (std::filesystem::exists(folder_ + "/journal")) {
      io::JournalScan scan = io::scan_journals(
          {folder_ + "/journal"}, 0, input_->size(),
          [&](std::string_view row) { ++(is_error_row(row) ? earlier.failed : earlier.answered); });
      finished_ = std::move(scan.finished);
      earlier.partial = std::move(scan.partial);
    }
    dataset_.emplace(*input_, io::InputFormat::jsonl, *builder_, RecordRange{0, input_->size()},
                     finished_);
    journal_.emplace(folder_ + "/journal");
    workload_.emplace(*dataset_, *tokenizer_, *journal_, std::move(earlier), GenerateHooks{});
  }

  // The row of the only record, whose answer is `bytes`, in runs that end before the tokens of
  // `cuts`, the last one of which finishes it.
  std::string row_of(const std::string& lines, const std::string& bytes,
                     const std::vector<std::size_t>& cuts) {
    begin(lines);
    std::optional<Work> work = workload_->next();
    EXPECT_THAT(work->generated, IsEmpty());
    std::size_t next = 0;
    bool complete = false;
    for (; next < bytes.size() && !complete; ++next) {
      if (std::find(cuts.begin(), cuts.end(), next) != cuts.end()) {
        workload_->journal_partial();
        EXPECT_EQ(workload_->counts().partial_tokens, next);
        go_on();
        EXPECT_EQ(workload_->counts().partial_tokens, next);
        work = workload_->next();
        std::vector<std::int32_t> so_far;
        for (const char c : bytes.substr(0, next)) {
          so_far.push_back(static_cast<unsigned char>(c));
        }
        EXPECT_EQ(work->generated, so_far);
      }
      complete = workload_->accept(0, static_cast<unsigned char>(bytes[next]));
    }
    EXPECT_TRUE(complete);
    EXPECT_EQ(next, bytes.size()) << "the answer ended early";
    EXPECT_EQ(workload_->counts().answered, 1U);
    EXPECT_EQ(workload_->counts().partial_tokens, 0U);
    EXPECT_EQ(workload_->next(), std::nullopt);
    const std::string row = rows().at(0).dump();
    EXPECT_EQ(rows().size(), 1U);
    go_on();
    EXPECT_EQ(workload_->next(), std::nullopt) << "finished records are done";
    EXPECT_EQ(workload_->counts().answered, 1U);
    return row;
  }
  // Equal rows wherever the answer is cut, once and at every token.
  void expect_cuts_change_nothing(const std::string& lines, const std::string& bytes) {
    const std::string whole = row_of(lines, bytes, {});
    std::vector<std::size_t> everywhere;
    for (std::size_t cut = 1; cut < bytes.size(); ++cut) {
      SCOPED_TRACE(cut);
      EXPECT_EQ(row_of(lines, bytes, {cut}), whole);
      everywhere.push_back(cut);
    }
    EXPECT_EQ(row_of(lines, bytes, everywhere), whole);
  }

  bool accept_all(std::uint64_t record, const std::string& bytes) {
    bool complete = false;
    for (const char c : bytes) complete = workload_->accept(record, static_cast<unsigned char>(c));
    return complete;
  }

  std::vector<json> rows() {
    journal_->sync();
    io::JournalReader reader(folder_ + "/journal");
    std::vector<json> rows;
    for (io::JournalRow row; reader.next(row);) {
      if (!row.partial) rows.push_back(json::parse(row.row));
    }
    return rows;
  }

  std::string folder_ =
      testing::TempDir() + "/penstock_generate_workload_" + std::to_string(::getpid());
  std::optional<model::Tokenizer> tokenizer_;
  model::ChatTemplate chat_template_{""};
  std::optional<io::IndexedInput> input_;
  std::optional<RequestBuilder> builder_;
  io::RecordSet finished_;
  std::optional<Dataset> dataset_;
  std::optional<io::JournalWriter> journal_;
  std::optional<GenerateWorkload> workload_;
};

TEST_F(GenerateWorkloadTest, AnswersEndByStopIdStopStringOrLength) {
  begin(
      "{\"prompt\":\"aaa\"}\n{\"prompt\":\"bb\",\"stop\":\"nd\"}\n"
      "{\"prompt\":\"c\",\"max_tokens\":2}\n");
  std::map<std::uint64_t, std::size_t> prompts;
  while (const std::optional<Work> work = workload_->next()) {
    prompts[work->record] = work->prompt.size();
  }
  EXPECT_THAT(prompts, ElementsAre(Pair(0, 4U), Pair(1, 3U), Pair(2, 2U)));  // <s> in front
  EXPECT_FALSE(accept_all(0, "one"));
  EXPECT_TRUE(workload_->accept(0, 256));
  EXPECT_TRUE(accept_all(1, "the end"));
  EXPECT_TRUE(accept_all(2, "xy"));
  const std::vector<json> all = rows();
  ASSERT_EQ(all.size(), 3U);
  EXPECT_EQ(all[0].at("text"), "one");
  EXPECT_EQ(all[0].at("finish_reason"), "stop");
  EXPECT_EQ(all[0].at("usage"), json({{"prompt_tokens", 4}, {"completion_tokens", 4}}));
  EXPECT_EQ(all[1].at("text"), "the e");
  EXPECT_EQ(all[1].at("finish_reason"), "stop");
  EXPECT_EQ(all[2].at("text"), "xy");
  EXPECT_EQ(all[2].at("finish_reason"), "length");
  EXPECT_EQ(workload_->counts().answered, 3U);
  EXPECT_EQ(workload_->tokens_in(), 9U);
  EXPECT_EQ(workload_->tokens_out(), 4U + 7U + 2U);
}

// One bad record never stops a job, not even by its answer.
TEST_F(GenerateWorkloadTest, AnswerThatTheTokenizerCannotDecodeIsAnErrorRow) {
  begin(
      "{\"id\":\"x\",\"prompt\":\"aaa\"}\n{\"prompt\":\"bb\",\"max_tokens\":1}\n",
      {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(100000, 'b')}});
  workload_->next();
  workload_->next();
  EXPECT_TRUE(workload_->accept(0, 'a'));  // complete: it failed
  EXPECT_TRUE(workload_->accept(1, 'c'));
  const std::vector<json> all = rows();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].at("id"), "x");
  EXPECT_EQ(all[0].at("finish_reason"), "error");
  EXPECT_THAT(all[0].at("error").at("message").get<std::string>(), HasSubstr("decoder"));
  EXPECT_EQ(all[1].at("text"), "c");
  EXPECT_EQ(workload_->counts().failed, 1U);
}

TEST_F(GenerateWorkloadTest, AnAnswerGoesOnWhereItWasCut) {
  expect_cuts_change_nothing("{\"id\":\"a\",\"prompt\":\"aaa\",\"max_tokens\":5}\n", "seven");
}

TEST_F(GenerateWorkloadTest, StopStringAcrossTheCut) {
  expect_cuts_change_nothing("{\"prompt\":\"a\",\"stop\":[\"the end\",\"xyz\"]}\n",
                             "xy the en the end");
  EXPECT_EQ(rows().at(0).at("text"), "xy the en ");
  EXPECT_EQ(rows().at(0).at("finish_reason"), "stop");
}

TEST_F(GenerateWorkloadTest, CharacterOfSeveralBytesAcrossTheCut) {
  const std::string bytes = "\xC3\xA9\xF0\x9F\x98\x80\xE2\x82\xAC.";  // é😀€.
  expect_cuts_change_nothing("{\"prompt\":\"a\",\"stop\":\".\"}\n", bytes);
  EXPECT_EQ(rows().at(0).at("text"), bytes.substr(0, 9));
  // A stop string of such characters, and an answer that ends inside one.
  expect_cuts_change_nothing("{\"prompt\":\"a\",\"stop\":\"\xF0\x9F\x98\x80\xE2\x82\xAC\"}\n",
                             bytes.substr(0, 9));
  EXPECT_EQ(rows().at(0).at("text"), "\xC3\xA9");
  expect_cuts_change_nothing("{\"prompt\":\"a\",\"max_tokens\":4}\n", bytes.substr(0, 4));
  EXPECT_EQ(rows().at(0).at("finish_reason"), "length");
}

// No run writes one, but a journal is a file.
TEST_F(GenerateWorkloadTest, PartialThatWouldEndTheAnswerIsComputedAfresh) {
  const std::string lines = "{\"prompt\":\"a\",\"stop\":\"nd\",\"max_tokens\":4}\n";
  const std::vector<std::vector<std::int32_t>> partials = {
      {'a', 256},                // the id that ends it
      {'e', 'n', 'd'},           // a stop string
      {'a', 'b', 'c', 'd'},      // all its tokens
      {'a', 'b', 'c', 'd', 'e'}  // and more
  };
  for (const std::vector<std::int32_t>& partial : partials) {
    begin(lines);
    journal_->append_partial(0, partial);
    go_on();
    EXPECT_EQ(workload_->counts().partial_tokens, partial.size());
    EXPECT_THAT(workload_->next()->generated, IsEmpty());
    EXPECT_EQ(workload_->counts().partial_tokens, 0U);
    EXPECT_FALSE(accept_all(0, "wxy"));
    EXPECT_TRUE(accept_all(0, "z"));
    EXPECT_EQ(rows().at(0).at("text"), "wxyz");
    EXPECT_EQ(rows().at(0).at("usage").at("completion_tokens"), 4);
  }
}

TEST_F(GenerateWorkloadTest, PartialRowsTellOnlyWhatIsNew) {
  begin("{\"prompt\":\"aaa\"}\n{\"prompt\":\"bb\"}\n{\"prompt\":\"c\"}\n");
  const auto partial_rows = [&] {
    journal_->sync();
    io::JournalReader reader(folder_ + "/journal");
    std::vector<std::pair<std::uint64_t, std::size_t>> found;
    for (io::JournalRow row; reader.next(row);) {
      if (row.partial) found.emplace_back(row.index, row.tokens.size());
    }
    return found;
  };
  while (workload_->next()) {
  }
  workload_->journal_partial();
  EXPECT_THAT(partial_rows(), IsEmpty());  // nothing was generated
  accept_all(0, "on");
  accept_all(2, "x");
  workload_->journal_partial();
  workload_->journal_partial();
  EXPECT_THAT(partial_rows(), UnorderedElementsAre(Pair(0, 2U), Pair(2, 1U)));
  EXPECT_EQ(workload_->counts().partial_tokens, 3U);
  accept_all(0, "e");
  workload_->journal_partial();
  EXPECT_THAT(partial_rows(), UnorderedElementsAre(Pair(0, 2U), Pair(2, 1U), Pair(0, 3U)));
  EXPECT_EQ(workload_->counts().partial_tokens, 4U);
  workload_->accept(0, 256);
  workload_->reject(2, "too long");
  EXPECT_EQ(workload_->counts().partial_tokens, 0U);

  // The next run counts them from the journal, and itself only what it did.
  go_on();
  EXPECT_EQ(workload_->counts().answered, 1U);
  EXPECT_EQ(workload_->counts().failed, 1U);
  EXPECT_EQ(workload_->tokens_out(), 0U);
  EXPECT_EQ(workload_->next()->record, 1U);
  EXPECT_EQ(workload_->next(), std::nullopt);
  workload_->accept(1, 256);
  EXPECT_EQ(workload_->counts().answered, 2U);
  EXPECT_EQ(workload_->tokens_out(), 1U);
  EXPECT_EQ(workload_->tokens_in(), 3U);
}

// What was journalled of a record that this run does not come to is not lost by it.
TEST_F(GenerateWorkloadTest, PartialOfARecordThatIsNotReachedStays) {
  begin("{\"prompt\":\"aaa\"}\n{\"prompt\":\"bb\"}\n");
  while (workload_->next()) {
  }
  accept_all(0, "on");
  accept_all(1, "two");
  workload_->journal_partial();
  go_on();
  ASSERT_EQ(workload_->next()->record, 0U);
  accept_all(0, "e");
  workload_->journal_partial();
  EXPECT_EQ(workload_->counts().partial_tokens, 6U);
  go_on();
  EXPECT_EQ(workload_->counts().partial_tokens, 6U);
  EXPECT_THAT(workload_->next()->generated, ElementsAre('o', 'n', 'e'));
  EXPECT_THAT(workload_->next()->generated, ElementsAre('t', 'w', 'o'));
}

}  // namespace
}  // namespace penstock::jobs
