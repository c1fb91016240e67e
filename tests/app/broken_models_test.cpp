// Models that are broken, cut, lying, absurd, or something else altogether: exit code 1 and one
// message that names file and reason, whichever command meets them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>

#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::MatchesRegex;

template <class T>
std::string raw(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

// A model of one layer as a Hugging Face folder, whose weights are zeros.
class Source {
 public:
  json config = {{"model_type", "llama"},    {"hidden_size", 32},
                 {"intermediate_size", 64},  {"num_hidden_layers", 1},
                 {"num_attention_heads", 4}, {"num_key_value_heads", 2},
                 {"vocab_size", 300},        {"max_position_embeddings", 64}};
  std::uint64_t data_bytes = 0;  // before `header`, which adds it up
  json header = make_header();
  std::string tokenizer = R"({"version":"1.0","added_tokens":[],"normalizer":null,
    "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},
    "post_processor":null,"decoder":{"type":"ByteLevel"},
    "model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}})";

  std::string weights() const {
    const std::string text = header.dump();
    return raw(std::uint64_t{text.size()}) + text + std::string(data_bytes, '\0');
  }

  std::string write(const TemporaryFolder& workplace, const std::string& name) const {
    workplace.write(name + "/config.json", config.dump());
    workplace.write(name + "/tokenizer.json", tokenizer);
    workplace.write(name + "/model.safetensors", weights());
    return workplace / name;
  }

 private:
  json make_header() {
    json all = json::object();
    const auto add = [&](const std::string& name, std::vector<std::uint64_t> shape) {
      std::uint64_t bytes = 2;
      for (const std::uint64_t extent : shape) bytes *= extent;
      all[name] = {
          {"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {data_bytes, data_bytes + bytes}}};
      data_bytes += bytes;
    };
    const std::string layer = "model.layers.0.";
    add("model.embed_tokens.weight", {300, 32});
    for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) {
      add(layer + norm + ".weight", {32});
    }
    for (const char* name : {"q_proj", "o_proj"})
      add(layer + "self_attn." + name + ".weight", {32, 32});
    for (const char* name : {"k_proj", "v_proj"})
      add(layer + "self_attn." + name + ".weight", {16, 32});
    for (const char* name : {"gate_proj", "up_proj"})
      add(layer + "mlp." + name + ".weight", {64, 32});
    add(layer + "mlp.down_proj.weight", {32, 64});
    add("model.norm.weight", {32});
    add("lm_head.weight", {300, 32});
    return all;
  }
};

class BrokenModels : public testing::Test {
 protected:
  // `names`: what the message must contain, say the file at fault.
  void expect_refused(const Arguments& arguments, const std::vector<std::string>& names) {
    const Finished finished = penstock(arguments);
    SCOPED_TRACE(testing::PrintToString(arguments));
    EXPECT_FALSE(finished.hung);
    EXPECT_EQ(finished.code, 1) << finished;
    EXPECT_EQ(lines_of(finished.err).size(), 1U) << finished;
    EXPECT_THAT(finished.errors(), ElementsAre(MatchesRegex("penstock: error: [^[:cntrl:]]+")))
        << finished;
    for (const std::string& name : names) EXPECT_THAT(finished.err, HasSubstr(name));
    EXPECT_THAT(finished.err, testing::Not(HasSubstr("std::")));
  }

  void expect_not_converted(const std::string& source, const std::vector<std::string>& names) {
    const std::string destination = workplace_ / "converted.h5";
    expect_refused({"convert", source, destination}, names);
    EXPECT_FALSE(std::filesystem::exists(destination));
  }

  // A checkpoint that all commands refuse; `reason` in the words of all of them.
  void expect_no_command_takes(const std::string& path, const std::string& reason) {
    const std::string input = workplace_.write("input.jsonl", R"({"prompt": "a"})");
    expect_refused({"inspect", path}, {path, reason});
    expect_refused({"tokenize", path}, {path});
    const std::string output = workplace_ / "answers";
    expect_refused({"run", path, "--input", input, "--output", output}, {path, reason});
    EXPECT_FALSE(std::filesystem::exists(output));
    EXPECT_FALSE(std::filesystem::exists(output + ".job"));
  }

  TemporaryFolder workplace_;
};

TEST_F(BrokenModels, TheSourceItselfConverts) {
  const Source source;
  const std::string path = workplace_ / "good.h5";
  const Finished finished = penstock({"convert", source.write(workplace_, "good"), path});
  EXPECT_EQ(finished.code, 0) << finished;
  const Finished inspected = penstock({"inspect", path, "--verify"});
  EXPECT_EQ(inspected.code, 0) << inspected;
}

TEST_F(BrokenModels, Safetensors) {
  struct Case {
    std::string name;
    std::function<std::string(Source&)> spoil;  // gives the file's bytes
    std::vector<std::string> names;
  };
  const std::string q = "model.layers.0.self_attn.q_proj.weight";
  const auto changed = [q](Source& source, const char* key, const json& value) {
    source.header[q][key] = value;
    return source.weights();
  };
  const std::vector<Case> cases = {
      {"cut", [](Source& s) { return s.weights().substr(0, 20000); }, {}},
      {"header-cut", [](Source& s) { return s.weights().substr(0, 100); }, {}},
      {"seven-bytes", [](Source&) { return std::string(7, '\1'); }, {}},
      {"empty", [](Source&) { return std::string(); }, {}},
      {"huge-header", [](Source& s) { return raw(UINT64_MAX) + s.weights().substr(8); }, {}},
      {"header-not-json", [](Source&) { return raw(std::uint64_t{4}) + "{{{{" + "data"; }, {}},
      {"offsets-beyond",
       [&](Source& s) {
         return changed(s, "data_offsets", {1u << 30, (1u << 30) + 2048});
       },
       {"tensor '"}},
      {"offsets-backwards",
       [&](Source& s) {
         return changed(s, "data_offsets", {4096, 2048});
       },
       {q}},
      {"shape-lies",
       [&](Source& s) {
         return changed(s, "shape", {1000, 32});
       },
       {q}},
      {"shape-overflows",
       [&](Source& s) {
         return changed(s, "shape", {std::uint64_t{1} << 62, 8});
       },
       {q}},
      {"dtype-unknown", [&](Source& s) { return changed(s, "dtype", "Q3_K"); }, {q}},
      {"tensor-absent",
       [&](Source& s) {
         s.header.erase(q);
         return s.weights();
       },
       {}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    Source source;
    const std::string folder = source.write(workplace_, c.name);
    const std::string file = workplace_.write(c.name + "/model.safetensors", c.spoil(source));
    std::vector<std::string> names = c.names;
    names.push_back(folder);
    expect_not_converted(folder, names);
  }
}

TEST_F(BrokenModels, ConfigAndFolder) {
  struct Case {
    const char* key;
    json value;
  };
  const std::vector<Case> cases = {
      {"hidden_size", 0},
      {"hidden_size", -32},
      {"hidden_size", 1e18},
      {"hidden_size", "many"},
      {"hidden_size", 48},
      {"num_hidden_layers", 0},
      {"num_hidden_layers", 1000000000},
      {"num_attention_heads", 0},
      {"num_attention_heads", 5},
      {"num_key_value_heads", 3},
      {"vocab_size", 4294967296},
      {"max_position_embeddings", 0},
      {"rms_norm_eps", -1},
      {"rope_theta", 0},
      {"model_type", "mamba"},
      {"model_type", nullptr},
      {"rope_scaling", {{"rope_type", "magic"}, {"factor", 2.0}}},
      {"hidden_act", "relu"},
  };
  int number = 0;
  for (const Case& c : cases) {
    Source source;
    source.config[c.key] = c.value;
    const std::string folder = source.write(workplace_, "config-" + std::to_string(number++));
    SCOPED_TRACE(std::string(c.key) + " = " + c.value.dump());
    expect_not_converted(folder, {folder});
    if (c.key == std::string("hidden_size") && c.value == 48) continue;  // shapes alone tell
    expect_refused({"synth", folder + "/config.json", workplace_ / "synth.h5"}, {folder});
  }

  const Source source;
  for (const char* file : {"config.json", "tokenizer.json", "model.safetensors"}) {
    const std::string folder = source.write(workplace_, std::string("without-") + file);
    std::filesystem::remove(folder + "/" + file);
    expect_not_converted(folder, {folder, file});
  }
  for (const char* text : {"", "{", "[]", "null", "{\"model_type\": \"llama\"}"}) {
    const std::string folder = source.write(workplace_, "text");
    workplace_.write("text/config.json", text);
    expect_not_converted(folder, {"config.json"});
  }
  const std::string folder = source.write(workplace_, "deep");
  workplace_.write("deep/tokenizer.json", std::string(100000, '['));
  expect_refused({"tokenize", folder}, {folder, "tokenizer.json"});
}

TEST_F(BrokenModels, TokenizersThatNoRunCouldUse) {
  struct Case {
    std::string tokenizer;
    std::string reason;
  };
  const auto vocab = [](const std::string& entries) {
    return R"({"model":{"type":"BPE","vocab":{)" + entries + R"(},"merges":[]}})";
  };
  const std::vector<Case> cases = {
      {"{}", "has no 'model'"},
      {"not JSON", "broken JSON"},
      {std::string(100000, '[') + std::string(100000, ']'), "nested deeper than 64"},
      {R"({"model":{"type":"Unigram","vocab":[]}})", "'Unigram' is not supported"},
      {vocab(R"("a":0,"b":300)"), "the tokenizer has 301 tokens, the model's vocabulary only 300"},
      {vocab(R"("a\n\u001b[2J":-1)"), "'a\\x0a\\x1b[2J'"},
  };
  Source source;
  int number = 0;
  for (const Case& c : cases) {
    SCOPED_TRACE(c.tokenizer.substr(0, 100));
    source.tokenizer = c.tokenizer;
    const std::string folder = source.write(workplace_, "tokenizer-" + std::to_string(number++));
    expect_not_converted(folder, {folder + "/tokenizer.json", c.reason});
  }
}

TEST_F(BrokenModels, Gguf) {
  const std::string start = std::string("GGUF") + raw(std::uint32_t{3});
  const std::string name = raw(std::uint64_t{7}) + "general";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"magic-only", "GGUF"},
      {"version-99", "GGUF" + raw(std::uint32_t{99}) + std::string(16, '\0')},
      {"cut", start + raw(std::uint64_t{1})},
      {"many-tensors", start + raw(UINT64_MAX) + raw(std::uint64_t{0})},
      {"many-keys", start + raw(std::uint64_t{0}) + raw(UINT64_MAX)},
      {"long-key", start + raw(std::uint64_t{0}) + raw(std::uint64_t{1}) + raw(UINT64_MAX / 2)},
      {"type-77", start + raw(std::uint64_t{0}) + raw(std::uint64_t{1}) + name +
                      raw(std::uint32_t{77}) + std::string(8, '\0')},
      {"long-array", start + raw(std::uint64_t{0}) + raw(std::uint64_t{1}) + name +
                         raw(std::uint32_t{9}) + raw(std::uint32_t{4}) +
                         raw(std::uint64_t{1} << 60) + "data"},
      {"no-keys", start + raw(std::uint64_t{0}) + raw(std::uint64_t{0})},
      {"big-endian", std::string("GGUF\0\0\0\3", 8) + std::string(16, '\0')},
  };
  for (const auto& [label, bytes] : cases) {
    const std::string path = workplace_.write(label + ".gguf", bytes);
    expect_not_converted(path, {path});
    expect_refused({"tokenize", path}, {path});
  }
}

TEST_F(BrokenModels, Hdf5) {
  const std::string good = read_bytes(kEmbeddedModel);
  std::string bytes = good;
  std::memset(bytes.data() + 8, 0xff, 40);
  expect_no_command_takes(workplace_.write("superblock.h5", bytes), "");
  expect_no_command_takes(workplace_.write("half.h5", good.substr(0, good.size() / 2)), "");
  expect_no_command_takes(workplace_.write("one-byte-short.h5", good.substr(0, good.size() - 1)),
                          "");
  expect_no_command_takes(workplace_.write("signature.h5", good.substr(0, 8)), "");
  expect_no_command_takes(workplace_.write("empty.h5", ""), "");
  // Structure right behind the superblock. Not every byte there is in use, but most are.
  int refused = 0;
  for (const std::size_t at : {60, 100, 200, 400}) {
    bytes = good;
    bytes[at] = static_cast<char>(~bytes[at]);
    const std::string path = workplace_.write("flipped-" + std::to_string(at) + ".h5", bytes);
    const Finished inspected = penstock({"inspect", path, "--verify"});
    if (inspected.code == 0) continue;
    ++refused;
    EXPECT_EQ(inspected.code, 1) << inspected;
    EXPECT_EQ(inspected.errors().size(), 1U) << inspected;
  }
  EXPECT_GT(refused, 0);
}

TEST_F(BrokenModels, NotAModelAtAll) {
  const std::string text = workplace_.write("notes.h5", "Dear diary,\n" + std::string(5000, 'x'));
  expect_no_command_takes(text, "");
  expect_not_converted(text, {text});
  const std::string zip = workplace_.write("weights.bin", "PK\3\4" + std::string(3000, '\0'));
  expect_no_command_takes(zip, "");
  expect_not_converted(zip, {zip});
  const std::string source = Source().write(workplace_, "folder");
  expect_refused({"inspect", source}, {source});
  const std::string input = workplace_.write("input.jsonl", R"({"prompt": "a"})");
  expect_refused({"run", source, "--input", input, "--output", workplace_ / "x"}, {source});
  expect_refused({"inspect", workplace_ / "nothing.h5"}, {"nothing.h5"});
  expect_refused({"convert", workplace_ / "nothing", workplace_ / "x.h5"}, {"nothing"});
  expect_refused({"synth", "no-such-preset", workplace_ / "x.h5"}, {"no-such-preset"});
  expect_refused({"tokenize", workplace_ / "nothing"}, {"nothing"});
  expect_refused({"inspect", "/dev/null"}, {"/dev/null"});
}

TEST_F(BrokenModels, DestinationThatIsTheSource) {
  const std::string model = workplace_.write("model.h5", read_bytes(kEmbeddedModel));
  expect_refused({"convert", model, model}, {model});
  EXPECT_TRUE(read_bytes(model) == read_bytes(kEmbeddedModel));
  const std::string folder = Source().write(workplace_, "source");
  expect_refused({"convert", folder, folder}, {folder});
  expect_refused({"convert", folder, folder + "/model.safetensors"}, {folder});
  EXPECT_TRUE(read_bytes(folder + "/model.safetensors") == Source().weights());
  expect_refused({"convert", folder, workplace_ / "missing" + "/x.h5"}, {"missing"});
  expect_refused({"synth", folder + "/config.json", folder + "/config.json"}, {folder});
  EXPECT_EQ(json::parse(read_bytes(folder + "/config.json")), Source().config);
}

}  // namespace
}  // namespace penstock::tests
