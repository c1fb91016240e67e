#include "io/checkpoint_checksum.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <new>

#include "io/checkpoint_format.hpp"

// Debian's library is built for SSE2 and chooses AVX2 or AVX-512 at run time through these names.
#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h>
#endif

namespace penstock::io {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are stored little-endian");

// Feeds numbers as 64-bit little-endian and strings with their length before them, so that no two
// different headers give the same bytes.
class DigestBuilder {
 public:
  void add(std::uint64_t number) { hash_.add(std::as_bytes(std::span(&number, 1))); }
  void add(std::string_view text) {
    add(text.size());
    hash_.add(std::as_bytes(std::span(text)));
  }
  void add(std::span<const BlockChecksum> checksums) {
    add(checksums.size_bytes());
    hash_.add(std::as_bytes(checksums));
  }
  void add_value(const Attribute& value) {
    if (const auto* integer = std::get_if<std::int64_t>(&value)) {
      add("i");
      add(static_cast<std::uint64_t>(*integer));
    } else if (const auto* real = std::get_if<double>(&value)) {
      add("f");
      add(std::bit_cast<std::uint64_t>(*real));
    } else {
      add("s");
      add(std::get<std::string>(value));
    }
  }
  std::string hexadecimal() const { return fmt::format("{:02x}", fmt::join(hash_.value(), "")); }

 private:
  Xxh3 hash_;
};

template <typename T>
std::vector<const T*> sorted_by_name(const std::vector<T>& items) {
  std::vector<const T*> sorted;
  for (const T& item : items) sorted.push_back(&item);
  std::ranges::sort(sorted, {}, [](const T* item) { return std::string_view(item->name); });
  return sorted;
}

XXH3_state_t* state_of(void* state) { return static_cast<XXH3_state_t*>(state); }

}  // namespace

void Xxh3::Free::operator()(void* state) const { XXH3_freeState(state_of(state)); }

Xxh3::Xxh3() : state_(XXH3_createState()) {
  if (!state_) throw std::bad_alloc();
  reset();
}

void Xxh3::reset() { XXH3_128bits_reset(state_of(state_.get())); }

void Xxh3::add(std::span<const std::byte> bytes) {
  XXH3_128bits_update(state_of(state_.get()), bytes.data(), bytes.size());
}

BlockChecksum Xxh3::value() const {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state_of(state_.get())));
  BlockChecksum checksum;
  static_assert(sizeof(canonical.digest) == sizeof(checksum));
  std::ranges::copy(canonical.digest, checksum.begin());
  return checksum;
}

bool tensor_bytes(const TensorSpec& tensor, std::uint64_t& size_bytes) {
  std::uint64_t product = size_of(tensor.dtype);
  for (const std::uint64_t extent : tensor.shape) {
    if (__builtin_mul_overflow(product, extent, &product)) return false;
  }
  size_bytes = product;
  return product <= static_cast<std::uint64_t>(INT64_MAX);
}

std::string checkpoint_digest(const CheckpointHeader& header,
                              std::span<const TensorSpec* const> tensors,
                              std::span<const BlockChecksum> checksums) {
  DigestBuilder digest;
  digest.add(kFormatName);
  digest.add(static_cast<std::uint64_t>(kSchema));
  digest.add(header.architecture);
  digest.add(to_string(header.dtype));
  digest.add(std::uint64_t{header.no_data});
  digest.add(header.config.size());
  for (const NamedAttribute* attribute : sorted_by_name(header.config)) {
    digest.add(attribute->name);
    digest.add_value(attribute->value);
  }
  digest.add(header.config_text);
  digest.add(header.tokenizer.size());
  for (const Blob* blob : sorted_by_name(header.tokenizer)) {
    digest.add(blob->name);
    digest.add(blob->bytes);
  }
  digest.add(tensors.size());
  for (const TensorSpec* tensor : tensors) {
    digest.add(tensor->name);
    digest.add(to_string(tensor->dtype));
    digest.add(tensor->shape.size());
    for (const std::uint64_t extent : tensor->shape) digest.add(extent);
  }
  digest.add(checksums);
  return digest.hexadecimal();
}

}  // namespace penstock::io
