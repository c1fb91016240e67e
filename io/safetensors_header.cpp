#include "io/safetensors_header.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "io/checkpoint_format.hpp"
#include "io/error.hpp"
#include "io/safetensors_json.hpp"

namespace penstock::io {
namespace {

constexpr std::uint64_t kHeaderLimitBytes = 100'000'000;  // MAX_HEADER_SIZE of the library
constexpr std::uint64_t kLengthBytes = 8;                 // the header's length comes first

// Bits of an element; safetensors/src/tensor.rs, `Dtype`.
std::optional<std::uint64_t> bits_of(std::string_view dtype) {
  struct Row {
    std::string_view name;
    std::uint64_t bits;
  };
  static constexpr Row kDtypes[] = {
      {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
      {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
      {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
      {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
      {"I64", 64},        {"U64", 64},
  };
  for (const Row& row : kDtypes) {
    if (row.name == dtype) return row.bits;
  }
  return std::nullopt;
}

// Collects the tensors of a header: {"NAME": {"dtype": …, "shape": […], "data_offsets": [b, e]}}.
class HeaderJson : public SectionedJson {
 public:
  explicit HeaderJson(const std::string& file) : SectionedJson(file), file_(file) {}

  std::vector<SafetensorsTensor> take() { return std::move(tensors_); }

 private:
  enum class Field { dtype, shape, offsets, unknown };

  void begin_section(const std::string& section) override {
    if (!names_.insert(section).second)
      fail(fmt::format("tensor {} appears twice", io::quoted(section)));
    is_metadata_ = section == "__metadata__";
    tensor_ = {};
    tensor_.info.name = section;
    tensor_.info.file = file_;
    offsets_.clear();
    has_dtype_ = has_shape_ = has_offsets_ = false;
  }

  void begin_value(const std::string& key) override {
    field_ = Field::unknown;
    if (is_metadata_) return;
    bool* seen = nullptr;
    if (key == "dtype") {
      field_ = Field::dtype;
      seen = &has_dtype_;
    } else if (key == "shape") {
      field_ = Field::shape;
      seen = &has_shape_;
    } else if (key == "data_offsets") {
      field_ = Field::offsets;
      seen = &has_offsets_;
    } else {
      return;  // the library ignores fields that it does not know
    }
    if (*seen) fail_tensor(fmt::format("'{}' appears twice", key));
    *seen = true;
  }

  void element(Value value, bool in_array) override {
    if (is_metadata_) {
      if (in_array || !std::holds_alternative<std::string>(value)) {
        fail("a value of '__metadata__' is not a string");
      }
      return;
    }
    switch (field_) {
      case Field::dtype:
        if (in_array || !std::holds_alternative<std::string>(value)) {
          fail_tensor("'dtype' is not a string");
        }
        tensor_.info.dtype = std::move(std::get<std::string>(value));
        return;
      case Field::shape:
        return add_number(value, in_array, "shape", tensor_.info.shape);
      case Field::offsets:
        if (offsets_.size() == 2) fail_tensor("'data_offsets' has more than two elements");
        return add_number(value, in_array, "data_offsets", offsets_);
      case Field::unknown:
        return;
    }
  }

  void add_number(const Value& value, bool in_array, std::string_view field,
                  std::vector<std::uint64_t>& numbers) {
    const auto* number = std::get_if<std::uint64_t>(&value);
    if (number == nullptr || !in_array) {
      fail_tensor(fmt::format("'{}' is not an array of whole numbers from 0 to 2^64 - 1", field));
    }
    numbers.push_back(*number);
  }

  void end_section() override {
    if (is_metadata_) return;
    if (!has_dtype_) fail_tensor("'dtype' is missing");
    if (!has_shape_) fail_tensor("'shape' is missing");
    if (offsets_.size() != 2) fail_tensor("'data_offsets' does not have two elements");
    if (offsets_[0] > offsets_[1]) {
      fail_tensor(
          fmt::format("the data end at {}, before they begin at {}", offsets_[1], offsets_[0]));
    }
    tensor_.offset = offsets_[0];
    tensor_.size_bytes = offsets_[1] - offsets_[0];
    check_size();
    if (tensors_.size() == kMaxTensors) {
      fail(fmt::format("has more than {} tensors", kMaxTensors));
    }
    tensors_.push_back(std::move(tensor_));
  }

  void check_size() {
    SourceTensor& info = tensor_.info;
    const auto bits = bits_of(info.dtype);
    if (!bits) fail_tensor(fmt::format("the dtype {} is unknown", io::quoted(info.dtype)));
    std::uint64_t size_bits = *bits;
    info.elements = 1;
    for (const std::uint64_t extent : info.shape) {
      if (__builtin_mul_overflow(info.elements, extent, &info.elements) ||
          __builtin_mul_overflow(size_bits, extent, &size_bits)) {
        fail_tensor(fmt::format("the shape {} is too large", shape_text()));
      }
    }
    if (size_bits % 8 != 0) {
      fail_tensor(fmt::format("{} elements of {} are not a whole number of bytes", info.elements,
                              info.dtype));
    }
    if (size_bits / 8 != tensor_.size_bytes) {
      fail_tensor(fmt::format("shape {} of {} needs {} bytes, but 'data_offsets' span {}",
                              shape_text(), info.dtype, size_bits / 8, tensor_.size_bytes));
    }
  }

  // Enough of it to be recognized: a hostile shape may have millions of extents.
  std::string shape_text() const {
    constexpr std::size_t kShown = 8;
    const auto& shape = tensor_.info.shape;
    const auto shown = static_cast<std::ptrdiff_t>(std::min(shape.size(), kShown));
    return fmt::format("[{}{}]", fmt::join(shape.begin(), shape.begin() + shown, ", "),
                       shape.size() > kShown ? ", …" : "");
  }

  [[noreturn]] void fail_tensor(const std::string& reason) const {
    fail(fmt::format("tensor {}: {}", io::quoted(tensor_.info.name), reason));
  }

  std::string file_;
  std::vector<SafetensorsTensor> tensors_;
  std::unordered_set<std::string> names_;
  // Of the section that is being read:
  SafetensorsTensor tensor_;
  std::vector<std::uint64_t> offsets_;
  bool is_metadata_ = false;
  bool has_dtype_ = false;
  bool has_shape_ = false;
  bool has_offsets_ = false;
  Field field_ = Field::unknown;
};

// Collects "weight_map": {"TENSOR": "SHARD"}.
class IndexJson : public SectionedJson {
 public:
  using SectionedJson::SectionedJson;

  std::map<std::string, std::string> take() {
    if (!found_) fail("has no 'weight_map'");
    return std::move(map_);
  }

 private:
  void begin_section(const std::string& section) override {
    in_map_ = section == "weight_map";
    if (in_map_ && std::exchange(found_, true)) fail("'weight_map' appears twice");
  }
  void end_section() override {}
  void begin_value(const std::string& key) override { tensor_ = key; }
  void element(Value value, bool in_array) override {
    if (!in_map_) return;
    auto* shard = std::get_if<std::string>(&value);
    if (in_array || shard == nullptr) {
      fail(fmt::format("'weight_map' gives tensor {} no file name", io::quoted(tensor_)));
    }
    // A file name and nothing else, so that it cannot leave the folder.
    if (shard->empty() || *shard == "." || *shard == ".." ||
        shard->find('/') != std::string::npos || shard->find('\0') != std::string::npos) {
      fail(
          fmt::format("'weight_map' puts tensor {} into {}, which is not the name of a file in "
                      "this folder",
                      io::quoted(tensor_), io::quoted(*shard)));
    }
    if (!map_.emplace(tensor_, std::move(*shard)).second) {
      fail(fmt::format("'weight_map' names tensor {} twice", io::quoted(tensor_)));
    }
    if (map_.size() > kMaxTensors) {
      fail(fmt::format("'weight_map' names more than {} tensors", kMaxTensors));
    }
  }

  std::map<std::string, std::string> map_;
  std::string tensor_;
  bool in_map_ = false;
  bool found_ = false;
};

std::string read_header_text(const File& file) {
  const std::uint64_t file_bytes = file.size_bytes();
  if (file_bytes < kLengthBytes) {
    throw FileError(file.path(), fmt::format("is only {} bytes long; a safetensors file begins "
                                             "with the 8-byte length of its header",
                                             file_bytes));
  }
  std::uint64_t length = 0;
  file.read_at(0, std::as_writable_bytes(std::span(&length, 1)));
  if (length > kHeaderLimitBytes) {
    throw FileError(file.path(),
                    fmt::format("is not a safetensors file, or a broken one: its header is said to "
                                "be {} bytes long; at most {} are allowed",
                                length, kHeaderLimitBytes));
  }
  if (length > file_bytes - kLengthBytes) {
    throw FileError(file.path(), fmt::format("ends too early: its header is said to be {} bytes "
                                             "long, but {} bytes follow",
                                             length, file_bytes - kLengthBytes));
  }
  std::string text(length, '\0');
  file.read_at(kLengthBytes, std::as_writable_bytes(std::span(text)));
  if (!text.starts_with('{')) {
    throw FileError(file.path(), "the safetensors header does not begin with '{'");
  }
  return text;
}

}  // namespace

std::vector<SafetensorsTensor> read_safetensors_header(const File& file) {
  std::uint64_t data_start = kLengthBytes;
  HeaderJson json(file.path());
  {
    const std::string text = read_header_text(file);
    data_start += text.size();
    json.walk(text);
  }
  std::vector<SafetensorsTensor> tensors = json.take();
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.offset, a.size_bytes) < std::pair(b.offset, b.size_bytes);
  });
  std::uint64_t covered = 0;
  for (SafetensorsTensor& tensor : tensors) {
    if (tensor.offset != covered) {
      throw FileError(file.path(),
                      fmt::format("tensor {}: its data begin at {}, but the data before end at {}",
                                  io::quoted(tensor.info.name), tensor.offset, covered));
    }
    covered += tensor.size_bytes;
    tensor.offset += data_start;
  }
  const std::uint64_t data_bytes = file.size_bytes() - data_start;
  if (covered != data_bytes) {
    throw FileError(file.path(), fmt::format("the tensors need {} bytes of data, but the file "
                                             "holds {}",
                                             covered, data_bytes));
  }
  return tensors;
}

std::map<std::string, std::string> read_safetensors_index(const std::string& path) {
  IndexJson json(path);
  json.walk(read_text(path, kHeaderLimitBytes));
  return json.take();
}

}  // namespace penstock::io
