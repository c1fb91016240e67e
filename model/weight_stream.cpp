#include "model/weight_stream.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "io/dtype.hpp"

namespace penstock::model {
namespace {

class WeightStream {
 public:
  WeightStream(const io::CheckpointReader& checkpoint, std::span<const WeightPiece> pieces,
               const std::function<std::unique_ptr<WeightSink>()>& make_sink,
               const LoadProgress& progress)
      : checkpoint_(checkpoint), pieces_(pieces), make_sink_(make_sink), progress_(progress) {
    for (const WeightPiece& piece : pieces) bytes_total_ += piece.size_bytes;
  }

  void run(int threads) {
    std::vector<std::jthread> helpers;
    const auto useful = static_cast<int>(std::min<std::size_t>(pieces_.size(), 1u << 10));
    for (int i = 1; i < std::min(threads, useful); ++i) {
      helpers.emplace_back([this] { guarded(false); });
    }
    guarded(true);
    helpers.clear();  // joins
    if (failure_) std::rethrow_exception(failure_);
    tell();
  }

 private:
  void guarded(bool tells) {
    try {
      work(tells);
    } catch (...) {
      next_ = pieces_.size();
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
  }

  void work(bool tells) {
    const std::unique_ptr<WeightSink> sink = make_sink_();
    std::vector<std::byte> stored;
    // An index may run past the end once for each thread, so it cannot wrap.
    for (std::size_t i = next_++; i < pieces_.size(); i = next_++) {
      const WeightPiece& piece = pieces_[i];
      const io::DType from = piece.tensor->dtype;
      const auto bytes = static_cast<std::size_t>(piece.size_bytes);
      if (from == piece.dtype) {
        const auto room = sink->room(bytes).first(bytes);
        checkpoint_.read_range(*piece.tensor, piece.first_byte, room);
        sink->put(piece.place, room);
      } else {
        stored.resize(bytes);
        checkpoint_.read_range(*piece.tensor, piece.first_byte, stored);
        const std::size_t elements = bytes / io::size_of(from);
        const std::size_t converted = elements * io::size_of(piece.dtype);
        const auto room = sink->room(converted).first(converted);
        io::convert(stored.data(), from, room.data(), piece.dtype, elements);
        sink->put(piece.place, room);
      }
      bytes_done_ += piece.size_bytes;
      if (tells) tell();
    }
    sink->finish();
  }

  void tell() {
    const std::uint64_t done = bytes_done_;
    if (progress_ && done > told_) progress_(done, bytes_total_);
    told_ = done;
  }

  const io::CheckpointReader& checkpoint_;
  std::span<const WeightPiece> pieces_;
  const std::function<std::unique_ptr<WeightSink>()>& make_sink_;
  const LoadProgress& progress_;
  std::uint64_t bytes_total_ = 0;
  std::uint64_t told_ = 0;  // of the calling thread
  std::atomic<std::size_t> next_{0};
  std::atomic<std::uint64_t> bytes_done_{0};
  std::mutex mutex_;
  std::exception_ptr failure_;
};

}  // namespace

void stream_weights(const io::CheckpointReader& checkpoint, std::span<const WeightPiece> pieces,
                    const std::function<std::unique_ptr<WeightSink>()>& make_sink, int threads,
                    const LoadProgress& progress) {
  WeightStream(checkpoint, pieces, make_sink, progress).run(threads);
}

}  // namespace penstock::model
