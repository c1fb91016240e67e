#include "model/stage_weights_cuda.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <utility>

#include "comm/device/error.hpp"
#include "comm/device/stream.hpp"
#include "model/weight_stream.hpp"

namespace penstock::model {
namespace {

using comm::device::DeviceBuffer;
using comm::device::Event;
using comm::device::PinnedBuffer;
using comm::device::Stream;

// A file system gives no more to more threads of one process, and each pins 16 MiB.
constexpr int kMostThreads = 32;

class GpuSink : public WeightSink {
 public:
  GpuSink(int gpu, std::byte* weights) : weights_(weights) {
    PENSTOCK_CUDA_CALL(cudaSetDevice(gpu));  // of this thread
    stream_ = Stream::create();
    for (Room& room : rooms_) {
      room.memory = PinnedBuffer(kMostPieceBytes);
      room.copied = Event::create();
    }
  }
  // Pinned memory is not given back under a copy that still reads it.
  ~GpuSink() override {
    if (stream_) cudaStreamSynchronize(static_cast<cudaStream_t>(stream_.get()));
  }

  std::span<std::byte> room(std::size_t bytes) override {
    std::swap(rooms_[0], rooms_[1]);
    rooms_[0].copied.synchronize();
    return rooms_[0].memory.bytes().first(bytes);
  }

  void put(std::uint64_t place, std::span<const std::byte> bytes) override {
    comm::device::copy_async(weights_ + place, bytes.data(), bytes.size(), stream_.get());
    rooms_[0].copied.record(stream_);
  }

  void finish() override { stream_.synchronize(); }

 private:
  struct Room {
    PinnedBuffer memory;
    Event copied;
  };
  std::byte* weights_;
  Stream stream_;
  std::array<Room, 2> rooms_;  // the first is in use
};

}  // namespace

CudaStageWeights load_cuda_weights(const io::CheckpointReader& checkpoint,
                                   const WeightPlaces& places, CudaLinearFactory& factory,
                                   const StageShapes& shapes, const StageRange& range,
                                   const StageOptions& options, const LoadProgress& progress) {
  CudaStageWeights weights;
  weights.memory = DeviceBuffer(places.bytes);
  auto* const memory = weights.memory.as<std::byte>();
  stream_weights(
      checkpoint, places.pieces, [&] { return std::make_unique<GpuSink>(options.gpu, memory); },
      std::min(options.threads, kMostThreads), progress);

  const auto floats = [&](std::uint64_t place) {
    return reinterpret_cast<const float*>(memory + place);
  };
  const auto product = [&](const LinearShape& shape, const WeightPlaces::Product& place) {
    return factory.make_view(shape, memory + place.weight,
                             shape.bias ? memory + place.bias : nullptr);
  };
  if (range.first) weights.views.embedding = memory + places.embedding;
  for (const WeightPlaces::Layer& place : places.layers) {
    GpuLayerWeights layer;
    layer.attn_norm = floats(place.attn_norm);
    layer.qkv = product(shapes.qkv, place.qkv);
    layer.o = product(shapes.o, place.o);
    layer.mlp_norm = floats(place.mlp_norm);
    layer.gate_up = product(shapes.gate_up, place.gate_up);
    layer.down = product(shapes.down, place.down);
    weights.views.layers.push_back(std::move(layer));
  }
  if (range.last) {
    weights.views.final_norm = floats(places.final_norm);
    weights.views.head = product(shapes.head, places.head);
  }
  return weights;
}

}  // namespace penstock::model
