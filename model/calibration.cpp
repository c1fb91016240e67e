#include "model/calibration.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <tuple>

#include "io/error.hpp"
#include "io/file.hpp"
#include "io/json.hpp"
#include "io/utf8.hpp"
#include "model/error.hpp"

namespace penstock::model {
namespace {

using nlohmann::json;

constexpr int kSchema = 2;
constexpr std::string_view kFormat = "penstock calibration";
// More than any honest file has.
constexpr std::uint64_t kMostBytes = 4 << 20;
constexpr std::size_t kMostEntries = 4096;
constexpr std::size_t kMostPoints = 256;
constexpr std::size_t kMostText = 512;
constexpr std::uint64_t kMostRows = 1u << 24;
constexpr double kMostSeconds = 3600;

class MeasuredCost : public PartCost {
 public:
  explicit MeasuredCost(PartTables tables)
      : tables_(std::move(tables)), step_(tables_.embedding.seconds(1)) {}

  double step() const override { return step_; }
  double embedding(const StepShape& shape) const override {
    return tables_.embedding.seconds(shape.rows) - step_;
  }
  double layer(const StepShape& shape) const override {
    return tables_.layer.seconds(shape.rows) +
           tables_.attended_seconds * static_cast<double>(shape.attended) +
           tables_.cached_seconds * static_cast<double>(shape.cached);
  }
  double head(const StepShape& shape) const override {
    return shape.sampled == 0 ? 0 : tables_.head.seconds(shape.sampled);
  }

 private:
  PartTables tables_;
  double step_;
};

const json& member(const json& object, const char* name) {
  if (!object.is_object()) throw ModelError(fmt::format("is {}", io::type_of(object)));
  const auto found = object.find(name);
  if (found == object.end()) throw ModelError(fmt::format("has no {}", name));
  return *found;
}

std::string text_member(const json& object, const char* name) {
  const json& value = member(object, name);
  if (!value.is_string() || value.get_ref<const std::string&>().size() > kMostText) {
    throw ModelError(fmt::format("{} is {}, no short string", name, io::type_of(value)));
  }
  if (io::has_control_characters(value.get_ref<const std::string&>())) {
    throw ModelError(fmt::format("{} has control characters", name));
  }
  return value;
}

int count_member(const json& object, const char* name, int least) {
  const json& value = member(object, name);
  constexpr int kMost = 1 << 20;
  if (!value.is_number_integer() || value < least || value > kMost) {
    throw ModelError(
        fmt::format("{} is {}, not {} to {}", name, io::in_short(value), least, kMost));
  }
  return value.get<int>();
}

double seconds_in(const json& value, const char* name) {
  const double seconds = value.is_number() ? value.get<double>() : -1;
  if (!(seconds >= 0 && seconds <= kMostSeconds)) {
    throw ModelError(fmt::format("{} has {} for a time in seconds", name, io::in_short(value)));
  }
  return seconds;
}

TimeTable table_from(const json& parts, const char* name) {
  const json& list = member(parts, name);
  if (!list.is_array() || list.empty() || list.size() > kMostPoints) {
    throw ModelError(fmt::format("{} is no list of 1 to {} points", name, kMostPoints));
  }
  TimeTable table;
  for (const json& point : list) {
    if (!point.is_array() || point.size() != 2 || !point[0].is_number_unsigned() || point[0] < 1u ||
        point[0] > kMostRows) {
      throw ModelError(
          fmt::format("{} has {} for a point [rows, seconds]", name, io::in_short(point)));
    }
    const auto rows = point[0].get<std::uint64_t>();
    const double seconds = seconds_in(point[1], name);
    if (!table.points.empty() &&
        (rows <= table.points.back().first || seconds < table.points.back().second)) {
      throw ModelError(fmt::format("{} does not rise at {} rows", name, rows));
    }
    table.points.emplace_back(rows, seconds);
  }
  return table;
}

std::pair<CalibrationKey, Calibration> entry_from(const json& entry) {
  CalibrationKey key;
  key.device = text_member(entry, "device");
  key.numeric_class = text_member(entry, "numeric_class");
  key.threads = count_member(entry, "threads", 0);
  key.sharers = count_member(entry, "sharers", 1);
  key.dtype = text_member(entry, "dtype");
  key.kv_dtype = text_member(entry, "kv_dtype");
  key.network = text_member(entry, "network");
  return {key, {tables_from(member(entry, "seconds")), text_member(entry, "measured")}};
}

using Times = std::map<std::uint64_t, std::vector<double>>;  // by rows

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// The mean of what was measured at each number of rows; where more rows took less, the mean of all
// that are at odds (isotonic regression by pooling adjacent violators). Not negative.
TimeTable rising(const Times& times) {
  std::vector<std::vector<double>> pools;  // the means of some numbers of rows each
  for (const auto& [rows, list] : times) {
    pools.push_back({mean(list)});
    while (pools.size() > 1 && mean(pools[pools.size() - 2]) > mean(pools.back())) {
      const std::vector<double> last = std::move(pools.back());
      pools.pop_back();
      pools.back().insert(pools.back().end(), last.begin(), last.end());
    }
  }
  TimeTable table;
  auto row = times.begin();
  for (const std::vector<double>& pool : pools) {
    for (std::size_t i = 0; i < pool.size(); ++i, ++row) {
      table.points.emplace_back(row->first, std::max(0.0, mean(pool)));
    }
  }
  return table;
}

// Least squares for seconds = a * attended + c * cached, neither negative.
class AttentionFit {
 public:
  void add(double attended, double cached, double seconds) {
    aa_ += attended * attended;
    ac_ += attended * cached;
    cc_ += cached * cached;
    as_ += attended * seconds;
    cs_ += cached * seconds;
  }
  std::pair<double, double> solve() const {
    const double determinant = aa_ * cc_ - ac_ * ac_;
    // Steps of decoding alone attend to what they read, so the two cannot be told apart.
    if (determinant > 1e-9 * aa_ * cc_) {
      const double a = (as_ * cc_ - cs_ * ac_) / determinant;
      const double c = (cs_ * aa_ - as_ * ac_) / determinant;
      if (a >= 0 && c >= 0) return {a, c};
    }
    const double only_a = aa_ > 0 ? std::max(0.0, as_ / aa_) : 0;
    const double only_c = cc_ > 0 ? std::max(0.0, cs_ / cc_) : 0;
    // What explains more of the squares.
    return only_a * as_ >= only_c * cs_ ? std::pair{only_a, 0.0} : std::pair{0.0, only_c};
  }

 private:
  double aa_ = 0, ac_ = 0, cc_ = 0, as_ = 0, cs_ = 0;
};

}  // namespace

std::string describe(const CalibrationKey& key) {
  std::string text = key.device;
  if (key.threads > 0) {
    text += fmt::format(", {} thread{}", key.threads, key.threads == 1 ? "" : "s");
  }
  text += key.threads > 0
              ? fmt::format(", {} rank{} a node", key.sharers, key.sharers == 1 ? "" : "s")
              : fmt::format(", {} rank{} a GPU", key.sharers, key.sharers == 1 ? "" : "s");
  return text + fmt::format(", {}, KV {}", key.dtype, key.kv_dtype);
}

std::string describe_parts(const ModelConfig& c) {
  return fmt::format(
      "{} hidden {}, intermediate {}, heads {}, KV heads {}, head size {}, vocabulary {}{}{}",
      c.architecture, c.hidden_size, c.intermediate_size, c.num_heads, c.num_kv_heads, c.head_dim,
      c.vocab_size, c.attention_bias ? ", attention bias" : "", c.mlp_bias ? ", MLP bias" : "");
}

double TimeTable::seconds(std::uint64_t rows) const {
  if (points.empty()) return 0;
  if (rows <= points.front().first || points.size() == 1) return points.front().second;
  auto above = std::lower_bound(points.begin(), points.end(), rows,
                                [](const auto& point, std::uint64_t r) { return point.first < r; });
  if (above == points.end()) --above;
  const auto& [r1, s1] = *above;
  const auto& [r0, s0] = *(above - 1);
  const double share =
      (static_cast<double>(rows) - static_cast<double>(r0)) / static_cast<double>(r1 - r0);
  return s0 + (s1 - s0) * share;
}

std::shared_ptr<const PartCost> measured_cost(PartTables tables) {
  return std::make_shared<MeasuredCost>(std::move(tables));
}

PartTables with_drawing(PartTables tables) {
  for (auto& [rows, seconds] : tables.head.points) seconds += tables.drawn.seconds(rows);
  return tables;
}

void to_json(json& j, const PartTables& tables) {
  j = {{"embedding", tables.embedding.points}, {"layer", tables.layer.points},
       {"head", tables.head.points},           {"attended", tables.attended_seconds},
       {"drawn", tables.drawn.points},         {"cached", tables.cached_seconds}};
}

PartTables tables_from(const json& j) {
  PartTables tables;
  tables.embedding = table_from(j, "embedding");
  tables.layer = table_from(j, "layer");
  tables.head = table_from(j, "head");
  tables.drawn = table_from(j, "drawn");
  tables.attended_seconds = seconds_in(member(j, "attended"), "attended");
  tables.cached_seconds = seconds_in(member(j, "cached"), "cached");
  if (tables.layer.points.front().second <= 0) throw ModelError("a layer takes no time");
  return tables;
}

std::string calibration_text(const Calibrations& calibrations) {
  json entries = json::array();
  for (const auto& [key, calibration] : calibrations) {
    entries.push_back({{"device", key.device},
                       {"numeric_class", key.numeric_class},
                       {"threads", key.threads},
                       {"sharers", key.sharers},
                       {"dtype", key.dtype},
                       {"kv_dtype", key.kv_dtype},
                       {"network", key.network},
                       {"measured", calibration.measured},
                       {"seconds", calibration.tables}});
  }
  const json all = {{"format", kFormat}, {"schema", kSchema}, {"entries", entries}};
  return all.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

Calibrations parse_calibrations(std::string_view text) {
  json all;
  try {
    all = io::parse_json(text);
  } catch (const io::JsonError& error) {
    throw ModelError(error.what());
  }
  if (member(all, "format") != kFormat) throw ModelError("is no penstock calibration");
  if (member(all, "schema") != kSchema) {
    throw ModelError(fmt::format(
        "has schema {}; this program knows {}: remove it and measure again (bench --calibrate)",
        io::in_short(all.at("schema")), kSchema));
  }
  const json& entries = member(all, "entries");
  if (!entries.is_array() || entries.size() > kMostEntries) {
    throw ModelError(fmt::format("entries is no list of at most {}", kMostEntries));
  }
  Calibrations calibrations;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    try {
      calibrations.insert(entry_from(entries[i]));
    } catch (const ModelError& error) {
      throw ModelError(fmt::format("entry {}: {}", i, error.what()));
    }
  }
  return calibrations;
}

std::string calibration_path(const std::string& checkpoint) {
  return checkpoint + ".calibration.json";
}

Calibrations read_calibrations(const std::string& path) {
  std::error_code error;
  if (std::filesystem::status(path, error).type() == std::filesystem::file_type::not_found) {
    return {};
  }
  const std::string text = io::read_text(path, kMostBytes);
  try {
    return parse_calibrations(text);
  } catch (const ModelError& e) {
    throw io::FileError(path, e.what());
  }
}

void write_calibrations(const std::string& path, const Calibrations& calibrations) {
  io::replace_file(path, calibration_text(calibrations));
}

PartTables fit_tables(std::span<const PartSample> samples) {
  AttentionFit attention;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    for (std::size_t k = 0; k < i; ++k) {
      const PartSample& a = samples[i];
      const PartSample& b = samples[k];
      if (a.shape.rows != b.shape.rows) continue;
      const auto difference = [](std::uint64_t x, std::uint64_t y) {
        return static_cast<double>(x) - static_cast<double>(y);
      };
      attention.add(difference(a.shape.attended, b.shape.attended),
                    difference(a.shape.cached, b.shape.cached), a.layer - b.layer);
    }
  }
  PartTables tables;
  std::tie(tables.attended_seconds, tables.cached_seconds) = attention.solve();
  Times rest, layer, head, drawn;
  for (const PartSample& sample : samples) {
    const double attended = tables.attended_seconds * static_cast<double>(sample.shape.attended) +
                            tables.cached_seconds * static_cast<double>(sample.shape.cached);
    rest[sample.shape.rows].push_back(sample.rest);
    layer[sample.shape.rows].push_back(std::max(0.0, sample.layer - attended));
    if (sample.shape.sampled > 0 && !sample.drawn) {
      head[sample.shape.sampled].push_back(sample.head);
    }
  }
  for (const PartSample& sample : samples) {
    const std::uint64_t rows = sample.shape.sampled;
    if (sample.drawn && head.contains(rows)) drawn[rows].push_back(sample.head - mean(head[rows]));
  }
  if (drawn.empty()) drawn[1] = {0};
  tables.embedding = rising(rest);
  tables.layer = rising(layer);
  tables.head = rising(head);
  tables.drawn = rising(drawn);
  return tables;
}

}  // namespace penstock::model
