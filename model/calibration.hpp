#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/dtype.hpp"
#include "model/config.hpp"
#include "model/step_cost.hpp"

// How long the parts of a network take, as they were measured on the machines that run it.
namespace penstock::model {

// What a measurement depends on. One is used where all of this is the same, and nowhere else.
struct CalibrationKey {
  std::string device;         // "AMD EPYC (family 26, model 2)", "NVIDIA H100 80GB HBM3"
  std::string numeric_class;  // instruction set and libraries
  int threads = 1;            // on a GPU 0: they do not matter
  int sharers = 1;            // ranks that share the node's memory, or the GPU
  std::string dtype;
  std::string kv_dtype;
  std::string network;  // describe_parts()

  auto operator<=>(const CalibrationKey&) const = default;
};
// For messages: "AMD EPYC (family 26, model 2), 8 threads, 2 ranks a node, bf16, KV bf16".
std::string describe(const CalibrationKey& key);
// What decides about the time of one layer, the embedding and the head: sizes, not weights.
std::string describe_parts(const ModelConfig& config);

// Seconds by rows, ascending; between two points a straight line.
struct TimeTable {
  std::vector<std::pair<std::uint64_t, double>> points;
  // Before the first point its time; behind the last the line of the last two goes on.
  double seconds(std::uint64_t rows) const;
  bool operator==(const TimeTable&) const = default;
};

struct PartTables {
  TimeTable embedding;          // by rows, with what a step takes whatever its layers
  TimeTable layer;              // by rows, without attention
  TimeTable head;               // by rows that are sampled, greedily
  TimeTable drawn;              // by the same, what the head takes longer to draw at random
  double attended_seconds = 0;  // of a layer, for each attended position
  double cached_seconds = 0;    // of a layer, for each position read from the cache
  bool operator==(const PartTables&) const = default;
};
std::shared_ptr<const PartCost> measured_cost(PartTables tables);
// For answers whose tokens are drawn at random: the head's table with what that takes.
PartTables with_drawing(PartTables tables);

void to_json(nlohmann::json& json, const PartTables& tables);
// Nothing is taken on the text's word: throws ModelError that names what is wrong.
PartTables tables_from(const nlohmann::json& json);

struct Calibration {
  PartTables tables;
  std::string measured;  // when and by what, for people: "2026-11-23, penstock 0.1.0"
};

// A calibration file: JSON, for several machines.
using Calibrations = std::map<CalibrationKey, Calibration>;
std::string calibration_text(const Calibrations& calibrations);
// Throws ModelError that names what is wrong.
Calibrations parse_calibrations(std::string_view text);

// The file beside a checkpoint.
std::string calibration_path(const std::string& checkpoint);
// Empty if there is no file. Throws io::FileError.
Calibrations read_calibrations(const std::string& path);
// Replaces the file in one step. Throws io::FileError.
void write_calibrations(const std::string& path, const Calibrations& calibrations);

// A step that was measured on a stage of several layers, and its parts.
struct PartSample {
  StepShape shape;
  double rest = 0;     // embedding and all that is neither layer nor head
  double layer = 0;    // the mean of the stage's layers
  double head = 0;     // sampling included; of no meaning where nothing is sampled
  bool drawn = false;  // tokens were drawn at random, not greedily
};
// Steps of equal numbers of rows and different attention tell what attention takes; the tables are
// what remains, and do not fall. Needs a sample with rows, and a greedy one with sampled rows; a
// drawn one counts beside a greedy one of as many sampled rows.
PartTables fit_tables(std::span<const PartSample> samples);

}  // namespace penstock::model
