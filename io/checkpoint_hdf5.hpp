#pragma once

// One spelling of the calls that changed their form after HDF5 1.10.
#define H5_USE_110_API
#include <hdf5.h>

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "io/checkpoint.hpp"
#include "io/dtype.hpp"

// The little of the HDF5 C library that checkpoints need, with RAII and exceptions.
namespace penstock::io::hdf5 {

// Held while HDF5 is used: one thread at a time (the library may be built without its own lock),
// its error printing off, its plugins disabled.
class Session {
 public:
  Session();
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

 private:
  std::unique_lock<std::mutex> lock_;
  H5E_auto2_t print_ = nullptr;
  void* print_data_ = nullptr;
};

// Owns an HDF5 identifier of any kind.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  ~Handle() { reset(); }
  Handle(Handle&& other) noexcept
      : id_(std::exchange(other.id_, -1)), close_(std::exchange(other.close_, nullptr)) {}
  Handle& operator=(Handle&& other) noexcept {
    if (this != &other) {
      reset();
      id_ = std::exchange(other.id_, -1);
      close_ = std::exchange(other.close_, nullptr);
    }
    return *this;
  }
  hid_t get() const { return id_; }
  // Closes now; false if HDF5 could not, which for a file means that bytes were not written.
  bool reset() {
    const hid_t id = std::exchange(id_, -1);
    return id < 0 || close_ == nullptr || close_(id) >= 0;
  }

 private:
  hid_t id_ = -1;
  Close close_ = nullptr;
};

// Throws FileError: `what`, followed by HDF5's own words about the failed call.
[[noreturn]] void fail(std::string_view path, std::string_view what);

// Passes on what a call returned; negative means failed.
template <typename T>
T check(T result, std::string_view path, std::string_view what) {
  if (result < 0) fail(path, what);
  return result;
}

inline Handle own(hid_t id, Handle::Close close, std::string_view path, std::string_view what) {
  return Handle(check(id, path, what), close);
}

// File access without file locking: parallel file systems often refuse locks (errno 37 or 524),
// and neither a published checkpoint nor a temporary one is written by two.
Handle file_access(const std::string& path);

// The type in the file. bf16 has the very fields of HDF5 2.0's H5T_FLOAT_BFLOAT16LE, f16 those of
// IEEE 754 binary16, as h5py's float16.
Handle file_type(DType dtype);
// The dtype whose file_type is `type`.
std::optional<DType> dtype_of(hid_t type);

// A scalar attribute: 64-bit little-endian integer, IEEE double, or fixed-length string.
void write_attribute(hid_t object, const std::string& path, const std::string& name,
                     const Attribute& value);
// Throws FileError that names `where` and the attribute when it has any other form.
Attribute read_attribute(hid_t object, const std::string& path, std::string_view where,
                         const std::string& name);

}  // namespace penstock::io::hdf5
