#include "jobs/stage_cut.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <exception>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "jobs/agreement.hpp"
#include "model/error.hpp"
#include "model/step_plan.hpp"

namespace penstock::jobs {
namespace {

using nlohmann::json;

// What stage 0 finds for all.
struct Found {
  std::vector<model::PartTables> tables;  // of each stage; empty: nothing was measured
  std::string source;
  std::vector<std::string> warnings;
};

struct Rank {
  model::CalibrationKey key;
  std::uint64_t memory_bytes = 0;
};

json to_json(const model::CalibrationKey& key) {
  return {key.device, key.numeric_class, key.threads, key.sharers,
          key.dtype,  key.kv_dtype,      key.network};
}

model::CalibrationKey key_from(const json& j) {
  return {j.at(0), j.at(1), j.at(2), j.at(3), j.at(4), j.at(5), j.at(6)};
}

std::vector<Rank> gather(comm::Endpoint& endpoint, const CutInput& mine) {
  const json text = {{"key", to_json(mine.key)}, {"memory", mine.memory_bytes}};
  std::vector<Rank> ranks;
  for (const std::string& theirs :
       endpoint.control->all_gather(text.dump(-1, ' ', false, json::error_handler_t::replace),
                                    "what each rank has", endpoint.watchdog)) {
    const json j = json::parse(theirs);
    ranks.push_back({key_from(j.at("key")), j.at("memory")});
  }
  return ranks;
}

// What a calibration file has for these ranks: for all of them, or nothing, since times that were
// measured cannot be weighed against such as were not.
Found find(const CutInput& mine, const std::vector<Rank>& ranks) {
  const std::string& path = mine.calibration;
  Found found;
  found.source = mine.described.empty() ? "by weights and arithmetic"
                                        : fmt::format("by what {} is said to do", mine.described);
  if (path.empty()) return found;
  model::Calibrations known;
  try {
    known = model::read_calibrations(path);
  } catch (const std::exception& error) {
    // It says how fast the job is, not what it answers, so the job goes on without it.
    found.warnings.push_back(fmt::format("{}; stages are cut without it", error.what()));
    return found;
  }
  if (known.empty()) {
    found.source += " (bench --calibrate measures)";
    return found;
  }
  std::set<std::string> measured;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    const auto entry = known.find(ranks[i].key);
    if (entry == known.end()) {
      found.tables.clear();
      found.source += fmt::format("; {} has nothing for stage {}: {}, {}", path, i,
                                  model::describe(ranks[i].key), ranks[i].key.numeric_class);
      return found;
    }
    found.tables.push_back(entry->second.tables);
    measured.insert(entry->second.measured);
  }
  found.source = fmt::format("by measurement ({})", fmt::join(measured, "; "));
  return found;
}

// `drawn`: tokens are drawn at random.
std::vector<std::shared_ptr<const model::PartCost>> parts_of(
    std::size_t stages, const std::vector<model::PartTables>& tables, bool drawn,
    const std::shared_ptr<const model::PartCost>& modelled) {
  std::vector<std::shared_ptr<const model::PartCost>> parts;
  for (std::size_t i = 0; i < stages; ++i) {
    if (tables.empty()) {
      parts.push_back(modelled);
    } else if (i > 0 && tables[i] == tables[i - 1]) {
      parts.push_back(parts.back());
    } else {
      parts.push_back(model::measured_cost(drawn ? model::with_drawing(tables[i]) : tables[i]));
    }
  }
  return parts;
}

std::vector<model::StageRange> cut(const CutInput& mine, const std::vector<Rank>& ranks,
                                   const std::vector<model::PartTables>& tables) {
  if (!mine.layers.empty()) {
    return model::stages_of(mine.config, static_cast<int>(ranks.size()), mine.layers);
  }
  const auto parts = parts_of(ranks.size(), tables, mine.drawn, mine.modelled);
  std::vector<model::StageRank> bring;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    bring.push_back({model::part_seconds(*parts[i], mine.step), ranks[i].memory_bytes});
  }
  const auto with_kv = [&](std::uint64_t tokens) {
    return model::cut_stages(mine.config.num_layers, bring,
                             model::part_bytes(mine.config, mine.dtype, mine.kv_dtype, tokens));
  };
  try {
    return with_kv(mine.kv_tokens);
  } catch (const model::ModelError&) {
    if (mine.kv_tokens <= model::kKvBlockTokens) throw;
    return with_kv(model::kKvBlockTokens);  // the least that a job can begin with
  }
}

}  // namespace

const model::StepCost& StageCut::slowest() const {
  const std::vector<double> times = seconds(step);
  return costs[static_cast<std::size_t>(std::max_element(times.begin(), times.end()) -
                                        times.begin())];
}

std::vector<double> StageCut::seconds(const model::StepShape& shape) const {
  std::vector<double> times;
  for (const model::StepCost& cost : costs) times.push_back(cost.seconds(shape));
  return times;
}

StageCut agree_on_cut(comm::Endpoint& endpoint, const CutInput& mine) {
  const std::vector<Rank> ranks = gather(endpoint, mine);
  json of_stage_0;
  agree_on(endpoint, "cutting the stages", [&] {
    if (endpoint.control->member() != 0) return;
    const Found found = find(mine, ranks);
    std::vector<std::int64_t> layers;
    for (const model::StageRange& range : cut(mine, ranks, found.tables)) {
      layers.push_back(range.layers());
    }
    of_stage_0 = {
        {"layers", layers},
        {"tables", found.tables},
        {"drawn", mine.drawn},
        {"source", mine.layers.empty() ? found.source : "by --layers"},
        {"warnings", found.warnings},
        {"step", {mine.step.rows, mine.step.sampled, mine.step.attended, mine.step.cached}}};
  });
  const std::string text = of_stage_0.dump(-1, ' ', false, json::error_handler_t::replace);
  const json agreed =
      json::parse(endpoint.control->all_gather(text, "the stages' layers", endpoint.watchdog)[0]);

  StageCut result;
  result.ranges = model::stages_of(mine.config, static_cast<int>(ranks.size()),
                                   agreed.at("layers").get<std::vector<std::int64_t>>());
  std::vector<model::PartTables> tables;
  for (const json& each : agreed.at("tables")) tables.push_back(model::tables_from(each));
  const auto parts = parts_of(ranks.size(), tables, agreed.at("drawn"), mine.modelled);
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    result.costs.emplace_back(parts[i], result.ranges[i]);
  }
  const json& step = agreed.at("step");
  result.step = {step.at(0), step.at(1), step.at(2), step.at(3)};
  result.in_seconds = !tables.empty() || !mine.described.empty();
  result.source = agreed.at("source");
  // All have them: the caller tells them once.
  result.warnings = agreed.at("warnings").get<std::vector<std::string>>();
  return result;
}

double best_cut_part(const StageCut& cut, const model::StepShape& shape) {
  std::vector<model::StageRank> ranks;
  for (const model::StepCost& cost : cut.costs) {
    ranks.push_back({model::part_seconds(*cost.parts(), shape)});
  }
  StageCut best;
  best.ranges = model::cut_stages(cut.ranges.back().end, ranks, model::PartBytes{});
  for (std::size_t i = 0; i < best.ranges.size(); ++i) {
    best.costs.emplace_back(cut.costs[i].parts(), best.ranges[i]);
  }
  const auto slowest = [&shape](const StageCut& one) {
    const std::vector<double> times = one.seconds(shape);
    return *std::max_element(times.begin(), times.end());
  };
  const double now = slowest(cut);
  return now > 0 ? slowest(best) / now : 1;
}

StepTimes step_times(const StageCut& cut, const std::vector<LedgerTotals>& stages,
                     std::span<const model::StepShape> shapes, std::uint64_t steps) {
  StepTimes times;
  if (steps == 0) return times;
  for (const LedgerTotals& stage : stages) {
    times.measured_seconds.push_back(stage[Share::compute] / static_cast<double>(steps));
  }
  if (!cut.in_seconds || shapes.empty()) return times;
  for (const model::StepCost& cost : cut.costs) {
    double sum = 0;
    for (const model::StepShape& shape : shapes) sum += cost.seconds(shape);
    times.predicted_seconds.push_back(sum / static_cast<double>(shapes.size()));
  }
  return times;
}

std::vector<std::string> format_predicted(const StageCut& cut) {
  const std::vector<double> times = cut.seconds(cut.step);
  const double slowest = *std::max_element(times.begin(), times.end());
  std::vector<std::string> texts;
  for (const double seconds : times) {
    texts.push_back(cut.in_seconds ? fmt::format("{:.1f} ms", 1e3 * seconds)
                                   : fmt::format("{:.0f} %", 100 * seconds / slowest));
  }
  return texts;
}

}  // namespace penstock::jobs
