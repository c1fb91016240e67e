#include <type_traits>

#include "model/ops/kv_write.hpp"

namespace penstock::model {
namespace {

template <class To, class From>
To converted(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (std::is_same_v<To, float>) {
    return io::bf16_to_f32(value);
  } else {
    return io::f32_to_bf16(value);
  }
}

template <class From, class To>
void write_row(const KvWrite& args, std::size_t row) {
  const KvLayout& layout = args.layout;
  const std::size_t token = args.positions[row] % KvLayout::kTokens;
  std::byte* block = args.cache + args.blocks[row] * layout.block_bytes();
  for (std::size_t head = 0; head < layout.kv_heads; ++head) {
    const std::size_t from = row * args.row_stride + head * layout.head_dim;
    const From* k = static_cast<const From*>(args.k) + from;
    const From* v = static_cast<const From*>(args.v) + from;
    std::byte* tiles = block + head * layout.head_bytes();
    To* keys = reinterpret_cast<To*>(tiles) + token;
    To* values =
        reinterpret_cast<To*>(tiles + layout.key_tile_bytes()) + token * layout.value_stride();
    for (std::size_t i = 0; i < layout.head_dim; ++i) {
      keys[i * KvLayout::kTokens] = converted<To>(k[i]);
    }
    for (std::size_t i = 0; i < layout.head_dim; ++i) values[i] = converted<To>(v[i]);
  }
}

template <class From, class To>
void write_rows(const Cpu& device, const KvWrite& args) {
  const auto rows = static_cast<std::ptrdiff_t>(args.rows);
#pragma omp parallel for schedule(static) num_threads(device.threads) if (rows > 8)
  for (std::ptrdiff_t row = 0; row < rows; ++row) {
    write_row<From, To>(args, static_cast<std::size_t>(row));
  }
}

}  // namespace

void kv_write(const Cpu& device, const KvWrite& args) {
  const bool from_f32 = args.dtype == io::DType::f32;
  const bool to_f32 = args.layout.dtype == io::DType::f32;
  if (from_f32) {
    to_f32 ? write_rows<float, float>(device, args)
           : write_rows<float, std::uint16_t>(device, args);
  } else {
    to_f32 ? write_rows<std::uint16_t, float>(device, args)
           : write_rows<std::uint16_t, std::uint16_t>(device, args);
  }
}

}  // namespace penstock::model
