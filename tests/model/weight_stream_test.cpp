#include "model/weight_stream.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <map>
#include <optional>
#include <semaphore>
#include <stdexcept>
#include <thread>
#include <tuple>
#include <vector>

#include "io/error.hpp"
#include "model/memory_places.hpp"
#include "model/stage_weights.hpp"
#include "tests/support/random_checkpoint.hpp"

namespace penstock::model {
namespace {

using testing::HasSubstr;

// Some tensors of more than one checksum block, in either dtype.
ModelConfig config_of_two_layers() {
  ModelConfig config;
  config.hidden_size = 520;
  config.intermediate_size = 4100;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.vocab_size = 5003;
  config.max_position = 64;
  config.attention_bias = true;
  return config;
}

const tests::RandomCheckpoint& file() {
  static const tests::RandomCheckpoint file(config_of_two_layers(), io::DType::bf16, "stream");
  return file;
}

// Memory that is filled as a GPU's would be: a piece is taken from its room only when the room is
// asked for again, or at the end.
class LateSink : public WeightSink {
 public:
  explicit LateSink(std::vector<std::byte>& memory) : memory_(memory) {
    for (auto& room : rooms_) room.memory.resize(kMostPieceBytes);
  }
  std::span<std::byte> room(std::size_t bytes) override {
    std::swap(rooms_[0], rooms_[1]);
    take(rooms_[0]);
    return std::span(rooms_[0].memory).first(bytes);
  }
  void put(std::uint64_t place, std::span<const std::byte> bytes) override {
    rooms_[0].under_way = {place, bytes.size()};
  }
  void finish() override {
    for (auto& room : rooms_) take(room);
  }

 private:
  struct Room {
    std::vector<std::byte> memory;
    std::optional<std::pair<std::uint64_t, std::size_t>> under_way;
  };
  void take(Room& room) {
    if (!room.under_way) return;
    std::memcpy(memory_.data() + room.under_way->first, room.memory.data(), room.under_way->second);
    room.under_way.reset();
  }
  std::vector<std::byte>& memory_;
  Room rooms_[2];
};

struct Loaded {
  WeightPlaces places;
  std::vector<std::byte> memory;
};

Loaded load(const io::CheckpointReader& reader, const StageRange& range, io::DType dtype,
            int threads, const LoadProgress& progress = {}) {
  StageOptions options;
  options.dtype = dtype;
  const WeightLoader tensors(reader, config_of_two_layers(), range, options, progress);
  Loaded loaded{place_weights(tensors, config_of_two_layers(), range, options), {}};
  loaded.memory.resize(loaded.places.bytes);
  stream_weights(
      reader, loaded.places.pieces, [&] { return std::make_unique<LateSink>(loaded.memory); },
      threads, progress);
  return loaded;
}

// The tensors read whole, one behind the other, in `dtype`.
std::vector<std::byte> plain(const io::CheckpointReader& reader,
                             const std::vector<std::string>& names, io::DType dtype) {
  std::vector<std::byte> all;
  for (const std::string& name : names) {
    const io::TensorInfo& tensor = *reader.find(name);
    std::vector<std::byte> stored(tensor.size_bytes);
    reader.read(tensor, stored);
    const std::size_t elements = stored.size() / io::size_of(tensor.dtype);
    std::vector<std::byte> converted(elements * io::size_of(dtype));
    io::convert(stored.data(), tensor.dtype, converted.data(), dtype, elements);
    all.insert(all.end(), converted.begin(), converted.end());
  }
  return all;
}

TEST(WeightStreamTest, PutsEveryTensorInItsPlace) {
  const io::CheckpointReader reader(file().path());
  for (const io::DType dtype : {io::DType::bf16, io::DType::f32, io::DType::f16}) {
    for (const int threads : {1, 2, 5}) {
      const Loaded loaded = load(reader, {0, 2, true, true}, dtype, threads);
      const auto expect = [&](std::uint64_t place, const std::vector<std::string>& names,
                              io::DType as) {
        const auto want = plain(reader, names, as);
        EXPECT_EQ(place % kGpuAlignment, 0u);
        ASSERT_LE(place + want.size(), loaded.memory.size());
        EXPECT_EQ(std::memcmp(loaded.memory.data() + place, want.data(), want.size()), 0)
            << names[0] << " by " << threads << " threads";
      };
      const WeightPlaces& places = loaded.places;
      expect(places.embedding, {"/embed/weight"}, dtype);
      ASSERT_EQ(places.layers.size(), 2u);
      for (int i = 0; i < 2; ++i) {
        const WeightPlaces::Layer& layer = places.layers[static_cast<std::size_t>(i)];
        const std::string at = "/layers/000" + std::to_string(i);
        expect(layer.attn_norm, {at + "/attn/norm"}, io::DType::f32);
        expect(layer.qkv.weight, {at + "/attn/q", at + "/attn/k", at + "/attn/v"}, dtype);
        expect(layer.qkv.bias, {at + "/attn/q_bias", at + "/attn/k_bias", at + "/attn/v_bias"},
               dtype);
        expect(layer.o.weight, {at + "/attn/o"}, dtype);
        expect(layer.o.bias, {at + "/attn/o_bias"}, dtype);
        expect(layer.mlp_norm, {at + "/mlp/norm"}, io::DType::f32);
        expect(layer.gate_up.weight, {at + "/mlp/gate", at + "/mlp/up"}, dtype);
        expect(layer.down.weight, {at + "/mlp/down"}, dtype);
      }
      expect(places.final_norm, {"/final/norm"}, io::DType::f32);
      expect(places.head.weight, {"/head/weight"}, dtype);
    }
  }
}

TEST(WeightStreamTest, ReadsTheTensorsOfItsStageOnceAndTellsSo) {
  const io::CheckpointReader reader(file().path());
  std::uint64_t stored = 0, read = 0;
  for (const auto& tensor : reader.tensors()) stored += tensor.size_bytes;
  for (const StageRange& range : {StageRange{0, 1, true, false}, StageRange{1, 2, false, true}}) {
    const auto caller = std::this_thread::get_id();
    std::uint64_t done = 0, total = 0;
    load(reader, range, io::DType::bf16, 3, [&](std::uint64_t d, std::uint64_t t) {
      EXPECT_TRUE(std::this_thread::get_id() == caller);
      EXPECT_GT(d, done);
      std::tie(done, total) = std::pair(d, t);
    });
    EXPECT_EQ(done, total);
    read += total;
  }
  EXPECT_EQ(read, stored);
  EXPECT_EQ(reader.bytes_read(), stored);
}

TEST(WeightStreamTest, PiecesAreBlocksOfTheCheckpoint) {
  const io::CheckpointReader reader(file().path());
  const Loaded loaded = load(reader, {0, 2, true, true}, io::DType::f32, 1);
  std::map<std::string, std::uint64_t> bytes;
  for (const WeightPiece& piece : loaded.places.pieces) {
    EXPECT_EQ(piece.first_byte % io::kChecksumBlockBytes, 0u);
    EXPECT_LE(piece.size_bytes, io::kChecksumBlockBytes);
    EXPECT_EQ(piece.first_byte, bytes[piece.tensor->name]);
    bytes[piece.tensor->name] += piece.size_bytes;
  }
  for (const auto& tensor : reader.tensors()) EXPECT_EQ(bytes[tensor.name], tensor.size_bytes);
}

void flip_bit(const std::string& path, std::uint64_t at) {
  std::fstream bytes(path, std::ios::in | std::ios::out | std::ios::binary);
  bytes.seekg(static_cast<std::streamoff>(at));
  const char byte = static_cast<char>(bytes.get() ^ 1);
  bytes.seekp(static_cast<std::streamoff>(at));
  bytes.put(byte);
}

TEST(WeightStreamTest, DamageEndsItWithTheTensorsName) {
  const tests::RandomCheckpoint damaged(config_of_two_layers(), io::DType::bf16, "stream_damaged");
  const io::CheckpointReader reader(damaged.path());
  const io::TensorInfo& tensor = *reader.find("/head/weight");
  flip_bit(damaged.path(), tensor.offset + tensor.size_bytes - 1);
  for (const int threads : {1, 4}) {
    EXPECT_THAT(
        [&] {
          load(reader, {1, 2, false, true}, io::DType::bf16, threads);
        },
        testing::ThrowsMessage<io::FileError>(HasSubstr("tensor /head/weight, block 1 of 2")));
  }
}

TEST(WeightStreamTest, AFailedSinkEndsIt) {
  class BrokenSink : public LateSink {
   public:
    using LateSink::LateSink;
    void finish() override { throw std::runtime_error("the GPU is gone"); }
  };
  const io::CheckpointReader reader(file().path());
  StageOptions options;
  const StageRange range{0, 2, true, true};
  const LoadProgress nothing;
  const WeightLoader tensors(reader, config_of_two_layers(), range, options, nothing);
  const WeightPlaces places = place_weights(tensors, config_of_two_layers(), range, options);
  std::vector<std::byte> memory(places.bytes);
  std::atomic<int> made{0};
  EXPECT_THAT(
      [&] {
        stream_weights(
            reader, places.pieces,
            [&]() -> std::unique_ptr<WeightSink> {
              if (made++ == 0) return std::make_unique<BrokenSink>(memory);
              return std::make_unique<LateSink>(memory);
            },
            3, nothing);
      },
      testing::ThrowsMessage<std::runtime_error>("the GPU is gone"));
}

// What the threads of the next test tell each other. Nobody waits for ever.
struct Meeting {
  bool wait(const std::shared_future<void>& what) const {
    return what.wait_for(std::chrono::seconds(60)) == std::future_status::ready;
  }
  std::promise<void> begin, end;  // of the thread that fails
  std::shared_future<void> begun{begin.get_future()}, ended{end.get_future()};
  std::counting_semaphore<> holding{0};  // pieces, by the others
  std::atomic<int> placed{0};
};

// Of a thread that has the first piece, all others having one of their own before it reads it.
class FirstSink : public LateSink {
 public:
  FirstSink(std::vector<std::byte>& memory, Meeting& meeting, int others)
      : LateSink(memory), meeting_(meeting), others_(others) {
    meeting.end.set_value_at_thread_exit();  // behind all that it does with its failure
  }
  std::span<std::byte> room(std::size_t bytes) override {
    meeting_.begin.set_value();
    for (int i = 0; i < others_; ++i) {
      EXPECT_TRUE(meeting_.holding.try_acquire_for(std::chrono::seconds(60)));
    }
    return LateSink::room(bytes);
  }

 private:
  Meeting& meeting_;
  int others_;
};

// Of a thread that still has a piece in hand when the first one has failed.
class HoldingSink : public LateSink {
 public:
  HoldingSink(std::vector<std::byte>& memory, Meeting& meeting, bool fails)
      : LateSink(memory), meeting_(meeting), fails_(fails) {}
  void put(std::uint64_t place, std::span<const std::byte> bytes) override {
    meeting_.holding.release();
    EXPECT_TRUE(meeting_.wait(meeting_.ended));
    ++meeting_.placed;
    if (fails_) throw std::runtime_error("a later failure");
    LateSink::put(place, bytes);
  }

 private:
  Meeting& meeting_;
  bool fails_;
};

// A thread that fails ends the others, each behind the piece that it has, and what it failed of is
// what the caller is told, whatever comes later.
TEST(WeightStreamTest, TheFirstFailureEndsAllThreads) {
  constexpr int kThreads = 4;
  for (const bool shortened : {false, true}) {
    for (const bool others_fail : {false, true}) {
      SCOPED_TRACE(testing::Message() << "shortened " << shortened << ", others " << others_fail);
      const tests::RandomCheckpoint damaged(config_of_two_layers(), io::DType::bf16,
                                            "stream_first");
      const io::CheckpointReader reader(damaged.path());
      const StageRange range{0, 2, true, true};
      const LoadProgress nothing;
      const WeightLoader tensors(reader, config_of_two_layers(), range, {}, nothing);
      WeightPlaces places = place_weights(tensors, config_of_two_layers(), range, {});
      const auto offset = [](const WeightPiece& piece) {
        return piece.tensor->offset + piece.first_byte;
      };
      // The last piece of the file is the one that breaks, and read first.
      std::ranges::sort(places.pieces, std::greater(), offset);
      const std::uint64_t last_byte = offset(places.pieces[0]) + places.pieces[0].size_bytes - 1;
      if (shortened) {
        std::filesystem::resize_file(damaged.path(), last_byte);
      } else {
        flip_bit(damaged.path(), last_byte);
      }

      Meeting meeting;
      std::vector<std::byte> memory(places.bytes);
      std::atomic<int> helpers{0};
      const auto caller = std::this_thread::get_id();
      const auto make_sink = [&]() -> std::unique_ptr<WeightSink> {
        if (std::this_thread::get_id() != caller && helpers++ == 0) {
          return std::make_unique<FirstSink>(memory, meeting, kThreads - 1);
        }
        EXPECT_TRUE(meeting.wait(meeting.begun));
        return std::make_unique<HoldingSink>(memory, meeting, others_fail);
      };
      EXPECT_THAT([&] { stream_weights(reader, places.pieces, make_sink, kThreads, nothing); },
                  testing::ThrowsMessage<io::FileError>(
                      HasSubstr(shortened ? "ends too early" : "wrong checksum")));
      EXPECT_EQ(meeting.placed, kThreads - 1);
      EXPECT_GT(places.pieces.size(), std::size_t{2 * kThreads});
    }
  }
}

}  // namespace
}  // namespace penstock::model
