#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace penstock::io {

// A file that cannot be read, written or trusted. what() is "FILE: REASON", ready for the user;
// REASON names the tensor, key, line or offset concerned.
class FileError : public std::runtime_error {
 public:
  FileError(std::string_view file, std::string_view reason)
      : std::runtime_error(std::string(file) + ": " + std::string(reason)) {}
};

}  // namespace penstock::io
