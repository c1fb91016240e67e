#include "jobs/measured_times.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

#include "jobs/launch.hpp"
#include "model/calibration.hpp"

namespace penstock::jobs {
namespace {

std::string described(const model::CalibrationKey& key) {
  return fmt::format("{}, {}", model::describe(key), key.numeric_class);
}

std::string listed(const std::vector<std::string>& names) {
  return fmt::format("{}", fmt::join(names, "; "));
}

}  // namespace

MeasuredTimes measured_times(const std::string& checkpoint, const PlanInput& plan,
                             const std::string& device, bool drawn) {
  const std::string path = model::calibration_path(checkpoint);
  const model::Calibrations known = model::read_calibrations(path);
  if (known.empty()) {
    throw UsageError(fmt::format(
        "--measured: {} holds nothing; penstock bench CKPT --calibrate measures", path));
  }
  const std::string network = model::describe_parts(plan.config);
  std::vector<std::string> fit;  // the plan's network and numbers
  std::vector<std::string> others;
  std::vector<std::string> chosen;
  MeasuredTimes times;
  for (const auto& [key, calibration] : known) {
    const std::string name = described(key);
    const bool on_gpus = key.threads == 0;
    if (key.network != network || key.dtype != io::to_string(plan.dtype) ||
        key.kv_dtype != io::to_string(plan.kv_dtype) || on_gpus != plan.machine.gpus) {
      others.push_back(key.network == network ? name : name + ", of another network");
      continue;
    }
    fit.push_back(name);
    if (name.find(device) == std::string::npos) continue;
    chosen.push_back(name);
    const model::PartTables& tables = calibration.tables;
    times = {model::measured_cost(drawn ? model::with_drawing(tables) : tables),
             fmt::format("{} ({}), {}", name, calibration.measured,
                         drawn ? "tokens drawn at random" : "greedy answers")};
  }
  if (chosen.size() == 1) return times;
  if (fit.empty()) {
    throw UsageError(fmt::format("--measured: {} has nothing for {}, KV {}, on {}, but: {}", path,
                                 io::to_string(plan.dtype), io::to_string(plan.kv_dtype),
                                 plan.machine.gpus ? "GPUs" : "CPUs", listed(others)));
  }
  if (chosen.empty()) {
    throw UsageError(fmt::format("--measured-on {}: {} has only: {}", device, path, listed(fit)));
  }
  throw UsageError(fmt::format(
      "--measured: {} has several: {}; give a part of one's description, as --measured-on '{}'",
      path, listed(chosen), chosen.front()));
}

}  // namespace penstock::jobs
