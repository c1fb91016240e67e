#include "jobs/devices.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "comm/topology.hpp"
#include "jobs/agreement.hpp"

namespace penstock::jobs {
namespace {

using nlohmann::json;

// Drivers may take a while to answer, and ranks to come.
constexpr std::chrono::minutes kDeviceTimeout{10};

std::vector<DeviceOffer> gather_offers(comm::Endpoint& endpoint,
                                       const comm::device::GpuSurvey& survey) {
  json mine = {{"host", comm::host_name()},
               {"none", survey.none},
               {"uuids", json::array()},
               {"bus_ids", json::array()}};
  for (const comm::device::Gpu& gpu : survey.gpus) {
    mine["uuids"].push_back(gpu.uuid);
    mine["bus_ids"].push_back(gpu.pci_bus_id);
  }
  std::vector<DeviceOffer> offers;
  for (const std::string& text :
       endpoint.all().all_gather(mine.dump(), "looking for GPUs", kDeviceTimeout)) {
    const json theirs = json::parse(text);
    DeviceOffer offer;
    offer.name = endpoint.all().describe(static_cast<int>(offers.size()));
    offer.replica = static_cast<int>(offers.size()) / endpoint.control->size();
    offer.visible.host = theirs.at("host");
    offer.visible.uuids = theirs.at("uuids").get<std::vector<std::string>>();
    offer.none = theirs.at("none");
    offer.bus_ids = theirs.at("bus_ids").get<std::vector<std::string>>();
    offers.push_back(std::move(offer));
  }
  return offers;
}

// Ranks that share a GPU wait for each other's time slices, so NCCL's kernels might never meet; and
// NCCL refuses neighbours on one card, be it as MIG slices, since it tells GPUs apart by their
// place on the bus.
std::string why_no_nccl(const std::vector<DeviceOffer>& offers,
                        const std::vector<comm::device::GpuChoice>& gpus) {
  const auto at = [&](const std::vector<std::string>& list, std::size_t rank) {
    return list.at(static_cast<std::size_t>(gpus[rank].gpu));
  };
  for (std::size_t i = 0; i < offers.size(); ++i) {
    for (std::size_t j = i + 1; j < offers.size(); ++j) {
      if (offers[i].visible.host != offers[j].visible.host) continue;
      if (at(offers[i].visible.uuids, i) == at(offers[j].visible.uuids, j)) {
        return fmt::format("{} and {} share a GPU", offers[i].name, offers[j].name);
      }
      const bool neighbours = j == i + 1 && offers[i].replica == offers[j].replica;
      if (neighbours && at(offers[i].bus_ids, i) == at(offers[j].bus_ids, j)) {
        return fmt::format("{} and {} have MIG slices of one GPU", offers[i].name, offers[j].name);
      }
    }
  }
  return "";
}

}  // namespace

std::string_view to_string(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::automatic:
      return "auto";
    case DeviceKind::cpu:
      return "cpu";
    case DeviceKind::cuda:
      return "cuda";
    case DeviceKind::virtual_device:
      return "virtual";
  }
  return "auto";
}

void check_device(DeviceKind device, LinkKind link, const Layout& layout) {
  if (device == DeviceKind::cpu && link == LinkKind::nccl) {
    throw UsageError(
        "--link nccl connects GPUs, and --device cpu takes none: use --link mpi, or --device cuda");
  }
  if (device == DeviceKind::virtual_device && link == LinkKind::nccl) {
    throw UsageError(
        "--link nccl connects GPUs; the messages of virtual devices travel by --link mpi or local, "
        "and the links that they stand for are those of --virtual");
  }
  if (device == DeviceKind::cuda && layout.link == LinkKind::local && layout.ranks() > 1) {
    throw UsageError(fmt::format(
        "--device cuda with {} stages in one process: a process has one GPU and one stage on it; "
        "start {} ranks with mpirun or srun, or leave --stages and --replicas out",
        layout.ranks(), layout.ranks()));
  }
}

DevicePlan plan_devices(DeviceKind asked, const std::vector<DeviceOffer>& offers) {
  DevicePlan plan;
  if (asked == DeviceKind::cpu) return plan;
  const auto has_gpu = [](const DeviceOffer& offer) { return !offer.visible.uuids.empty(); };
  const auto lacking = std::find_if_not(offers.begin(), offers.end(), has_gpu);
  const auto having = std::find_if(offers.begin(), offers.end(), has_gpu);
  if (lacking == offers.end()) {
    plan.kind = DeviceKind::cuda;
    std::vector<comm::device::VisibleGpus> visible;
    for (const DeviceOffer& offer : offers) visible.push_back(offer.visible);
    plan.gpus = comm::device::choose_gpus(visible);
    plan.no_nccl = why_no_nccl(offers, plan.gpus);
    return plan;
  }
  const std::string who = offers.size() > 1 ? lacking->name + ": " : std::string();
  if (asked == DeviceKind::cuda) {
    throw UsageError(fmt::format("--device cuda: {}{}", who, lacking->none));
  }
  if (having != offers.end()) {
    throw UsageError(fmt::format(
        "{} has a GPU, but {}{}; all stages need devices of one kind: use nodes that are alike, or "
        "--device cpu",
        having->name, who, lacking->none));
  }
  plan.note = lacking->none;
  return plan;
}

StageDevice take_device(comm::Endpoint& endpoint, DeviceKind asked, LinkKind asked_link,
                        const Layout& layout) {
  // Ranks that differ would wait for each other.
  agree_on_equal(endpoint, {{"--device", to_string(asked)}, {"--link", to_string(asked_link)}});
  StageDevice device;
  DevicePlan plan;
  const bool threads = layout.link == LinkKind::local && layout.ranks() > 1;
  if (asked == DeviceKind::virtual_device) {
    device.kind = asked;
  } else if (asked != DeviceKind::cpu && !threads) {
    comm::device::GpuSurvey survey;
    // A GPU that is broken answers with an error.
    agree_on(endpoint, "looking for GPUs", [&] { survey = comm::device::survey_gpus(); });
    plan = plan_devices(asked, gather_offers(endpoint, survey));
    device.kind = plan.kind;
    // A program without CUDA had no choice to tell of.
    if (survey.runtime_version > 0) device.note = plan.note;
    if (plan.kind == DeviceKind::cuda) {
      const auto& choice = plan.gpus[static_cast<std::size_t>(endpoint.all().member())];
      device.gpu = survey.gpus[static_cast<std::size_t>(choice.gpu)];
      device.sharers = choice.sharers;
    }
  } else if (asked == DeviceKind::automatic && !comm::device::survey_gpus().gpus.empty()) {
    device.note =
        fmt::format("{} stages in one process compute on its CPUs; for GPUs start a rank for each",
                    layout.ranks());
  }
  device.link = choose_link(plan, asked_link, layout);
  if (asked_link == LinkKind::automatic) device.no_nccl = plan.no_nccl;
  if (device.kind == DeviceKind::cuda) {
    agree_on(endpoint, "taking the GPUs", [&] { comm::device::use_gpu(device.gpu); });
  }
  return device;
}

}  // namespace penstock::jobs
