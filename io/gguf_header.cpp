#include "io/gguf_header.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "io/checkpoint_format.hpp"
#include "io/error.hpp"
#include "io/gguf_cursor.hpp"
#include "io/gguf_types.hpp"
#include "io/utf8.hpp"

namespace penstock::io {
namespace {

// What a header may cost, whatever the size of the file. The largest vocabularies known (262,144
// tokens, 514,906 merges) need 5 % of the bytes and 19 % of the elements.
constexpr std::uint64_t kHeaderLimitBytes = 256u << 20;
constexpr std::uint64_t kArrayElementsLimit = 4u << 20;  // over all arrays
constexpr std::uint64_t kKeysLimit = 65536;
constexpr std::uint64_t kNameLimitBytes = 65535;  // gguf.md
constexpr std::uint32_t kDimensionsLimit = 4;     // GGML_MAX_DIMS
constexpr std::uint64_t kDefaultAlignment = 32;

// gguf.md, enum gguf_metadata_value_type.
enum ValueType : std::uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

class HeaderReader {
 public:
  explicit HeaderReader(const File& file) : file_(file), cursor_(file, kHeaderLimitBytes) {}

  GgufHeader read() {
    const auto [tensors, keys] = preamble();
    for (std::uint64_t i = 0; i < keys; ++i) read_key();
    for (std::uint64_t i = 0; i < tensors; ++i) read_tensor(i);
    place_tensors();
    return std::move(header_);
  }

 private:
  struct Counts {
    std::uint64_t tensors;
    std::uint64_t keys;
  };

  Counts preamble() {
    const auto what = [] { return "the GGUF preamble"; };
    char magic[4];
    cursor_.read(magic, sizeof magic, what);
    if (std::string_view(magic, sizeof magic) != "GGUF") {
      cursor_.fail("is not a GGUF file (it does not begin with the bytes 'GGUF')");
    }
    const auto version = cursor_.number<std::uint32_t>(what);
    if ((version & 0xffffu) == 0 && version != 0) {
      cursor_.fail("is a big-endian GGUF file; only little-endian files are read");
    }
    if (version != 2 && version != 3) {
      cursor_.fail(fmt::format("is GGUF version {}; versions 2 and 3 are read", version));
    }
    const auto tensors = cursor_.number<std::uint64_t>(what);
    const auto keys = cursor_.number<std::uint64_t>(what);
    // A key needs its length, its type and a value; a tensor its name's length, the number of
    // dimensions, type and offset.
    cursor_.require_count(keys, 8 + 4 + 1, [] { return "the metadata"; });
    cursor_.require_count(tensors, 8 + 4 + 4 + 8, [] { return "the list of tensors"; });
    if (keys > kKeysLimit) {
      cursor_.fail(fmt::format("has {} metadata keys; at most {} are allowed", keys, kKeysLimit));
    }
    if (tensors > kMaxTensors) {
      cursor_.fail(fmt::format("has {} tensors; at most {} are allowed", tensors, kMaxTensors));
    }
    return {tensors, keys};
  }

  void read_key() {
    const auto number = header_.metadata.size() + 1;
    std::string key = cursor_.string(
        kNameLimitBytes, [&] { return fmt::format("the name of metadata key {}", number); });
    if (!is_valid_utf8(key))
      cursor_.fail(fmt::format("metadata key {} is not UTF-8", io::quoted(key)));
    const auto what = [&] { return fmt::format("metadata key {}", io::quoted(key)); };
    const auto type = cursor_.number<std::uint32_t>(what);
    GgufValue value = type == kArray ? array(what) : scalar(type, what);
    const auto [place, fresh] = header_.metadata.try_emplace(std::move(key), std::move(value));
    if (!fresh) {
      cursor_.fail(fmt::format("metadata key {} appears twice", io::quoted(place->first)));
    }
  }

  template <typename What>
  GgufValue scalar(std::uint32_t type, const What& what) {
    const auto widen = [&]<typename Narrow, typename Wide>(Narrow, Wide) -> GgufValue {
      return static_cast<Wide>(cursor_.number<Narrow>(what));
    };
    switch (type) {
      case kU8:
        return widen(std::uint8_t{}, std::uint64_t{});
      case kI8:
        return widen(std::int8_t{}, std::int64_t{});
      case kU16:
        return widen(std::uint16_t{}, std::uint64_t{});
      case kI16:
        return widen(std::int16_t{}, std::int64_t{});
      case kU32:
        return widen(std::uint32_t{}, std::uint64_t{});
      case kI32:
        return widen(std::int32_t{}, std::int64_t{});
      case kU64:
        return widen(std::uint64_t{}, std::uint64_t{});
      case kI64:
        return widen(std::int64_t{}, std::int64_t{});
      case kF32:
        return widen(float{}, double{});
      case kF64:
        return widen(double{}, double{});
      case kBool:
        return boolean(what);
      case kString:
        return cursor_.string(kHeaderLimitBytes, what);
      default:
        cursor_.fail(fmt::format("{} has value type {}, which GGUF does not define", what(), type));
    }
  }

  template <typename What>
  bool boolean(const What& what) {
    const auto byte = cursor_.number<std::uint8_t>(what);
    if (byte > 1) cursor_.fail(fmt::format("{} is a boolean of value {}", what(), byte));
    return byte == 1;
  }

  template <typename What>
  GgufValue array(const What& what) {
    const auto type = cursor_.number<std::uint32_t>(what);
    const auto count = cursor_.number<std::uint64_t>(what);
    if (count > kArrayElementsLimit - array_elements_) {
      cursor_.require_count(count, 1, what);
      cursor_.fail(fmt::format("{} holds {} elements; all arrays together may hold {}", what(),
                               count, kArrayElementsLimit));
    }
    array_elements_ += count;
    switch (type) {
      case kU8:
        return numbers<std::uint8_t, std::uint64_t>(count, what);
      case kI8:
        return numbers<std::int8_t, std::int64_t>(count, what);
      case kU16:
        return numbers<std::uint16_t, std::uint64_t>(count, what);
      case kI16:
        return numbers<std::int16_t, std::int64_t>(count, what);
      case kU32:
        return numbers<std::uint32_t, std::uint64_t>(count, what);
      case kI32:
        return numbers<std::int32_t, std::int64_t>(count, what);
      case kU64:
        return numbers<std::uint64_t, std::uint64_t>(count, what);
      case kI64:
        return numbers<std::int64_t, std::int64_t>(count, what);
      case kF32:
        return numbers<float, double>(count, what);
      case kF64:
        return numbers<double, double>(count, what);
      case kBool: {
        cursor_.require_count(count, 1, what);
        std::vector<bool> values(count);
        for (std::uint64_t i = 0; i < count; ++i) values[i] = boolean(what);
        return values;
      }
      case kString: {
        cursor_.require_count(count, 8, what);
        std::vector<std::string> values(count);
        for (std::string& value : values) value = cursor_.string(kHeaderLimitBytes, what);
        return values;
      }
      case kArray:
        cursor_.fail(fmt::format("{} is an array of arrays, which is not read", what()));
      default:
        cursor_.fail(fmt::format("{} is an array of value type {}, which GGUF does not define",
                                 what(), type));
    }
  }

  template <typename Narrow, typename Wide, typename What>
  std::vector<Wide> numbers(std::uint64_t count, const What& what) {
    cursor_.require_count(count, sizeof(Narrow), what);
    std::vector<Wide> values(count);
    for (Wide& value : values) value = static_cast<Wide>(cursor_.number<Narrow>(what));
    return values;
  }

  void read_tensor(std::uint64_t index) {
    GgufTensor tensor;
    SourceTensor& info = tensor.info;
    info.name = cursor_.string(kNameLimitBytes,
                               [&] { return fmt::format("the name of tensor {}", index); });
    const auto what = [&] { return fmt::format("tensor {}", io::quoted(info.name)); };
    if (!is_valid_utf8(info.name)) {
      cursor_.fail(fmt::format("the name of {} is not UTF-8", what()));
    }
    const auto dimensions = cursor_.number<std::uint32_t>(what);
    if (dimensions > kDimensionsLimit) {
      cursor_.fail(fmt::format("{} has {} dimensions; at most {} are allowed", what(), dimensions,
                               kDimensionsLimit));
    }
    info.shape.resize(dimensions);
    // GGUF names the fastest dimension first.
    for (std::size_t i = dimensions; i-- > 0;) info.shape[i] = cursor_.number<std::uint64_t>(what);
    tensor.type = cursor_.number<std::uint32_t>(what);
    tensor.offset = cursor_.number<std::uint64_t>(what);  // in the data section, for now
    info.file = file_.path();
    measure(tensor);
    if (!names_.insert(info.name).second) {
      cursor_.fail(fmt::format("{} appears twice", what()));
    }
    header_.tensors.push_back(std::move(tensor));
  }

  void measure(GgufTensor& tensor) {
    SourceTensor& info = tensor.info;
    GgmlType type = ggml_type(tensor.type);
    tensor.block_elements = type.elements;
    tensor.block_bytes = type.bytes;
    info.dtype = std::move(type.name);
    info.elements = 1;
    for (const std::uint64_t extent : info.shape) {
      if (__builtin_mul_overflow(info.elements, extent, &info.elements)) {
        cursor_.fail(fmt::format("tensor {}: the shape [{}] is too large", io::quoted(info.name),
                                 fmt::join(info.shape, ", ")));
      }
    }
    if (type.elements == 0) return;
    const std::uint64_t row = info.shape.empty() ? 1 : info.shape.back();
    if (row % type.elements != 0) {
      cursor_.fail(fmt::format("tensor {}: rows of {} elements do not fit {}'s blocks of {}",
                               io::quoted(info.name), row, info.dtype, type.elements));
    }
  }

  std::uint64_t alignment() {
    const auto found = header_.metadata.find("general.alignment");
    if (found == header_.metadata.end()) return kDefaultAlignment;
    const auto* value = std::get_if<std::uint64_t>(&found->second);
    if (value == nullptr || !std::has_single_bit(*value) ||
        *value > std::numeric_limits<std::uint32_t>::max()) {
      cursor_.fail("metadata key 'general.alignment' is not an unsigned 32-bit power of two");
    }
    return *value;
  }

  // Turns offsets in the data section into offsets in the file and checks that each tensor lies
  // inside the file and that none lies on another.
  void place_tensors() {
    const std::uint64_t unit = alignment();
    if (header_.tensors.empty()) return;
    const std::uint64_t file_bytes = file_.size_bytes();
    const std::uint64_t data_start = (cursor_.position() + unit - 1) / unit * unit;
    std::vector<std::uint64_t> sizes;
    sizes.reserve(header_.tensors.size());
    for (GgufTensor& tensor : header_.tensors) {
      const auto name = [&] { return io::quoted(tensor.info.name); };
      if (tensor.offset % unit != 0) {
        cursor_.fail(fmt::format("tensor {}: its offset {} is not a multiple of the alignment {}",
                                 name(), tensor.offset, unit));
      }
      std::uint64_t size = 0;
      if (tensor.block_elements != 0 &&
          __builtin_mul_overflow(tensor.info.elements / tensor.block_elements, tensor.block_bytes,
                                 &size)) {
        cursor_.fail(fmt::format("tensor {}: the shape [{}] is too large", name(),
                                 fmt::join(tensor.info.shape, ", ")));
      }
      if (data_start > file_bytes || tensor.offset > file_bytes - data_start ||
          size > file_bytes - data_start - tensor.offset) {
        cursor_.fail(
            fmt::format("tensor {}: its {} bytes at offset {} of the data section, which "
                        "begins at byte {}, reach beyond the file's {} bytes",
                        name(), size, tensor.offset, data_start, file_bytes));
      }
      tensor.offset += data_start;
      sizes.push_back(size);
    }
    refuse_overlaps(sizes);
  }

  void refuse_overlaps(const std::vector<std::uint64_t>& sizes) {
    std::vector<std::size_t> order(sizes.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto start = [&](std::size_t i) { return header_.tensors[i].offset; };
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return std::pair(start(a), sizes[a]) < std::pair(start(b), sizes[b]);
    });
    for (std::size_t i = 1; i < order.size(); ++i) {
      const std::size_t before = order[i - 1];
      if (start(before) + sizes[before] > start(order[i])) {
        cursor_.fail(fmt::format("tensors {} and {} overlap",
                                 io::quoted(header_.tensors[before].info.name),
                                 io::quoted(header_.tensors[order[i]].info.name)));
      }
    }
  }

  const File& file_;
  GgufCursor cursor_;
  GgufHeader header_;
  std::unordered_set<std::string> names_;
  std::uint64_t array_elements_ = 0;
};

}  // namespace

GgufHeader read_gguf_header(const File& file) { return HeaderReader(file).read(); }

}  // namespace penstock::io
