#include "io/input_fingerprint.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <algorithm>
#include <memory>
#include <new>
#include <span>
#include <string_view>

#include "io/error.hpp"
#include "io/file.hpp"

namespace penstock::io {
namespace {

constexpr std::uint64_t kEndBytes = 1u << 20;
constexpr std::uint64_t kReadBytes = 4u << 20;

class Hash {
 public:
  Hash() : state_(XXH3_createState()) {
    if (state_ == nullptr) throw std::bad_alloc();
    XXH3_128bits_reset(state_.get());
  }
  void add(std::string_view bytes) {
    XXH3_128bits_update(state_.get(), bytes.data(), bytes.size());
  }
  std::string hex() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
    return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
  }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_;
};

struct Status {
  std::uint64_t size_bytes = 0;
  std::int64_t mtime_ns = 0;
};

Status status_of(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) throw_errno(path, "look at");
  constexpr std::int64_t kSecond = 1'000'000'000;
  // Years that 64 bits of nanoseconds cannot hold wrap around; hostile file systems have them.
  const auto seconds = static_cast<std::uint64_t>(status.st_mtim.tv_sec);
  const auto nanoseconds = static_cast<std::uint64_t>(status.st_mtim.tv_nsec);
  return {static_cast<std::uint64_t>(status.st_size),
          static_cast<std::int64_t>(seconds * kSecond + nanoseconds)};
}

// Of bytes [begin, end). `on_bytes` gets the position.
std::string hash_of(const File& file, std::uint64_t begin, std::uint64_t end,
                    const std::function<void(std::uint64_t bytes)>& on_bytes = {}) {
  Hash hash;
  std::string buffer;
  while (begin < end) {
    buffer.resize(static_cast<std::size_t>(std::min(end - begin, kReadBytes)));
    file.read_at(begin, std::as_writable_bytes(std::span(buffer)));
    hash.add(buffer);
    begin += buffer.size();
    if (on_bytes) on_bytes(begin);
  }
  return hash.hex();
}

}  // namespace

InputFingerprint fingerprint(const std::string& path) {
  const File file(path);
  const Status status = status_of(path);
  const std::uint64_t size = status.size_bytes;
  InputFingerprint result;
  result.size_bytes = size;
  result.mtime_ns = status.mtime_ns;
  result.head_xxh3 = hash_of(file, 0, std::min(size, kEndBytes));
  result.tail_xxh3 = hash_of(file, size - std::min(size, kEndBytes), size);
  return result;
}

std::string hash_of_file(const std::string& path,
                         const std::function<void(std::uint64_t bytes)>& on_bytes) {
  return hash_of(File(path), 0, status_of(path).size_bytes, on_bytes);
}

}  // namespace penstock::io
