#include "jobs/virtual_machine.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "io/error.hpp"
#include "io/file.hpp"
#include "io/json.hpp"
#include "io/utf8.hpp"
#include "jobs/launch.hpp"
#include "jobs/slots.hpp"
#include "model/error.hpp"

namespace penstock::jobs {
namespace {

using nlohmann::json;

struct NamedLink {
  std::string_view name;
  LinkModel model;
};

// Latencies: NCCL's own constants for a ring with the Simple protocol (src/graph/tuning.cc): 8.4 us
// to begin with, 3.4 for NVLink, 14 for a network. Bandwidths: NVLink by NCCL's src/graph/topo.h,
// 18 links of 20.6 GB/s on an H100, 12 of 20.0 on an A100; xGMI by RCCL's, 48 GB/s between two
// MI300X; NDR and HDR as SimAI's astra-sim has ConnectX-7 and -6 (calbusbw.h), 48.5 of 50 and 23.5
// of 25 GB/s. Slingshot: 200 Gb/s too, taken to reach as much as HDR. 25 GbE: 94 % of the wire is
// TCP's payload at 1500 bytes a frame; 100 us is a latency to plan with, for TCP by way of hosts.
constexpr std::array<NamedLink, 7> kLinks = {{
    {"nvlink", {11.8e-6, 370.8e9}},
    {"nvlink3", {11.8e-6, 240e9}},
    {"xgmi", {11.8e-6, 48e9}},
    {"ndr", {22.4e-6, 48.5e9}},
    {"hdr", {22.4e-6, 23.5e9}},
    {"slingshot", {22.4e-6, 23.5e9}},
    {"25gbe", {100e-6, 2.94e9}},
}};

// The nodes that a device is usually sold in.
struct UsualNode {
  std::string_view device;
  int devices;
  std::string_view in_node;
  std::string_view between_nodes;
  bool gpus;
};
constexpr std::array<UsualNode, 5> kUsualNodes = {{
    {"h100-sxm", 8, "nvlink", "ndr", true},
    {"h200", 8, "nvlink", "ndr", true},
    {"a100-80", 8, "nvlink3", "hdr", true},
    {"mi300x", 8, "xgmi", "ndr", true},
    {"cpu-node", 1, "hdr", "hdr", false},
}};

constexpr int kMostDevices = 1 << 16;
constexpr std::uint64_t kMostFileBytes = 1u << 20;

const UsualNode& usual_node(std::string_view device) {
  const auto found = std::find_if(kUsualNodes.begin(), kUsualNodes.end(),
                                  [&](const UsualNode& node) { return node.device == device; });
  return found == kUsualNodes.end() ? kUsualNodes.front() : *found;
}

VirtualMachine usual_machine(std::string_view device) {
  const UsualNode& node = usual_node(device);
  VirtualMachine machine;
  machine.device = model::device_model(device);
  machine.devices_per_node = node.devices;
  machine.gpus = node.gpus;
  machine.in_node = link_model(node.in_node);
  machine.between_nodes = link_model(node.between_nodes);
  machine.control = machine.between_nodes;
  machine.text = node.devices == 1 ? fmt::format("{}, {}", device, node.between_nodes)
                                   : fmt::format("{}, {} in nodes of {}, {} between", device,
                                                 node.in_node, node.devices, node.between_nodes);
  return machine;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

[[noreturn]] void refuse(const std::string& spec, std::string_view reason) {
  throw UsageError(
      fmt::format("the machine '{}': {}; give a device and its links, as h100-sxm, h100-sxm,ndr or "
                  "h100-sxm,nvlink:8,ndr, or a file.json",
                  spec, reason));
}

LinkModel link_of(const std::string& spec, std::string_view name) {
  try {
    return link_model(name);
  } catch (const UsageError& error) {
    refuse(spec, error.what());
  }
}

// "nvlink:8"
int parse_devices(const std::string& spec, std::string_view text) {
  int devices = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, devices);
  if (parsed.ec != std::errc() || parsed.ptr != end || devices < 1 || devices > kMostDevices) {
    refuse(spec,
           fmt::format("'{}' is no number of devices in a node from 1 to {}", text, kMostDevices));
  }
  return devices;
}

bool in_range(const json& value, std::uint64_t least, std::uint64_t most) {
  if (!value.is_number_unsigned() && value.get<std::int64_t>() < 0) return false;
  const auto number = value.get<std::uint64_t>();
  return number >= least && number <= most;
}

// The members of one object of the file, by name; what nobody asked for is refused at the end.
class Members {
 public:
  Members(std::string path, std::string where, const json& object)
      : path_(std::move(path)), where_(std::move(where)), object_(object) {
    if (!object.is_object()) fail("", "must be an object, not " + std::string(io::type_of(object)));
  }

  const json* find(const std::string& name) {
    known_.push_back(name);
    const auto found = object_.find(name);
    return found == object_.end() ? nullptr : &*found;
  }
  void read(const std::string& name, double& to, double least, double most) {
    const json* const value = find(name);
    if (value == nullptr) return;
    const double number =
        value->is_number() ? value->get<double>() : std::numeric_limits<double>::quiet_NaN();
    if (!(number >= least && number <= most)) {
      fail(name, fmt::format("must be a number from {:g} to {:g}, not {}", least, most,
                             io::in_short(*value)));
    }
    to = number;
  }
  void read(const std::string& name, std::uint64_t& to, std::uint64_t least, std::uint64_t most) {
    const json* const value = find(name);
    if (value == nullptr) return;
    const bool is_float = value->is_number_float();  // 8e10 is a whole number, too
    const double number = is_float ? value->get<double>() : 0;
    const bool fits = is_float
                          ? number == std::floor(number) && number >= static_cast<double>(least) &&
                                number <= static_cast<double>(most)
                          : value->is_number_integer() && in_range(*value, least, most);
    if (!fits) {
      fail(name, fmt::format("must be a whole number from {} to {}, not {}", least, most,
                             io::in_short(*value)));
    }
    to = is_float ? static_cast<std::uint64_t>(number) : value->get<std::uint64_t>();
  }
  void read(const std::string& name, bool& to) {
    const json* const value = find(name);
    if (value == nullptr) return;
    if (!value->is_boolean()) {
      fail(name, fmt::format("must be true or false, not {}", io::in_short(*value)));
    }
    to = value->get<bool>();
  }
  std::string text(const std::string& name, const std::string& otherwise) {
    const json* const value = find(name);
    if (value == nullptr) return otherwise;
    constexpr std::size_t kMost = 60;
    if (!value->is_string() || value->get_ref<const std::string&>().empty() ||
        value->get_ref<const std::string&>().size() > kMost) {
      fail(name,
           fmt::format("must be a text of 1 to {} bytes, not {}", kMost, io::in_short(*value)));
    }
    const auto& text = value->get_ref<const std::string&>();
    if (io::has_control_characters(text)) fail(name, "must have no control characters");
    return text;
  }
  void refuse_others() const {
    for (const auto& item : object_.items()) {
      if (std::find(known_.begin(), known_.end(), item.key()) == known_.end()) {
        throw io::FileError(path_, fmt::format("{} has no member {}: {}", where_,
                                               io::quoted(item.key()), fmt::join(known_, ", ")));
      }
    }
  }
  [[noreturn]] void fail(std::string_view name, const std::string& reason) const {
    throw io::FileError(path_, name.empty()
                                   ? where_ + " " + reason
                                   : fmt::format("{}: {} {}", where_, io::quoted(name), reason));
  }

 private:
  std::string path_;
  std::string where_;
  const json& object_;
  std::vector<std::string> known_;
};

// The file's words for a name that is not known.
template <class Find>
auto by_name(const std::string& path, const json& name, const Find& find) {
  try {
    return find(name.get_ref<const std::string&>());
  } catch (const std::runtime_error& error) {
    throw io::FileError(path, error.what());
  }
}

model::DeviceModel read_device(const std::string& path, const json& value, std::string& like) {
  if (value.is_string()) {
    like = value;
    return by_name(path, value, [](const std::string& name) { return model::device_model(name); });
  }
  Members members(path, "'device'", value);
  model::DeviceModel device;
  if (const json* const named = members.find("like")) {
    if (!named->is_string()) members.fail("like", "must be a device's name");
    like = *named;
    device =
        by_name(path, *named, [](const std::string& name) { return model::device_model(name); });
    device.name = "like " + like;
  }
  device.name = members.text("name", like.empty() ? "device" : device.name);
  constexpr double kMostRate = 1e21;
  members.read("bf16_flops_per_second", device.bf16_flops_per_second, 1e3, kMostRate);
  members.read("f32_flops_per_second", device.f32_flops_per_second, 1e3, kMostRate);
  members.read("memory_bytes_per_second", device.memory_bytes_per_second, 1e3, kMostRate);
  members.read("memory_bytes", device.memory_bytes, 1, std::uint64_t{1} << 60);
  members.read("launch_seconds", device.launch_seconds, 0, 1);
  members.read("step_seconds", device.step_seconds, 0, 100);
  members.read("padding_rows", device.padding_rows, 0, 1e6);
  members.refuse_others();
  try {
    model::validate(device);  // what is missing
  } catch (const model::ModelError& error) {
    throw io::FileError(path, error.what());
  }
  return device;
}

// What the header says of it.
std::string read_link(const std::string& path, const std::string& name, const json& value,
                      LinkModel& link) {
  if (value.is_string()) {
    link = by_name(path, value, [](const std::string& known) { return link_model(known); });
    return value;
  }
  Members members(path, "'" + name + "'", value);
  members.read("latency_seconds", link.latency_seconds, 0, 10);
  members.read("bytes_per_second", link.bytes_per_second, 1, 1e18);
  members.refuse_others();
  return fmt::format("{:g} us and {:g} GB/s", link.latency_seconds * 1e6,
                     link.bytes_per_second / 1e9);
}

}  // namespace

const LinkModel& VirtualMachine::edge(int from_rank, int to_rank) const {
  return from_rank / devices_per_node == to_rank / devices_per_node ? in_node : between_nodes;
}

std::vector<std::string> link_model_names() {
  std::vector<std::string> names;
  for (const NamedLink& link : kLinks) names.emplace_back(link.name);
  return names;
}

LinkModel link_model(std::string_view name) {
  for (const NamedLink& link : kLinks) {
    if (link.name == name) return link.model;
  }
  throw UsageError(
      fmt::format("no link '{}' is known: {}", name, fmt::join(link_model_names(), ", ")));
}

std::string figures(const VirtualMachine& machine) {
  const model::DeviceModel& d = machine.device;
  const auto link = [](const LinkModel& model) {
    return fmt::format("{} {}", model.latency_seconds, model.bytes_per_second);
  };
  return fmt::format("{}: {} {} {} {} {} {} {}; {}; {}; {}; {}", d.name, d.bf16_flops_per_second,
                     d.f32_flops_per_second, d.memory_bytes_per_second, d.memory_bytes,
                     d.launch_seconds, d.step_seconds, d.padding_rows, machine.devices_per_node,
                     link(machine.in_node), link(machine.between_nodes), link(machine.control));
}

std::uint32_t slots_for(const VirtualMachine& machine, const model::PartCost& parts,
                        const std::vector<model::StageRange>& ranges, int first_rank,
                        double activation_row_bytes, std::uint32_t rows) {
  const model::StepShape decode = step_of_slots(rows);
  // Not owned: the costs live as long as the caller's.
  const std::shared_ptr<const model::PartCost> cost(std::shared_ptr<void>(), &parts);
  double slowest = 0;
  for (const model::StageRange& range : ranges) {
    slowest = std::max(slowest, model::StepCost(cost, range).seconds(decode));
  }
  const auto last = static_cast<int>(ranges.size()) - 1;
  const auto seconds = [](const LinkModel& link, double bytes) {
    return link.latency_seconds + (link.bytes_per_second > 0 ? bytes / link.bytes_per_second : 0.0);
  };
  double trip = machine.control.latency_seconds;
  for (int stage = 0; stage < last; ++stage) {
    trip += seconds(machine.edge(first_rank + stage, first_rank + stage + 1),
                    static_cast<double>(rows) * activation_row_bytes);
  }
  return slots_for(ranges.size(), trip, slowest);
}

VirtualMachine parse_virtual_machine(const std::string& spec) {
  if (spec.ends_with(".json") || spec.find('/') != spec.npos) {
    return virtual_machine_from_json(spec, io::read_text(spec, kMostFileBytes));
  }
  const std::vector<std::string_view> parts = split(spec, ',');
  if (parts.size() > 3) refuse(spec, "a device has two kinds of links at most");
  try {
    VirtualMachine machine = usual_machine(parts[0]);
    if (parts.size() == 1) return machine;
    machine.between_nodes = machine.control = link_of(spec, parts.back());
    machine.in_node = machine.between_nodes;
    machine.devices_per_node = 1;
    machine.text = fmt::format("{}, {}", parts[0], parts.back());
    if (parts.size() == 3) {
      const std::size_t colon = parts[1].find(':');
      if (colon == std::string_view::npos) {
        refuse(spec, "of two links the first is that of a node, with the number of its devices");
      }
      const std::string_view name = parts[1].substr(0, colon);
      machine.in_node = link_of(spec, name);
      machine.devices_per_node = parse_devices(spec, parts[1].substr(colon + 1));
      machine.text = fmt::format("{}, {} in nodes of {}, {} between", parts[0], name,
                                 machine.devices_per_node, parts[2]);
    }
    return machine;
  } catch (const model::ModelError& error) {
    refuse(spec, error.what());
  }
}

VirtualMachine virtual_machine_from_json(const std::string& path, std::string_view text) {
  json file;
  try {
    file = io::parse_json(text);
  } catch (const io::JsonError& error) {
    throw io::FileError(path, error.what());
  }
  Members members(path, "the machine", file);
  const json* const device = members.find("device");
  if (device == nullptr) members.fail("device", "is missing");
  std::string like;
  const model::DeviceModel read = read_device(path, *device, like);
  VirtualMachine machine = usual_machine(like.empty() ? kUsualNodes.front().device : like);
  machine.device = read;
  auto devices = static_cast<std::uint64_t>(machine.devices_per_node);
  members.read("devices_per_node", devices, 1, kMostDevices);
  machine.devices_per_node = static_cast<int>(devices);
  members.read("gpus", machine.gpus);
  const UsualNode& node = usual_node(like);
  std::string in_node(node.in_node);
  std::string between(node.between_nodes);
  if (const json* const link = members.find("in_node")) {
    in_node = read_link(path, "in_node", *link, machine.in_node);
  }
  if (const json* const link = members.find("between_nodes")) {
    between = read_link(path, "between_nodes", *link, machine.between_nodes);
    machine.control = machine.between_nodes;
  }
  if (const json* const link = members.find("control")) {
    read_link(path, "control", *link, machine.control);
  }
  members.refuse_others();
  machine.text = fmt::format("{}, {} in nodes of {}, {} between", machine.device.name, in_node,
                             devices, between);
  return machine;
}

}  // namespace penstock::jobs
