// penstock inspect: what it shows, and what --verify finds.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(Inspect, JsonParsesAndDescribesTheModel) {
  const Finished finished = penstock({"inspect", kEmbeddedModel, "--json"});
  EXPECT_EQ(finished.code, 0) << finished;
  EXPECT_EQ(finished.err, "");
  const json description = json::parse(finished.out);
  // The values of jobs/embedded/README.md.
  EXPECT_EQ(description.at("architecture"), "llama");
  const std::string text = description.dump();
  EXPECT_THAT(text, HasSubstr("\"bf16\""));
  EXPECT_THAT(text, HasSubstr("/layers/0005/attn/q"));
  EXPECT_THAT(text, testing::Not(HasSubstr("/layers/0006")));
  EXPECT_FALSE(description.contains("damage"));
  const Finished human = penstock({"inspect", kEmbeddedModel});
  EXPECT_EQ(human.code, 0) << human;
  EXPECT_THAT(human.out, testing::Not(HasSubstr("/layers/0005/attn/q")));
  EXPECT_THAT(penstock({"inspect", kEmbeddedModel, "--tensors"}).out,
              HasSubstr("/layers/0005/attn/q"));
}

TEST(Inspect, VerifyNamesTensorAndBlockOfAFlippedByte) {
  const TemporaryFolder workplace;
  const json description = json::parse(penstock({"inspect", kEmbeddedModel, "--json"}).out);
  const Finished whole = penstock({"inspect", kEmbeddedModel, "--verify", "--json"});
  EXPECT_EQ(whole.code, 0) << whole;
  EXPECT_EQ(json::parse(whole.out).at("damage"), json::array());

  std::size_t checked = 0;
  for (const json& tensor : description.at("tensors")) {
    const std::string name = tensor.at("name");
    if (name != "/embed/weight" && name != "/layers/0003/attn/q" && name != "/final/norm") continue;
    SCOPED_TRACE(tensor.dump());
    ++checked;
    std::string bytes = read_bytes(kEmbeddedModel);
    const auto at = tensor.at("offset").get<std::size_t>() + 7;
    bytes.at(at) = static_cast<char>(bytes[at] ^ 0x10);
    const std::string path = workplace.write("flipped.h5", bytes);
    const Finished human = penstock({"inspect", path, "--verify"});
    EXPECT_EQ(human.code, 1) << human;
    EXPECT_THAT(human.out, HasSubstr("damaged: "));
    EXPECT_THAT(human.out, HasSubstr(name));
    EXPECT_THAT(human.out, HasSubstr("block 0"));
    EXPECT_THAT(human.out, HasSubstr("1 damaged block"));
    const Finished machine = penstock({"inspect", path, "--verify", "--json"});
    EXPECT_EQ(machine.code, 1) << machine;
    EXPECT_THAT(json::parse(machine.out).at("damage").get<std::vector<std::string>>(),
                ElementsAre(HasSubstr(name)));

    // A run refuses it in the words of the rank that reads it.
    if (name != "/layers/0003/attn/q") continue;
    const std::string input = workplace.write("input.jsonl", R"({"prompt": "a"})");
    const Finished run =
        penstock_ranks(2, {"run", path, "--input", input, "--output", workplace / "out"});
    EXPECT_EQ(run.code, 1) << run;
    EXPECT_THAT(run.errors(), ElementsAre(testing::AllOf(HasSubstr(path), HasSubstr(name))));
  }
  EXPECT_EQ(checked, 3U) << "the names of the tensors have changed";
}

}  // namespace
}  // namespace penstock::tests
