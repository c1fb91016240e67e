#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "io/checkpoint.hpp"

// A small checkpoint as bytes, and ways to damage it that leave HDF5's own checksums right.
namespace penstock::io::test {

inline CheckpointHeader small_header() {
  CheckpointHeader header;
  header.architecture = "llama";
  header.source = "a folder of ünïcode";
  header.created_by = "penstock 0.1.0";
  header.dtype = DType::bf16;
  header.config = {{"hidden_size", std::int64_t{64}},
                   {"rope_theta", 10000.0},
                   {"rope_type", std::string("none")},
                   {"empty", std::string()},
                   {"negative", std::int64_t{-1}}};
  for (int i = 0; i < 12; ++i)
    header.config.push_back({"more_" + std::to_string(i), std::int64_t{i}});
  header.config_text = R"({"hidden_size": 64})";
  header.tokenizer = {{"tokenizer.json", std::string("{\"model\":{\"type\":\"BPE\"}}")},
                      {"chat_template", std::string("{{ messages }}\n\0x", 17)},
                      {"nothing", ""}};
  return header;
}

inline std::vector<TensorSpec> small_tensors() {
  std::vector<TensorSpec> tensors{{"/embed/weight", DType::bf16, {50, 64}}};
  for (const std::string layer : {"/layers/0000", "/layers/0001"}) {
    tensors.push_back({layer + "/attn/norm", DType::f32, {64}});
    tensors.push_back({layer + "/attn/q", DType::bf16, {64, 64}});
    tensors.push_back({layer + "/mlp/up", DType::f16, {96, 64}});
  }
  tensors.push_back({"/final/norm", DType::f32, {64}});
  tensors.push_back({"/head/weight", DType::bf16, {50, 64}});
  return tensors;
}

inline std::uint64_t bytes_of(const TensorSpec& tensor) {
  std::uint64_t bytes = size_of(tensor.dtype);
  for (const std::uint64_t extent : tensor.shape) bytes *= extent;
  return bytes;
}

// Bytes that differ from tensor to tensor and from place to place.
inline std::vector<std::byte> content_of(std::size_t tensor, std::uint64_t size_bytes) {
  std::vector<std::byte> bytes(size_bytes);
  std::uint64_t state = 0x9e3779b97f4a7c15u * (tensor + 1);
  for (std::byte& byte : bytes) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<std::byte>(state >> 56u);
  }
  return bytes;
}

inline void write_checkpoint(const std::string& path, const CheckpointHeader& header,
                             const std::vector<TensorSpec>& tensors) {
  CheckpointWriter writer(path, header, tensors);
  for (std::size_t i = 0; i < tensors.size() && !header.no_data; ++i) {
    writer.append(i, content_of(i, bytes_of(tensors[i])));
  }
  writer.finish();
}

inline std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

inline void write_file(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

inline std::uint64_t number_at(const std::string& bytes, std::size_t offset, std::size_t size) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < size && offset + i < bytes.size(); ++i) {
    value |= std::uint64_t{static_cast<unsigned char>(bytes[offset + i])} << (8 * i);
  }
  return value;
}

inline void set_number(std::string& bytes, std::size_t offset, std::uint64_t value,
                       std::size_t size) {
  for (std::size_t i = 0; i < size && offset + i < bytes.size(); ++i) {
    bytes[offset + i] = static_cast<char>(value >> (8 * i));
  }
}

// HDF5's metadata checksum: Bob Jenkins' lookup3 hashlittle (public domain), initial value 0.
inline std::uint32_t lookup3(std::string_view key) {
  const auto word = [&](std::size_t at) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < 4 && at + i < key.size(); ++i) {
      value |= std::uint32_t{static_cast<unsigned char>(key[at + i])} << (8 * i);
    }
    return value;
  };
  const auto rotate = [](std::uint32_t x, int k) { return (x << k) | (x >> (32 - k)); };
  std::uint32_t a = 0xdeadbeefu + static_cast<std::uint32_t>(key.size());
  std::uint32_t b = a;
  std::uint32_t c = a;
  std::size_t at = 0;
  for (; key.size() - at > 12; at += 12) {
    a += word(at), b += word(at + 4), c += word(at + 8);
    a -= c, a ^= rotate(c, 4), c += b;
    b -= a, b ^= rotate(a, 6), a += c;
    c -= b, c ^= rotate(b, 8), b += a;
    a -= c, a ^= rotate(c, 16), c += b;
    b -= a, b ^= rotate(a, 19), a += c;
    c -= b, c ^= rotate(b, 4), b += a;
  }
  if (at == key.size()) return c;
  a += word(at), b += word(at + 4), c += word(at + 8);
  c ^= b, c -= rotate(b, 14);
  a ^= c, a -= rotate(c, 11);
  b ^= a, b -= rotate(a, 25);
  c ^= b, c -= rotate(b, 16);
  a ^= c, a -= rotate(c, 4);
  b ^= a, b -= rotate(a, 14);
  c ^= b, c -= rotate(b, 24);
  return c;
}

// A header message of version 2 object headers.
struct RawMessage {
  unsigned type = 0;
  std::size_t offset = 0;  // of its content in the file
  std::size_t size = 0;
};

// The messages of the object header at `address`; makes its chunks' checksums right if `repair`.
inline std::vector<RawMessage> walk_object(std::string& bytes, std::size_t address, bool repair) {
  std::vector<RawMessage> messages;
  if (address > bytes.size() || bytes.size() - address < 16 ||
      bytes.compare(address, 4, "OHDR") != 0) {
    return messages;
  }
  const auto flags = static_cast<unsigned>(bytes[address + 5]);
  const std::size_t size_bytes = std::size_t{1} << (flags & 3u);
  const std::size_t prefix =
      6 + ((flags & 0x20u) != 0 ? 16u : 0u) + ((flags & 0x10u) != 0 ? 4u : 0u);
  struct Chunk {
    std::size_t start, first, end;
  };
  const std::size_t first = address + prefix + size_bytes;
  std::vector<Chunk> chunks{
      {address, first, first + number_at(bytes, address + prefix, size_bytes)}};
  for (std::size_t i = 0; i < chunks.size() && i < 64; ++i) {
    const Chunk chunk = chunks[i];
    if (chunk.end < chunk.first || bytes.size() < 4 || chunk.end > bytes.size() - 4) break;
    std::size_t at = chunk.first;
    const std::size_t head = (flags & 4u) != 0 ? 6 : 4;
    while (at + head <= chunk.end) {
      const RawMessage message{static_cast<unsigned char>(bytes[at]), at + head,
                               number_at(bytes, at + 1, 2)};
      if (message.size > chunk.end - message.offset) break;
      messages.push_back(message);
      at = message.offset + message.size;
      if (message.type == 0x10) {
        const std::uint64_t next = number_at(bytes, message.offset, 8);
        const std::uint64_t length = number_at(bytes, message.offset + 8, 8);
        if (length >= 8 && next < bytes.size() && length <= bytes.size() - next) {
          chunks.push_back({next, next + 4, next + length - 4});
        }
      }
    }
    if (repair) {
      set_number(bytes, chunk.end,
                 lookup3(std::string_view(bytes).substr(chunk.start, chunk.end - chunk.start)), 4);
    }
  }
  return messages;
}

inline void repair_checksums(std::string& bytes) {
  if (bytes.size() >= 48) set_number(bytes, 44, lookup3(std::string_view(bytes).substr(0, 44)), 4);
  for (std::size_t at = bytes.find("OHDR"); at != std::string::npos;
       at = bytes.find("OHDR", at + 4)) {
    walk_object(bytes, at, true);
  }
}

}  // namespace penstock::io::test
