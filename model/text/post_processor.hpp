#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <vector>

namespace penstock::model {

// The "post_processor" of tokenizer.json for single texts: the ids put around a text. Immutable.
class PostProcessor {
 public:
  // Throws ModelError that names what is broken or not supported. `json` may be null.
  explicit PostProcessor(const nlohmann::json& json);

  const std::vector<std::int32_t>& before() const { return before_; }
  const std::vector<std::int32_t>& after() const { return after_; }

 private:
  void add(const nlohmann::json& json, int depth);
  void add_template(const nlohmann::json& json);

  std::vector<std::int32_t> before_;
  std::vector<std::int32_t> after_;
  bool has_template_ = false;
};

}  // namespace penstock::model
