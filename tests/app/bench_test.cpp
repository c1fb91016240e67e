// penstock bench: that every layout finishes and says what it measured. No time is judged.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

using nlohmann::json;
using testing::ContainsRegex;
using testing::HasSubstr;

const Arguments kBench = {"bench",      kEmbeddedModel, "--batch",     "1,5", "--prompt", "40",
                          "--generate", "20",           "--kv-memory", "8M",  "--json"};

TEST(Bench, MeasuresEveryBatchOnEveryLayout) {
  for (const int ranks : {1, 2}) {
    SCOPED_TRACE(ranks);
    const Finished finished = penstock_ranks(ranks, kBench);
    ASSERT_EQ(finished.code, 0) << finished;
    const json result = json::parse(finished.out);
    EXPECT_EQ(result.at("stages"), ranks);
    EXPECT_GT(result.at("machine").at("flops_per_s").get<double>(), 1e8);
    EXPECT_GT(result.at("machine").at("bytes_per_s").get<double>(), 1e8);
    EXPECT_GT(result.at("load_bytes_per_s").get<double>(), 0);
    ASSERT_EQ(result.at("rows").size(), 2u);
    EXPECT_EQ(result.at("rows")[0].at("batch"), 1);
    EXPECT_EQ(result.at("rows")[1].at("batch"), 5);
    for (const json& row : result.at("rows")) {
      for (const char* rate :
           {"prefill_tokens_per_s", "decode_tokens_per_s", "prefill_limit", "decode_limit"}) {
        EXPECT_GT(row.at(rate).get<double>(), 0) << rate;
      }
      ASSERT_EQ(row.at("decode_ledger").size(), static_cast<std::size_t>(ranks));
      for (const json& stage : row.at("decode_ledger")) {
        EXPECT_GT(stage.at("compute").get<double>(), 0);
      }
    }
  }
}

TEST(Bench, EndsWellWithThreads) {
  for (int round = 0; round < 5; ++round) {
    const Finished finished =
        penstock({"bench", kEmbeddedModel, "--stages", "3", "--batch", "4", "--prompt", "8",
                  "--generate", "8", "--kv-memory", "8M", "--threads", "1"});
    ASSERT_EQ(finished.code, 0) << finished;
  }
}

TEST(Bench, ShowsATable) {
  const Finished finished = penstock({"bench", kEmbeddedModel, "--batch", "2", "--prompt", "8",
                                      "--generate", "8", "--kv-memory", "8M"});
  ASSERT_EQ(finished.code, 0) << finished;
  EXPECT_THAT(finished.out, ContainsRegex("stage 0 .*, loaded in .*B/s\n"));
  EXPECT_THAT(finished.out, HasSubstr("prefill"));
  EXPECT_THAT(finished.out, HasSubstr("decode"));
  EXPECT_THAT(finished.out, HasSubstr("steady decode at batch 2"));
}

TEST(Bench, SteadyStateOfAWorkloadWithoutEnd) {
  const Arguments steady = {"bench",      kEmbeddedModel, "--steady",    "--prompt", "40",
                            "--generate", "20",           "--kv-memory", "256K"};
  const Finished shown = penstock(steady + Arguments{"--stages", "2"});
  ASSERT_EQ(shown.code, 0) << shown;
  EXPECT_THAT(shown.out, ContainsRegex("records at once, without end\n\ntokens of answers/s "));
  EXPECT_THAT(shown.out, HasSubstr("2 x one device with all layers"));
  const Finished finished = penstock_ranks(2, steady + Arguments{"--json"});
  ASSERT_EQ(finished.code, 0) << finished;
  const json result = json::parse(finished.out).at("steady");
  EXPECT_GT(result.at("concurrent"), 1);
  EXPECT_GT(result.at("tokens_per_s").get<double>(), 0);
  EXPECT_GT(result.at("reached").get<double>(), 0);
  EXPECT_LE(result.at("reached").get<double>(), 1);
  EXPECT_EQ(result.at("ledger").size(), 2u);
}

TEST(Bench, RefusesWhatDoesNotFit) {
  const Finished context =
      penstock({"bench", kEmbeddedModel, "--prompt", "500", "--generate", "100"});
  EXPECT_EQ(context.code, 1) << context;
  EXPECT_THAT(context.err, HasSubstr("exceed the context of 512"));
  const Finished memory = penstock({"bench", kEmbeddedModel, "--batch", "40", "--kv-memory", "1M"});
  EXPECT_EQ(memory.code, 1) << memory;
  EXPECT_THAT(memory.err, HasSubstr("--batch 40 does not run at once"));
  const Finished generate = penstock({"bench", kEmbeddedModel, "--batch", "32", "--prompt", "200",
                                      "--generate", "4", "--max-step-tokens", "64"});
  EXPECT_EQ(generate.code, 1) << generate;
  EXPECT_THAT(generate.err, HasSubstr("give a longer --generate"));
  const Finished batch = penstock({"bench", kEmbeddedModel, "--batch", "0"});
  EXPECT_EQ(batch.code, 1) << batch;
  EXPECT_THAT(batch.err, HasSubstr("--batch"));
}

}  // namespace
}  // namespace penstock::tests
