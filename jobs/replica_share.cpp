#include "jobs/replica_share.hpp"

#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "comm/error.hpp"

namespace penstock::jobs {
namespace {

using nlohmann::json;

// A message is the length of its head (8 bytes), the head (CBOR), a bit for each record of the
// range, and the ids of the partial answers one after the other, whose lengths stand in the head.
// All ranks run one program on machines of one kind, so numbers travel as they lie in memory.

std::uint64_t bytes_of_bits(const RecordRange& range) { return (range.size() + 7) / 8; }

void append(std::vector<std::byte>& bytes, const void* data, std::size_t size) {
  const auto* begin = static_cast<const std::byte*>(data);
  bytes.insert(bytes.end(), begin, begin + size);
}

void append_finished(std::vector<std::byte>& bytes, const ReplicaShare& share) {
  const std::size_t begin = bytes.size();
  bytes.resize(begin + bytes_of_bits(share.range));
  for (std::uint64_t i = 0; i < share.range.size(); ++i) {
    if (!share.finished.contains(share.range.first + i)) continue;
    bytes[begin + i / 8] |= std::byte{1} << (i % 8);
  }
}

// Takes `size` bytes from the front.
std::span<const std::byte> take(std::span<const std::byte>& rest, std::uint64_t size) {
  if (size > rest.size()) throw comm::CommError("a message with a replica's share is cut short");
  const auto taken = rest.first(size);
  rest = rest.subspan(size);
  return taken;
}

json head_of(const ShareMessage& message) {
  const ReplicaShare& share = message.share;
  json partial = json::array();
  for (const auto& [record, tokens] : share.earlier.partial) {
    partial.push_back({record, tokens.size()});
  }
  return {{"first", share.range.first},
          {"end", share.range.end},
          {"answered", share.earlier.answered},
          {"failed", share.earlier.failed},
          {"partial", partial},
          {"index_xxh3", message.index_xxh3},
          {"text", message.format == io::InputFormat::text},
          {"parameters", message.parameters}};
}

}  // namespace

std::vector<ReplicaShare> split_job(const RecordRange& range, const io::RecordSet& finished,
                                    EarlierWork earlier, int replicas) {
  const auto parts = static_cast<std::uint64_t>(replicas);
  const std::uint64_t left = range.size() - finished.size();
  std::vector<ReplicaShare> shares(parts);
  std::uint64_t record = range.first;
  std::uint64_t passed = 0;  // of those that are left
  for (std::uint64_t part = 0; part < parts; ++part) {
    ReplicaShare& share = shares[part];
    const std::uint64_t until = left / parts * (part + 1) + left % parts * (part + 1) / parts;
    share.range.first = record;
    while (record < range.end && (passed < until || part + 1 == parts)) {
      passed += finished.contains(record) ? 0 : 1;
      ++record;
    }
    share.range.end = record;
    share.finished = io::RecordSet(share.range.first, share.range.end);
    for (std::uint64_t i = share.range.first; i < share.range.end; ++i) {
      if (finished.contains(i)) share.finished.insert(i);
    }
  }
  for (auto& [partial, tokens] : earlier.partial) {
    for (ReplicaShare& share : shares) {
      if (partial >= share.range.end) continue;
      share.earlier.partial.emplace(partial, std::move(tokens));
      break;
    }
  }
  shares[0].earlier.answered = earlier.answered;
  shares[0].earlier.failed = earlier.failed;
  shares[0].earlier.damaged_lines = earlier.damaged_lines;
  return shares;
}

std::vector<std::byte> share_message(const ShareMessage& message) {
  const std::vector<std::uint8_t> head = json::to_cbor(head_of(message));
  const std::uint64_t head_bytes = head.size();
  std::vector<std::byte> bytes;
  append(bytes, &head_bytes, sizeof head_bytes);
  append(bytes, head.data(), head.size());
  append_finished(bytes, message.share);
  for (const auto& [record, tokens] : message.share.earlier.partial) {
    append(bytes, tokens.data(), tokens.size() * sizeof(std::int32_t));
  }
  return bytes;
}

ShareMessage parse_share(std::span<const std::byte> bytes) try {
  std::uint64_t head_bytes = 0;
  std::memcpy(&head_bytes, take(bytes, sizeof head_bytes).data(), sizeof head_bytes);
  const auto head_text = take(bytes, head_bytes);
  const auto* head_begin = reinterpret_cast<const std::uint8_t*>(head_text.data());
  const json head = json::from_cbor(head_begin, head_begin + head_text.size());
  ShareMessage message;
  ReplicaShare& share = message.share;
  share.range = {head.at("first").get<std::uint64_t>(), head.at("end").get<std::uint64_t>()};
  if (share.range.end < share.range.first) {
    throw comm::CommError("a message with a replica's share is broken");
  }
  const auto bits = take(bytes, bytes_of_bits(share.range));
  share.finished = io::RecordSet(share.range.first, share.range.end);
  for (std::uint64_t i = 0; i < share.range.size(); ++i) {
    if ((bits[i / 8] & (std::byte{1} << (i % 8))) != std::byte{}) {
      share.finished.insert(share.range.first + i);
    }
  }
  share.earlier.answered = head.at("answered");
  share.earlier.failed = head.at("failed");
  for (const json& entry : head.at("partial")) {
    const std::uint64_t tokens = entry.at(1);
    const auto ids = take(bytes, tokens * sizeof(std::int32_t));
    auto& partial = share.earlier.partial[entry.at(0).get<std::uint64_t>()];
    partial.resize(tokens);
    if (tokens > 0) std::memcpy(partial.data(), ids.data(), ids.size());
  }
  message.index_xxh3 = head.at("index_xxh3");
  message.format = head.at("text").get<bool>() ? io::InputFormat::text : io::InputFormat::jsonl;
  message.parameters = head.at("parameters");
  return message;
} catch (const json::exception& error) {
  throw comm::CommError(
      fmt::format("a message with a replica's share is broken: {}", error.what()));
}

}  // namespace penstock::jobs
