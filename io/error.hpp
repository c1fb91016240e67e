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

// A name that a file chose, fit for a message on a terminal: in single quotes, control characters
// escaped as \xNN, broken UTF-8 replaced by U+FFFD, cut after 120 bytes.
// Call it as io::quoted: a plain call with a std::string may find std::quoted.
std::string quoted(std::string_view name);

// "PATH: cannot ACTION: …" in the operating system's words for errno.
[[noreturn]] void throw_errno(std::string_view path, std::string_view action);

}  // namespace penstock::io
