#include "jobs/report.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::jobs {
namespace {

TEST(Report, Bytes) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(1000), "1.00 kB");
  EXPECT_EQ(format_bytes(12345), "12.3 kB");
  EXPECT_EQ(format_bytes(269060552), "269 MB");
  EXPECT_EQ(format_bytes(999999999), "1.00 GB");
  EXPECT_EQ(format_bytes(UINT64_MAX), "18446744 TB");
}

TEST(Report, Counts) {
  EXPECT_EQ(format_count(950), "950");
  EXPECT_EQ(format_count(1234), "1.23 k");
  EXPECT_EQ(format_count(134515008), "135 M");
  EXPECT_EQ(format_count(8030261248), "8.03 B");
  EXPECT_EQ(format_grouped(0), "0");
  EXPECT_EQ(format_grouped(999), "999");
  EXPECT_EQ(format_grouped(1000), "1,000");
  EXPECT_EQ(format_grouped(1234567), "1,234,567");
}

TEST(Report, Durations) {
  EXPECT_EQ(format_duration(0), "0.0 s");
  EXPECT_EQ(format_duration(-1), "0.0 s");
  EXPECT_EQ(format_duration(9.94), "9.9 s");
  EXPECT_EQ(format_duration(9.95), "10 s");
  EXPECT_EQ(format_duration(59.4), "59 s");
  EXPECT_EQ(format_duration(59.5), "1:00");
  EXPECT_EQ(format_duration(185), "3:05");
  EXPECT_EQ(format_duration(3599.7), "1:00:00");
  EXPECT_EQ(format_duration(3723), "1:02:03");
  EXPECT_EQ(format_duration(183840), "2d 03:04");
  EXPECT_EQ(format_duration(1e300), "years");
}

RunHeader sample_header() {
  RunHeader header;
  header.version = "penstock 0.1.0";
  header.model = "SmolLM2-135M-Instruct";
  header.architecture = "llama";
  header.parameters = 134515008;
  header.dtype = "bf16, KV bf16";
  header.checkpoint = "smol.h5";
  header.checkpoint_bytes = 269060552;
  header.checkpoint_digest = "0123456789abcdef0123456789abcdef";
  header.device = "cpu avx512_bf16";
  header.link = "mpi";
  header.input = "in.jsonl";
  header.input_format = "JSONL";
  header.records = 1000;
  header.output = "out.jsonl";
  header.slots = 3;
  header.context_limit = 8192;
  header.kv_tokens = 65536;
  header.more = {{"sampling", "greedy"}};
  header.stages = {{0, "n001", 16, 0, 0, 15, 142000000, 31000000, 142000001},
                   {1, "node-12", 16, 1, 15, 30, 127060552, 31000000, 127060553}};
  header.stages[0].predicted = "14.2 ms";
  header.stages[1].predicted = "9.0 ms";
  return header;
}

TEST(Report, Header) {
  EXPECT_EQ(format_header(sample_header(), 80),
            "penstock 0.1.0\n"
            "model       SmolLM2-135M-Instruct (llama, 135 M parameters, bf16, KV bf16)\n"
            "checkpoint  smol.h5 (269 MB, digest 0123456789ab)\n"
            "device      cpu avx512_bf16, link mpi\n"
            "input       in.jsonl, JSONL, 1,000 records\n"
            "output      out.jsonl\n"
            "schedule    3 slots, context 8,192 tokens, KV 65,536 tokens\n"
            "sampling    greedy\n"
            "  rank  host     threads  stage  layers  weights       KV     step    read\n"
            "     0  n001          16      0    0-14   142 MB  31.0 MB  14.2 ms  142 MB\n"
            "     1  node-12       16      1   15-29   127 MB  31.0 MB   9.0 ms  127 MB\n");
}

TEST(Report, TheTripThatTheSlotsAreReckonedWith) {
  RunHeader header = sample_header();
  header.slots = 5;
  header.trip_seconds = 0.000412;
  EXPECT_NE(format_header(header, 80).find("schedule    5 slots (trip 0.41 ms), context 8,192 "),
            std::string::npos);
  header.trip_seconds = 0.0123456;
  EXPECT_NE(format_header(header, 80).find("5 slots (trip 12.3 ms), "), std::string::npos);
}

TEST(Report, ReplicasAreShownWhereThereAreSeveral) {
  RunHeader header = sample_header();
  header.replicas = 2;
  header.stages[1].replica = 1;
  header.stages[1].stage = 0;
  const std::string text = format_header(header, 80);
  EXPECT_NE(text.find("schedule    2 replicas of 1 stage, 3 slots, "), std::string::npos) << text;
  EXPECT_EQ(text.substr(text.find("  rank")),
            "  rank  host     threads  replica  stage  layers  weights       KV     step\n"
            "     0  n001          16        0      0    0-14   142 MB  31.0 MB  14.2 ms\n"
            "     1  node-12       16        1      0   15-29   127 MB  31.0 MB   9.0 ms\n");

  RunSummary summary;
  summary.replica_seconds = {10, 25, 12};
  summary.slowest_replica = 1;
  for (int rank = 0; rank < 6; ++rank) {
    LedgerTotals totals;
    totals[rank % 2 == 0 ? Share::compute : Share::drain] = 1 + rank;
    summary.stages.push_back({rank % 2, rank, totals, rank / 2});
  }
  const std::string end = format_summary(summary, 200);
  EXPECT_NE(
      end.find("replicas    3; the slowest, replica 1, worked for 25 s, the quickest, replica "
               "0, for 10 s\n"),
      std::string::npos)
      << end;
  // 1 + 3 + 5 seconds of compute, 2 + 4 + 6 of drain.
  const std::string table =
      "  stage  compute  wait upstream  wait downstream  communication  starved  drain  waits  "
      "total\n"
      "      0    100.0            0.0              0.0            0.0      0.0    0.0    0.0  9.0 "
      "s\n"
      "      1      0.0            0.0              0.0            0.0      0.0  100.0  100.0   12 "
      "s\n";
  EXPECT_NE(end.find(table), std::string::npos) << end;
}

TEST(Report, HeaderShowsGpusWithin80Columns) {
  RunHeader header = sample_header();
  for (StageReport& stage : header.stages) {
    stage.gpu = "NVIDIA H100 80GB HBM3";
    stage.gpu_uuid = "GPU-01020304-0506-0708-090a-0b0c0d0e0f10";
    stage.gpu_memory_bytes = 85'520'809'984;
  }
  const std::string text = format_header(header, 80);
  const std::string expected =
      "  rank  GPU                     memory  UUID\n"
      "     0  NVIDIA H100 80GB HBM3  85.5 GB  GPU-01020304-0506-0708-090a-0b0c0d0e0f10\n"
      "     1  NVIDIA H100 80GB HBM3  85.5 GB  GPU-01020304-0506-0708-090a-0b0c0d0e0f10\n";
  EXPECT_EQ(text, format_header(sample_header(), 80) + expected);
}

TEST(Report, Reads) {
  StageReport stage{1, "n001", 16, 1, 15, 30, 127060552, 31000000, 127060553};
  EXPECT_EQ(
      format_reads({stage}, 269060552),
      "stage 1 (rank 1, host n001): read 127,060,553 of the checkpoint's 269,060,552 bytes\n");
  stage.load_seconds = 0.5;
  stage.bytes_loaded = 127060552;
  EXPECT_EQ(format_reads({stage}, 269060552),
            "stage 1 (rank 1, host n001): read 127,060,553 of the checkpoint's 269,060,552 bytes, "
            "loaded in 0.5 s, 254 MB/s\n");
  stage.bytes_read = 0;
  stage.copy = "found in /local";
  EXPECT_EQ(format_reads({stage}, 269060552),
            "stage 1 (rank 1, host n001): read 0 of the checkpoint's 269,060,552 bytes, found in "
            "/local, loaded in 0.5 s, 254 MB/s\n");
}

TEST(Report, NarrowTablesLoseTheirLastColumns) {
  const std::string text = format_header(sample_header(), 40);
  EXPECT_EQ(text.substr(text.find("  rank")),
            "  rank  host     threads  stage  layers\n"
            "     0  n001          16      0    0-14\n"
            "     1  node-12       16      1   15-29\n");
  const std::string narrowest = format_header(sample_header(), 0);
  EXPECT_EQ(narrowest.substr(narrowest.find("  rank")), "  rank\n     0\n     1\n");
}

TEST(Report, Summary) {
  RunSummary summary;
  summary.records_answered = 998;
  summary.records_failed = 2;
  summary.tokens_in = 51234;
  summary.tokens_out = 12345;
  summary.seconds = 65;
  summary.start_seconds = 3.21;
  summary.load_seconds = 2.345;
  summary.output = "out.jsonl";
  StageLedger first{0, 0, {}};
  first.process = {71'400'000, 24, 0.5};
  first.totals[Share::compute] = 60;
  first.totals[Share::wait_downstream] = 3.75;
  first.totals[Share::drain] = 1.25;
  StageLedger second{1, 1, {}};
  second.process = {1'230'000'000, 23, 0.5};
  second.totals[Share::compute] = 58.5;
  second.totals[Share::wait_upstream] = 6.5;
  summary.stages = {first, second};
  summary.slots = 3;
  summary.steps = 999;
  EXPECT_EQ(
      format_summary(summary, 100),
      "records     998 answered, 2 failed (see their error rows)\n"
      "time        1:05 of work, 3.2 s before, 2.3 s of it for loading\n"
      "tokens      in 51,234 (788.2/s), out 12,345 (189.9/s)\n"
      "output      out.jsonl\n"
      "process     1.23 GB of memory at most (rank 1), 24 open files\n"
      "time of each stage, %\n"
      "  stage  rank  compute  wait upstream  wait downstream  communication  starved  drain  "
      "waits  total\n"
      "      0     0     92.3            0.0              5.8            0.0      0.0    1.9  "
      "  7.7   1:05\n"
      "      1     1     90.0           10.0              0.0            0.0      0.0    0.0  "
      " 10.0   1:05\n"
      "bubble      filling and draining 2 stages leaves at least 0.1 % idle (999 steps of 60.1 "
      "ms); "
      "waits are 8.8 %\n"
      "advice      stages wait for each other for 6.7 %, though none computes much longer: too "
      "little is in flight; work on more records at a time, or try more --slots than 3\n");
}

TEST(Report, StepTimes) {
  EXPECT_EQ(format_step_times({}), "");
  EXPECT_EQ(format_step_times({{0.01234, 0.0125}, {}}),
            "12.34 12.50 ms of computing on each stage");
  EXPECT_EQ(format_step_times({{0.01234}, {0.0125}}),
            "12.34 ms of computing on each stage; predicted 12.50");
}

TEST(Report, ARehearsalTellsWhatItTookOfTheHost) {
  RunSummary summary;
  summary.rehearsal = "2 x h100-sxm, ndr";
  summary.rehearsed_in = 12;
  summary.thread_seconds_per_step = 0.000149;
  summary.stages = {StageLedger{0, 0, {}}};
  summary.stages[0].process = {26'000'000, 19, 1};
  const std::string text = format_summary(summary, 80);
  EXPECT_THAT(text, testing::HasSubstr("times predicted; it took 12 s\n"));
  EXPECT_THAT(text, testing::HasSubstr(
                        "process     26.0 MB of memory at most (rank 0), 19 open files, 0.15 "
                        "ms of processor time for a stage's step\n"));
}

TEST(Report, SummaryOfNothing) {
  RunSummary summary;
  summary.output = "out";
  EXPECT_EQ(format_summary(summary, 80),
            "records     0 answered\n"
            "time        0.0 s of work, 0.0 s before, 0.0 s of it for loading\n"
            "tokens      in 0, out 0\n"
            "output      out\n");
}

}  // namespace
}  // namespace penstock::jobs
