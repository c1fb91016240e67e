#pragma once

#include <stdexcept>
#include <string>

namespace penstock::comm {

// A message that did not arrive, a call of MPI that failed, a peer that is gone. what() names the
// operation, the peer and the time waited.
class CommError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Thrown on every rank by agree() when one of them was not ok. `reported`: this is the rank whose
// text it is, the only one that prints it.
class AgreeError : public std::runtime_error {
 public:
  AgreeError(const std::string& text, bool is_reported)
      : std::runtime_error(text), reported(is_reported) {}
  bool reported;
};

}  // namespace penstock::comm
