#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/stage_clock.hpp"
#include "model/device_model.hpp"
#include "model/stage_plan.hpp"

// The machine that a rehearsal stands for.
namespace penstock::jobs {

struct VirtualMachine {
  model::DeviceModel device;  // one for each rank
  int devices_per_node = 1;   // ranks fill nodes one after the other
  bool gpus = true;           // which a scheduler has to be asked for; only job scripts care
  LinkModel in_node;          // activations between ranks of one node
  LinkModel between_nodes;
  LinkModel control;  // plans and tokens, between the driver and any other rank
  std::string text;   // "h100-sxm, nvlink between 8, ndr", for people

  // Of one direction of the edge between two ranks.
  const LinkModel& edge(int from_rank, int to_rank) const;
};

// nvlink, nvlink3, xgmi, ndr, hdr, slingshot, 25gbe.
std::vector<std::string> link_model_names();
// Throws UsageError that lists the names. One direction, as programs reach it.
LinkModel link_model(std::string_view name);

// SPEC of --virtual:
//   h100-sxm               the device in the nodes it is usually sold in
//   h100-sxm,ndr           every edge is such a link, and so is control
//   h100-sxm,nvlink:8,ndr  nodes of 8; the last link is that between nodes, and control
//   machine.json           see virtual_machine_from_json; a name that ends so, or holds a slash
// Throws UsageError, and io::FileError for the file.
VirtualMachine parse_virtual_machine(const std::string& spec);

// {"device": "h100-sxm" or {"like": "h100-sxm", "name": …, any member of DeviceModel},
//  "devices_per_node": 8, "gpus": true,
//  "in_node", "between_nodes", "control": "ndr" or {"latency_seconds": …, "bytes_per_second": …}}
// What is left out is the usual; a device without "like" needs its rates and its memory. Throws
// io::FileError that names `path` and the member.
VirtualMachine virtual_machine_from_json(const std::string& path, std::string_view text);

// All figures, to compare what ranks were told.
std::string figures(const VirtualMachine& machine);

// As many slots as keep all stages busy, by what is described. `first_rank`: of the stages, which
// lie on consecutive ranks.
std::uint32_t slots_for(const VirtualMachine& machine, const model::PartCost& parts,
                        const std::vector<model::StageRange>& ranges, int first_rank,
                        double activation_row_bytes, std::uint32_t rows);

}  // namespace penstock::jobs
