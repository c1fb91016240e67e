#include "model/text/decoder.hpp"

#include <fmt/format.h>

#include <optional>

#include "io/error.hpp"
#include "io/utf8.hpp"
#include "model/error.hpp"
#include "model/text/byte_alphabet.hpp"
#include "model/text/json_fields.hpp"
#include "model/text/utf8.hpp"

// Source of the behaviour: github.com/huggingface/tokenizers, tokenizers/src/decoders.
namespace penstock::model {

// What a stage is told of the chain it is put into.
struct Decoder::Chain {
  bool fused;                                      // the stages before give one token in many parts
  std::shared_ptr<const std::size_t> given_bytes;  // to the whole chain, so far
};

// Makes the stage of one decoder.
class Decoder::Part {
 public:
  virtual ~Part() = default;
  virtual std::unique_ptr<DecodeStage> stage(std::unique_ptr<DecodeStage> out,
                                             const Chain& chain) const = 0;
  virtual bool fuses() const { return false; }
};

namespace {

using Stage = std::unique_ptr<DecodeStage>;

// The bytes of all tokens a chain was given, in front of the chain.
class CountStage : public DecodeStage {
 public:
  CountStage(std::shared_ptr<std::size_t> given_bytes, Stage out)
      : given_bytes_(std::move(given_bytes)), out_(std::move(out)) {}
  void push(std::string_view part, bool is_first_part) override {
    *given_bytes_ += part.size();
    out_->push(part, is_first_part);
  }
  void finish() override { out_->finish(); }

 private:
  std::shared_ptr<std::size_t> given_bytes_;
  Stage out_;
};

class AppendStage : public DecodeStage {
 public:
  explicit AppendStage(std::string& text) : text_(text) {}
  void push(std::string_view part, bool) override { text_ += part; }
  void finish() override {}

 private:
  std::string& text_;
};

class JoinStage : public DecodeStage {
 public:
  explicit JoinStage(Stage out) : out_(std::move(out)) {}
  void push(std::string_view part, bool is_first_part) override {
    if (is_first_part && !std::exchange(is_first_token_, false)) out_->push(" ", true);
    out_->push(part, is_first_part);
  }
  void finish() override { out_->finish(); }

 private:
  Stage out_;
  bool is_first_token_ = true;
};

// Tokens of the byte alphabet to text, which is one token from here on.
class ByteLevelStage : public DecodeStage {
 public:
  explicit ByteLevelStage(Stage out) : out_(std::move(out)) {}
  void push(std::string_view part, bool) override {
    const auto bytes = from_byte_alphabet(part);
    pending_ += bytes ? std::string_view(*bytes) : part;
    std::size_t certain = 0;
    for (std::size_t at = 0; at < pending_.size(); certain = at) {
      const io::Utf8Unit unit = io::scan_utf8(pending_, at);
      if (unit.kind == io::Utf8Unit::Kind::truncated) break;
      at += unit.size_bytes;
    }
    if (certain > 0) give(io::to_valid_utf8(std::string_view(pending_).substr(0, certain)));
    pending_.erase(0, certain);
  }
  void finish() override {
    if (!pending_.empty()) give(io::kReplacementCharacter);
    pending_.clear();
    out_->finish();
  }

 private:
  void give(std::string_view text) { out_->push(text, std::exchange(is_first_part_, false)); }
  Stage out_;
  std::string pending_;  // the beginning of a character
  bool is_first_part_ = true;
};

// A run of tokens like <0x0A> to the text of its bytes; if they are not UTF-8, to one U+FFFD each.
// So a run is only certain when it has ended.
class ByteFallbackStage : public DecodeStage {
 public:
  explicit ByteFallbackStage(Stage out) : out_(std::move(out)) {}
  void push(std::string_view part, bool is_first_part) override {
    if (const auto byte = byte_of(part)) {
      run_ += static_cast<char>(*byte);
    } else {
      flush();
      out_->push(part, is_first_part);
    }
  }
  void finish() override {
    flush();
    out_->finish();
  }

 private:
  static std::optional<unsigned char> byte_of(std::string_view token) {
    if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return {};
    // Rust reads "+A" as a number, too.
    const auto digit = [](char c) -> int {
      if (c >= '0' && c <= '9') return c - '0';
      if (c >= 'a' && c <= 'f') return c - 'a' + 10;
      if (c >= 'A' && c <= 'F') return c - 'A' + 10;
      return -1;
    };
    const int high = token[3] == '+' ? 0 : digit(token[3]);
    const int low = digit(token[4]);
    if (high < 0 || low < 0) return {};
    return static_cast<unsigned char>(high * 16 + low);
  }
  void flush() {
    if (run_.empty()) return;
    if (io::is_valid_utf8(run_)) {
      out_->push(run_, true);
    } else {
      for (std::size_t i = 0; i < run_.size(); ++i) out_->push(io::kReplacementCharacter, true);
    }
    run_.clear();
  }
  Stage out_;
  std::string run_;
};

class FuseStage : public DecodeStage {
 public:
  explicit FuseStage(Stage out) : out_(std::move(out)) {}
  void push(std::string_view part, bool) override {
    out_->push(part, std::exchange(is_first_part_, false));
  }
  void finish() override { out_->finish(); }

 private:
  Stage out_;
  bool is_first_part_ = true;
};

class ReplaceStage : public DecodeStage {
 public:
  ReplaceStage(const Regex& pattern, std::string_view content, const Decoder::Chain& chain,
               Stage out)
      : pattern_(pattern),
        content_(content),
        fused_(chain.fused),
        given_bytes_(chain.given_bytes),
        out_(std::move(out)) {}
  void push(std::string_view part, bool is_first_part) override {
    if (fused_) {
      held_ += part;  // a match may begin in this part and end in one to come
    } else {
      out_->push(replaced(part), is_first_part);
    }
  }
  void finish() override {
    if (fused_) out_->push(replaced(held_), true);
    held_.clear();
    out_->finish();
  }

 private:
  std::string replaced(std::string_view token) {
    if (token.empty()) return {};
    const std::size_t left = rewrite_limit(*given_bytes_) - made_bytes_;
    std::string text = pattern_.replace(token, content_, left, buffer_);
    made_bytes_ += text.size();
    return text;
  }
  const Regex& pattern_;
  std::string_view content_;
  bool fused_;
  std::shared_ptr<const std::size_t> given_bytes_;
  std::size_t made_bytes_ = 0;
  Stage out_;
  MatchBuffer buffer_;
  std::string held_;
};

// Takes up to `start` of a character off a token's beginning and up to `stop` off its end.
class StripStage : public DecodeStage {
 public:
  StripStage(std::string_view content, std::size_t start, std::size_t stop, bool fused, Stage out)
      : content_(content), start_(start), stop_(stop), fused_(fused), out_(std::move(out)) {}
  void push(std::string_view part, bool is_first_part) override {
    if (is_first_part) left_ = start_;
    while (left_ > 0 && part.starts_with(content_)) {
      part.remove_prefix(content_.size());
      --left_;
    }
    if (!part.empty()) left_ = 0;
    if (stop_ == 0) {
      out_->push(part, is_first_part);
      return;
    }
    // What may be the end of the token is held back.
    if (is_first_part) {
      held_.clear();
      held_is_first_ = true;
    }
    held_ += part;
    std::size_t keep = held_.size();
    std::size_t blanks = 0;
    while (blanks < stop_ && std::string_view(held_).substr(0, keep).ends_with(content_)) {
      keep -= content_.size();
      ++blanks;
    }
    out_->push(std::string_view(held_).substr(0, keep), std::exchange(held_is_first_, false));
    held_.erase(0, keep);
    if (!fused_) held_.clear();
  }
  void finish() override { out_->finish(); }

 private:
  std::string_view content_;
  std::size_t start_;
  std::size_t stop_;
  bool fused_;
  Stage out_;
  std::size_t left_ = 0;  // that may still be taken off the beginning
  std::string held_;
  bool held_is_first_ = true;
};

class MetaspaceStage : public DecodeStage {
 public:
  MetaspaceStage(std::string_view replacement, bool drops_first, Stage out)
      : replacement_(replacement), drops_first_(drops_first), out_(std::move(out)) {}
  void push(std::string_view part, bool is_first_part) override {
    if (is_first_part) ++tokens_;
    const std::string_view blank = drops_first_ && tokens_ <= 1 ? "" : " ";
    std::string text;
    std::size_t done = 0;
    for (std::size_t found = part.find(replacement_); found != part.npos;
         found = part.find(replacement_, done)) {
      text += part.substr(done, found - done);
      text += blank;
      done = found + replacement_.size();
    }
    text += part.substr(done);
    out_->push(text, is_first_part);
  }
  void finish() override { out_->finish(); }

 private:
  std::string_view replacement_;
  bool drops_first_;
  Stage out_;
  std::size_t tokens_ = 0;
};

class ByteLevelPart : public Decoder::Part {
 public:
  Stage stage(Stage out, const Decoder::Chain& chain) const override {
    if (chain.fused) throw ModelError("tokenizer: decoder ByteLevel behind Fuse is not supported");
    return std::make_unique<ByteLevelStage>(std::move(out));
  }
  bool fuses() const override { return true; }
};

class ByteFallbackPart : public Decoder::Part {
 public:
  Stage stage(Stage out, const Decoder::Chain& chain) const override {
    if (chain.fused)
      throw ModelError("tokenizer: decoder ByteFallback behind Fuse is not supported");
    return std::make_unique<ByteFallbackStage>(std::move(out));
  }
};

class FusePart : public Decoder::Part {
 public:
  Stage stage(Stage out, const Decoder::Chain&) const override {
    return std::make_unique<FuseStage>(std::move(out));
  }
  bool fuses() const override { return true; }
};

class ReplacePart : public Decoder::Part {
 public:
  ReplacePart(Regex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  Stage stage(Stage out, const Decoder::Chain& chain) const override {
    return std::make_unique<ReplaceStage>(pattern_, content_, chain, std::move(out));
  }

 private:
  Regex pattern_;
  std::string content_;
};

class StripPart : public Decoder::Part {
 public:
  StripPart(std::string content, std::size_t start, std::size_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  Stage stage(Stage out, const Decoder::Chain& chain) const override {
    return std::make_unique<StripStage>(content_, start_, stop_, chain.fused, std::move(out));
  }

 private:
  std::string content_;
  std::size_t start_;
  std::size_t stop_;
};

class MetaspacePart : public Decoder::Part {
 public:
  MetaspacePart(std::string replacement, bool drops_first)
      : replacement_(std::move(replacement)), drops_first_(drops_first) {}
  Stage stage(Stage out, const Decoder::Chain&) const override {
    return std::make_unique<MetaspaceStage>(replacement_, drops_first_, std::move(out));
  }

 private:
  std::string replacement_;
  bool drops_first_;
};

std::size_t count_field(const nlohmann::json& json, std::string_view name, std::string_view where) {
  const nlohmann::json& value = field(json, name, where);
  if (!value.is_number_unsigned()) {
    throw ModelError(fmt::format("tokenizer: '{}' of {} is not a count", name, where));
  }
  return value.get<std::size_t>();
}

std::string character_field(const nlohmann::json& json, std::string_view name,
                            std::string_view where) {
  std::string text = text_field(json, name, where);
  if (text.empty() || decode_utf8(text, 0).size_bytes != text.size()) {
    throw ModelError(fmt::format("tokenizer: '{}' of {} is not one character", name, where));
  }
  return text;
}

}  // namespace

Decoder::Decoder(const nlohmann::json& json) {
  if (json.is_null()) {
    joins_with_blanks_ = true;
  } else {
    add(json, 0);
  }
  std::string unused;
  start(unused);  // refuses what cannot be put together
}
Decoder::~Decoder() = default;
Decoder::Decoder(Decoder&&) noexcept = default;
Decoder& Decoder::operator=(Decoder&&) noexcept = default;

void Decoder::add(const nlohmann::json& json, int depth) {
  const std::string type = part_type(json, depth, "the decoder");
  const std::string where = fmt::format("decoder {}", type);
  if (type == "Sequence") {
    for (const auto& part : part_list(json, "decoders", where)) add(part, depth + 1);
  } else if (type == "ByteLevel") {
    parts_.push_back(std::make_unique<ByteLevelPart>());
  } else if (type == "ByteFallback") {
    parts_.push_back(std::make_unique<ByteFallbackPart>());
  } else if (type == "Fuse") {
    parts_.push_back(std::make_unique<FusePart>());
  } else if (type == "Replace") {
    parts_.push_back(std::make_unique<ReplacePart>(pattern_field(json, where),
                                                   text_field(json, "content", where)));
  } else if (type == "Strip") {
    parts_.push_back(std::make_unique<StripPart>(character_field(json, "content", where),
                                                 count_field(json, "start", where),
                                                 count_field(json, "stop", where)));
  } else if (type == "Metaspace") {
    const bool never =
        (json.contains("prepend_scheme") && text_field(json, "prepend_scheme", where) == "never") ||
        !flag_field_or(json, "add_prefix_space", true, where);
    parts_.push_back(
        std::make_unique<MetaspacePart>(character_field(json, "replacement", where), !never));
  } else {
    throw ModelError(
        fmt::format("tokenizer: the decoder {} is not supported (known: Sequence, "
                    "ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace)",
                    io::quoted(type)));
  }
  if (parts_.size() > max_parts) throw ModelError("tokenizer: the decoder has too many parts");
}

Stage Decoder::start(std::string& text) const {
  Stage chain = std::make_unique<AppendStage>(text);
  if (joins_with_blanks_) return std::make_unique<JoinStage>(std::move(chain));
  std::vector<bool> fused{false};
  for (const auto& part : parts_) fused.push_back(fused.back() || part->fuses());
  const auto given_bytes = std::make_shared<std::size_t>(0);
  for (std::size_t i = parts_.size(); i-- > 0;) {
    chain = parts_[i]->stage(std::move(chain), {fused[i], given_bytes});
  }
  return std::make_unique<CountStage>(given_bytes, std::move(chain));
}

}  // namespace penstock::model
