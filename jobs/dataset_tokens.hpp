#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/records.hpp"
#include "jobs/output_row.hpp"
#include "jobs/request.hpp"

// How long the records of a dataset are, found by reading them as a run would.
namespace penstock::jobs {

struct RecordTokens {
  std::uint32_t prompt = 0;
  std::uint32_t max_tokens = 0;  // of the answer, as far as the context lets it
  std::uint32_t line_bytes = 0;
  std::uint32_t prefix_hash = 0;  // of the line, io::IndexEntry's
};

struct DatasetTokens {
  io::InputFormat format = io::InputFormat::jsonl;
  std::uint64_t records = 0;          // that the dataset has
  std::uint64_t read = 0;             // of them
  std::uint64_t failed = 0;           // of those read: they get an error row
  std::vector<RecordTokens> lengths;  // of the others that were read, in their order
};

struct DatasetTokensOptions {
  std::string path;                       // a file
  std::optional<io::InputFormat> format;  // none: the name or the content tells
  std::uint64_t limit = UINT64_MAX;       // only the first records count
  std::uint64_t most = UINT64_MAX;        // records to read, evenly over the dataset
};

// `on_failure` hears of each record that cannot be answered. Memory: 16 bytes a record read. The
// index lies in a temporary folder, which is gone before the first record is read. Throws
// io::FileError.
DatasetTokens read_dataset_tokens(const DatasetTokensOptions& options,
                                  const RequestBuilder& builder,
                                  const std::function<void(const FailedRecord&)>& on_failure = {});

// Numbers of tokens, told in short.
struct TokenHistogram {
  struct Bucket {
    std::uint32_t least = 0;  // tokens, a power of two or 0
    std::uint32_t most = 0;
    std::uint64_t records = 0;
  };
  std::vector<Bucket> buckets;  // ascending, from the first to the last that is not empty
  std::uint64_t records = 0;
  std::uint64_t sum = 0;
  std::uint32_t median = 0;  // half of the records have no more
  std::uint32_t percentile_90 = 0;
  std::uint32_t longest = 0;
  double mean() const;
};
TokenHistogram token_histogram(std::vector<std::uint32_t> tokens);

// "mean 512, median 480, 90 % at most 900, longest 2,031"
std::string describe(const TokenHistogram& histogram);

}  // namespace penstock::jobs
