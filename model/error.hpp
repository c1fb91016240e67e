#pragma once

#include <stdexcept>

namespace penstock::model {

// A model, tokenizer or request that cannot be used; what() is ready for the user.
class ModelError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace penstock::model
