#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "model/text/regex.hpp"

namespace penstock::model {

// The "normalizer" of tokenizer.json. Immutable.
class Normalizer {
 public:
  Normalizer() = default;  // changes nothing
  // Throws ModelError that names what is broken or not supported. `json` may be null.
  explicit Normalizer(const nlohmann::json& json);

  bool empty() const { return steps_.empty(); }
  // Throws ModelError where Prepend or Replace give more than `limit_bytes`.
  std::string apply(std::string_view text, std::size_t limit_bytes, MatchBuffer& buffer) const;

 private:
  struct Unicode {
    bool composed;
    bool compatible;
  };
  struct Prepend {
    std::string text;
  };
  struct Replace {
    Regex pattern;
    std::string content;
  };
  struct Lowercase {};
  struct Strip {
    bool left;
    bool right;
  };
  using Step = std::variant<Unicode, Prepend, Replace, Lowercase, Strip>;

  void add(const nlohmann::json& json, int depth);
  struct Work {
    std::size_t limit_bytes;
    MatchBuffer& buffer;
  };
  static std::string run(const Unicode& step, std::string text, const Work& work);
  static std::string run(const Prepend& step, std::string text, const Work& work);
  static std::string run(const Replace& step, std::string text, const Work& work);
  static std::string run(const Lowercase& step, std::string text, const Work& work);
  static std::string run(const Strip& step, std::string text, const Work& work);

  std::vector<Step> steps_;
};

}  // namespace penstock::model
