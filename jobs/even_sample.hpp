#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace penstock::jobs {

// Values that come one by one, at most kMost of them, evenly spread over all there were: each one
// at first, then each second, each fourth, ...
template <class T>
class EvenSample {
 public:
  static constexpr std::size_t kMost = 65536;

  void add(const T& value) {
    if (seen_++ % every_ != 0) return;
    values_.push_back(value);
    if (values_.size() < kMost) return;
    for (std::size_t i = 0; i < kMost / 2; ++i) values_[i] = values_[2 * i];
    values_.resize(kMost / 2);
    every_ *= 2;
  }
  const std::vector<T>& values() const { return values_; }
  std::uint64_t seen() const { return seen_; }

 private:
  std::vector<T> values_;
  std::uint64_t seen_ = 0;
  std::uint64_t every_ = 1;
};

}  // namespace penstock::jobs
