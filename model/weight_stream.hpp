#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "io/checkpoint.hpp"
#include "model/stage.hpp"
#include "model/weight_places.hpp"

namespace penstock::model {

// One thread's way into the memory of the weights.
class WeightSink {
 public:
  virtual ~WeightSink() = default;
  // Host memory for a piece of at most kMostPieceBytes, free to be overwritten: waits until it is.
  virtual std::span<std::byte> room(std::size_t bytes) = 0;
  // Starts taking what is in the last room() to its place.
  virtual void put(std::uint64_t place, std::span<const std::byte> bytes) = 0;
  // Waits until all is in its place.
  virtual void finish() = 0;
};
// A checksum block of 16-bit numbers that become f32.
inline constexpr std::size_t kMostPieceBytes = 2 * io::kChecksumBlockBytes;

// Reads, checks and converts all pieces on up to `threads` threads, the calling one among them,
// each of which makes itself a sink; a thread reads the next piece while its last is on its way.
// The first failure ends all and is thrown. `progress` is called in the calling thread.
void stream_weights(const io::CheckpointReader& checkpoint, std::span<const WeightPiece> pieces,
                    const std::function<std::unique_ptr<WeightSink>()>& make_sink, int threads,
                    const LoadProgress& progress);

}  // namespace penstock::model
