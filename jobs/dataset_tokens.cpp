#include "jobs/dataset_tokens.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "io/error.hpp"
#include "io/input_index.hpp"
#include "jobs/report.hpp"

namespace penstock::jobs {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kEntriesAtATime = 65536;

class TemporaryFolder {
 public:
  TemporaryFolder() : path_((fs::temp_directory_path() / "penstock-XXXXXX").string()) {
    if (mkdtemp(path_.data()) == nullptr) {
      throw io::FileError(
          path_, fmt::format("cannot be made: {} (TMPDIR says where)", std::strerror(errno)));
    }
  }
  ~TemporaryFolder() {
    std::error_code error;  // then it stays
    fs::remove_all(path_, error);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string file(const char* name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

io::IndexedInput open_input(const DatasetTokensOptions& options) {
  const TemporaryFolder folder;
  const std::string index = folder.file("index");
  io::build_index(options.path, index, options.limit);
  return {options.path, index};
}

// The least number of tokens that so many percent of the records do not exceed.
std::uint32_t percentile(const std::vector<std::uint32_t>& sorted, std::size_t percent) {
  return sorted[(sorted.size() * percent + 99) / 100 - 1];
}

}  // namespace

DatasetTokens read_dataset_tokens(const DatasetTokensOptions& options,
                                  const RequestBuilder& builder,
                                  const std::function<void(const FailedRecord&)>& on_failure) {
  DatasetTokens tokens;
  tokens.format = options.format ? *options.format : io::detect_format(options.path, options.path);
  const io::IndexedInput input = open_input(options);
  tokens.records = input.size();
  const std::uint64_t to_read = std::min(options.most, tokens.records);
  std::vector<io::IndexEntry> entries;
  std::uint64_t first = 0;  // record of entries[0]
  for (std::uint64_t i = 0; i < to_read; ++i) {
    // i * records may not fit in 64 bits.
    const std::uint64_t record =
        tokens.records / to_read * i + tokens.records % to_read * i / to_read;
    if (record >= first + entries.size()) {
      first = record;
      entries = input.entries(first, std::min(kEntriesAtATime, tokens.records - first));
    }
    const io::IndexEntry& entry = entries[record - first];
    try {
      const std::string line = input.line(entry);
      const Request request =
          builder.build(io::parse_record(line, tokens.format), record, entry.line);
      tokens.lengths.push_back({static_cast<std::uint32_t>(request.prompt.size()),
                                request.params.max_tokens, entry.length, entry.prefix_hash});
    } catch (const io::RecordError& error) {
      ++tokens.failed;
      if (on_failure) on_failure({record, entry.line, error.id, error.what()});
    }
    ++tokens.read;
  }
  return tokens;
}

double TokenHistogram::mean() const {
  return records == 0 ? 0 : static_cast<double>(sum) / static_cast<double>(records);
}

TokenHistogram token_histogram(std::vector<std::uint32_t> tokens) {
  TokenHistogram histogram;
  if (tokens.empty()) return histogram;
  std::sort(tokens.begin(), tokens.end());
  histogram.records = tokens.size();
  histogram.median = percentile(tokens, 50);
  histogram.percentile_90 = percentile(tokens, 90);
  histogram.longest = tokens.back();
  for (const std::uint32_t count : tokens) {
    histogram.sum += count;
    const std::uint32_t least = std::bit_floor(count);  // of 0: 0
    if (histogram.buckets.empty()) {
      histogram.buckets.push_back({least, least == 0 ? 0 : 2 * least - 1, 0});
    }
    while (count > histogram.buckets.back().most) {
      const std::uint32_t next = histogram.buckets.back().most + 1;
      histogram.buckets.push_back({next, 2 * next - 1, 0});
    }
    ++histogram.buckets.back().records;
  }
  return histogram;
}

std::string describe(const TokenHistogram& histogram) {
  return fmt::format("mean {:.0f}, median {}, 90 % at most {}, longest {}", histogram.mean(),
                     format_grouped(histogram.median), format_grouped(histogram.percentile_90),
                     format_grouped(histogram.longest));
}

}  // namespace penstock::jobs
