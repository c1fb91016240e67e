#include "io/checkpoint_hdf5.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "io/checkpoint_format.hpp"
#include "io/error.hpp"
#include "io/utf8.hpp"

namespace penstock::io::hdf5 {
namespace {

std::mutex& library_mutex() {
  static std::mutex mutex;
  return mutex;
}

// Keeps the description of the innermost call that failed: H5E_WALK_UPWARD starts there.
herr_t keep_first(unsigned depth, const H5E_error2_t* error, void* words) noexcept {
  if (depth == 0 && error->desc != nullptr) {
    try {
      *static_cast<std::string*>(words) = error->desc;
    } catch (const std::bad_alloc&) {
      return -1;
    }
  }
  return 0;
}

Handle string_type(std::size_t size) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), std::max<std::size_t>(size, 1));
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  return type;
}

bool is_fixed_string(hid_t type) {
  return H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0 &&
         H5Tget_strpad(type) != H5T_STR_SPACEPAD;
}

}  // namespace

Session::Session() : lock_(library_mutex()) {
  H5open();
  H5PLset_loading_state(0);
  H5Eget_auto2(H5E_DEFAULT, &print_, &print_data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Session::~Session() { H5Eset_auto2(H5E_DEFAULT, print_, print_data_); }

void fail(std::string_view path, std::string_view what) {
  std::string words;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &words);
  std::ranges::replace(words, '\n', ' ');  // some hold a date as ctime gives it
  throw FileError(
      path, words.empty() ? std::string(what) : fmt::format("{} (HDF5 says: {})", what, words));
}

Handle file_access(const std::string& path) {
  Handle access = own(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, path, "cannot set HDF5 up");
  check(H5Pset_fapl_sec2(access.get()), path, "cannot choose the HDF5 file driver");
  check(H5Pset_file_locking(access.get(), false, true), path, "cannot turn HDF5's locks off");
  check(H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG), path, "cannot set HDF5 up");
  return access;
}

Handle file_type(DType dtype) {
  if (dtype == DType::f32) return Handle(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
  Handle type(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
  // Order matters: HDF5 refuses fields outside the precision, and a precision below the fields.
  const bool bf16 = dtype == DType::bf16;
  const std::size_t mantissa_bits = bf16 ? 7 : 10;
  const std::size_t exponent_bits = bf16 ? 8 : 5;
  H5Tset_fields(type.get(), 15, mantissa_bits, exponent_bits, 0, mantissa_bits);
  H5Tset_precision(type.get(), 16);
  H5Tset_size(type.get(), 2);
  H5Tset_ebias(type.get(), bf16 ? 127 : 15);
  return type;
}

std::optional<DType> dtype_of(hid_t type) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    if (H5Tequal(type, file_type(dtype).get()) > 0) return dtype;
  }
  return std::nullopt;
}

void write_attribute(hid_t object, const std::string& path, const std::string& name,
                     const Attribute& value) {
  const std::string what = fmt::format("cannot write the attribute {}", quoted(name));
  Handle type;
  const void* bytes = nullptr;
  if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    type = Handle(H5Tcopy(H5T_STD_I64LE), H5Tclose);
    bytes = integer;
  } else if (const auto* real = std::get_if<double>(&value)) {
    type = Handle(H5Tcopy(H5T_IEEE_F64LE), H5Tclose);
    bytes = real;
  } else {
    const auto& text = std::get<std::string>(value);
    if (text.size() > kMaxStringBytes) {
      throw FileError(path, fmt::format("{}: {} bytes, at most {} are allowed", what, text.size(),
                                        kMaxStringBytes));
    }
    if (text.find('\0') != std::string::npos) {
      throw FileError(path, fmt::format("{}: it holds a zero byte", what));
    }
    type = string_type(text.size());
    bytes = text.c_str();  // an empty text has size 1 in the file: its terminator
  }
  const Handle space = own(H5Screate(H5S_SCALAR), H5Sclose, path, what);
  const Handle attribute =
      own(H5Acreate2(object, name.c_str(), type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT),
          H5Aclose, path, what);
  check(H5Awrite(attribute.get(), type.get(), bytes), path, what);
}

Attribute read_attribute(hid_t object, const std::string& path, std::string_view where,
                         const std::string& name) {
  const std::string what = fmt::format("attribute {} of {}", quoted(name), where);
  const Handle attribute =
      own(H5Aopen(object, name.c_str(), H5P_DEFAULT), H5Aclose, path, what + " cannot be opened");
  const Handle space = own(H5Aget_space(attribute.get()), H5Sclose, path, what);
  const Handle type = own(H5Aget_type(attribute.get()), H5Tclose, path, what);
  if (H5Sget_simple_extent_type(space.get()) != H5S_SCALAR) {
    throw FileError(path, what + " must be a single value, not an array");
  }
  if (H5Tequal(type.get(), H5T_STD_I64LE) > 0) {
    std::int64_t value = 0;
    check(H5Aread(attribute.get(), H5T_NATIVE_INT64, &value), path, what);
    return value;
  }
  if (H5Tequal(type.get(), H5T_IEEE_F64LE) > 0) {
    double value = 0;
    check(H5Aread(attribute.get(), H5T_NATIVE_DOUBLE, &value), path, what);
    return value;
  }
  if (!is_fixed_string(type.get())) {
    throw FileError(path, what +
                              " must be a 64-bit little-endian integer, a double, or a string of "
                              "fixed length");
  }
  const std::size_t size = H5Tget_size(type.get());
  if (size > kMaxStringBytes) {
    throw FileError(
        path, fmt::format("{} has {} bytes, at most {} are allowed", what, size, kMaxStringBytes));
  }
  std::string text(size, '\0');
  check(H5Aread(attribute.get(), type.get(), text.data()), path, what);
  text.resize(std::min(text.find('\0'), text.size()));
  if (!is_valid_utf8(text)) throw FileError(path, what + " is not UTF-8");
  return text;
}

}  // namespace penstock::io::hdf5
