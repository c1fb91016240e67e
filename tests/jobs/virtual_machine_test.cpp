#include "jobs/virtual_machine.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "io/error.hpp"
#include "jobs/launch.hpp"

namespace penstock::jobs {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;
using testing::ThrowsMessage;

void expect_link(const LinkModel& link, std::string_view name) {
  EXPECT_EQ(link.latency_seconds, link_model(name).latency_seconds) << name;
  EXPECT_EQ(link.bytes_per_second, link_model(name).bytes_per_second) << name;
}

TEST(VirtualMachineSpec, ADeviceAlone) {
  const VirtualMachine h100 = parse_virtual_machine("h100-sxm");
  EXPECT_EQ(h100.device.name, "h100-sxm");
  EXPECT_EQ(h100.devices_per_node, 8);
  expect_link(h100.edge(6, 7), "nvlink");
  expect_link(h100.edge(7, 8), "ndr");
  expect_link(h100.edge(8, 9), "nvlink");
  expect_link(h100.control, "ndr");
  for (const std::string& name : model::device_model_names()) {
    EXPECT_EQ(parse_virtual_machine(name).device.name, name);
  }
  expect_link(parse_virtual_machine("cpu-node").edge(0, 1), "hdr");
  expect_link(parse_virtual_machine("mi300x").edge(0, 1), "xgmi");
  expect_link(parse_virtual_machine("a100-80").edge(0, 1), "nvlink3");
}

TEST(VirtualMachineSpec, WithLinks) {
  const VirtualMachine flat = parse_virtual_machine("h100-sxm,25gbe");
  expect_link(flat.edge(0, 1), "25gbe");
  expect_link(flat.edge(3, 4), "25gbe");
  expect_link(flat.control, "25gbe");
  EXPECT_DOUBLE_EQ(flat.edge(0, 1).latency_seconds, 1e-4);
  const VirtualMachine nodes = parse_virtual_machine("h200,nvlink:4,slingshot");
  EXPECT_EQ(nodes.device.name, "h200");
  expect_link(nodes.edge(2, 3), "nvlink");
  expect_link(nodes.edge(3, 4), "slingshot");
  expect_link(nodes.control, "slingshot");
}

TEST(VirtualMachineSpec, WhatIsWrongIsNamed) {
  const auto refused = [](const std::string& spec, const std::string& words) {
    EXPECT_THAT([&] { parse_virtual_machine(spec); },
                ThrowsMessage<UsageError>(
                    AllOf(StartsWith("the machine '" + spec + "': "), HasSubstr(words))))
        << spec;
  };
  refused("", "no device ''");
  refused("h100", "no device 'h100'");
  refused("h100-sxm,", "no link ''");
  refused("h100-sxm,ethernet", "no link 'ethernet' is known: nvlink, nvlink3, xgmi, ndr, ");
  refused("bogus,ethernet", "no device 'bogus' is known: h100-sxm, h200, ");
  refused("h100-sxm,fast:8,ndr", "no link 'fast'");
  refused("h100-sxm,nvlink,ndr", "number of its devices");
  refused("h100-sxm,nvlink:,ndr", "'' is no number");
  refused("h100-sxm,nvlink:0,ndr", "'0' is no number");
  refused("h100-sxm,nvlink:8x,ndr", "'8x' is no number");
  refused("h100-sxm,nvlink:99999999999,ndr", "'99999999999' is no number");
  refused("h100-sxm,nvlink:8", "no link 'nvlink:8'");
  refused("h100-sxm,a,b,c", "two kinds of links");
}

constexpr const char* kFile = R"({"device": {"like": "a100-80", "name": "cut down",
  "memory_bytes": 42949672960, "bf16_flops_per_second": 1e14, "launch_seconds": 4e-6},
  "devices_per_node": 4, "in_node": "ndr",
  "between_nodes": {"latency_seconds": 5e-5, "bytes_per_second": 1.25e9}})";

TEST(VirtualMachineFile, GivesAnyOfTheFields) {
  const std::string path = testing::TempDir() + "virtual-machine.json";
  std::ofstream(path) << kFile;
  const VirtualMachine machine = parse_virtual_machine(path);
  std::filesystem::remove(path);
  EXPECT_EQ(machine.device.name, "cut down");
  EXPECT_EQ(machine.device.memory_bytes, 42949672960U);
  EXPECT_DOUBLE_EQ(machine.device.bf16_flops_per_second, 1e14);
  EXPECT_DOUBLE_EQ(machine.device.launch_seconds, 4e-6);
  EXPECT_DOUBLE_EQ(machine.device.memory_bytes_per_second,
                   model::device_model("a100-80").memory_bytes_per_second);
  EXPECT_EQ(machine.devices_per_node, 4);
  EXPECT_TRUE(machine.gpus);
  expect_link(machine.edge(0, 3), "ndr");
  EXPECT_DOUBLE_EQ(machine.edge(3, 4).latency_seconds, 5e-5);
  EXPECT_DOUBLE_EQ(machine.edge(3, 4).bytes_per_second, 1.25e9);
  EXPECT_DOUBLE_EQ(machine.control.bytes_per_second, 1.25e9);
}

TEST(VirtualMachineFile, ADeviceOfItsOwn) {
  const VirtualMachine machine = virtual_machine_from_json("m.json", R"({"device": {
    "bf16_flops_per_second": 1e12, "f32_flops_per_second": 5e11, "memory_bytes_per_second": 1e11,
    "memory_bytes": 8e9}, "devices_per_node": 1, "between_nodes": "25gbe",
    "control": {"latency_seconds": 1e-5, "bytes_per_second": 1e9}})");
  EXPECT_DOUBLE_EQ(machine.device.memory_bytes_per_second, 1e11);
  EXPECT_EQ(machine.device.memory_bytes, 8'000'000'000u);
  EXPECT_EQ(machine.device.launch_seconds, 0);
  const auto gpus = [](const std::string& text) {
    return virtual_machine_from_json("m.json", text).gpus;
  };
  EXPECT_FALSE(gpus(R"({"device": {"like": "cpu-node", "name": "of ours"}})"));
  EXPECT_FALSE(gpus(R"({"device": "h200", "gpus": false})"));
  expect_link(machine.edge(0, 1), "25gbe");
  EXPECT_DOUBLE_EQ(machine.control.latency_seconds, 1e-5);
}

TEST(VirtualMachineFile, WhatIsWrongIsNamedWithFileAndMember) {
  const auto refused = [](const std::string& text, const std::string& words) {
    EXPECT_THAT([&] { virtual_machine_from_json("m.json", text); },
                ThrowsMessage<io::FileError>(AllOf(StartsWith("m.json: "), HasSubstr(words))))
        << text;
  };
  refused("", "broken JSON");
  refused("[]", "must be an object");
  refused("{}", "'device' is missing");
  refused(R"({"device": 3})", "'device' must be an object");
  refused(R"({"device": "h900"})", "no device 'h900'");
  refused(R"({"device": {"like": 1}})", "'like' must be");
  refused(R"({"device": {"like": "h900"}})", "no device 'h900'");
  refused(R"({"device": {"memory_bytes": 5}})", "bf16_flops_per_second");
  refused(R"({"device": {"like": "h200", "memory_bytes": -5}})", "'memory_bytes' must be");
  refused(R"({"device": {"like": "h200", "memory_bytes": 1e99}})", "'memory_bytes' must be");
  refused(R"({"device": {"like": "h200", "memory_bytes": 1.55e1}})", "'memory_bytes' must be");
  refused(R"({"device": {"like": "h200", "memory_bytes": 0}})", "'memory_bytes' must be");
  refused(R"({"device": {"like": "h200", "memory_bytes": 18446744073709551615}})",
          "'memory_bytes' must be");
  refused(R"({"device": {"like": "h200", "launch_seconds": -1}})", "'launch_seconds' must be");
  refused(R"({"device": {"like": "h200", "launch_seconds": "1"}})", "'launch_seconds' must be");
  refused(R"({"device": {"like": "h200", "name": ""}})", "'name' must be");
  refused(R"({"device": {"like": "h200", "name": "a\u001b[2J"}})", "'name' must have no control");
  refused(R"({"device": "h200", "gpus": 1})", "'gpus' must be true or false");
  refused(R"({"device": {"like": "h200", "memory": 1}})", "has no member 'memory'");
  refused(R"({"device": "h200", "devices_per_node": 0})", "'devices_per_node' must be");
  refused(R"({"device": "h200", "devices_per_node": 1.5})", "'devices_per_node' must be");
  refused(R"({"device": "h200", "in_node": "fast"})", "no link 'fast'");
  refused(R"({"device": "h200", "in_node": []})", "'in_node' must be an object");
  refused(R"({"device": "h200", "in_node": {"bytes_per_second": 0}})", "'bytes_per_second' must");
  refused(R"({"device": "h200", "control": {"latency": 0}})", "'control' has no member 'latency'");
  refused(R"({"device": "h200", "nodes": 3})", "has no member 'nodes'");
}

// Whatever a damaged file says, it is taken or refused, and nothing else.
TEST(VirtualMachineFile, DamageIsRefusedOrHarmless) {
  const std::string good = kFile;
  std::size_t taken = 0;
  const auto look = [&](const std::string& text) {
    try {
      model::validate(virtual_machine_from_json("m.json", text).device);
      ++taken;
    } catch (const io::FileError&) {
    }
  };
  for (std::size_t i = 0; i < good.size(); ++i) {
    look(good.substr(0, i));
    for (const char byte : {'0', '9', '-', '"', '{', 'e', '\0', '\xff'}) {
      std::string damaged = good;
      damaged[i] = byte;
      look(damaged);
    }
  }
  EXPECT_GT(taken, 0U);
  EXPECT_THROW(parse_virtual_machine("/nowhere/machine.json"), io::FileError);
}

}  // namespace
}  // namespace penstock::jobs
