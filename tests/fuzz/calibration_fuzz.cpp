#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "model/calibration.hpp"
#include "model/error.hpp"

// A calibration file: refused, or one that gives the same again, and finite times for any step.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace penstock::model;
  try {
    const Calibrations read = parse_calibrations({reinterpret_cast<const char*>(data), size});
    const std::string text = calibration_text(read);
    if (calibration_text(parse_calibrations(text)) != text) std::abort();
    for (const auto& [key, calibration] : read) {
      for (const PartTables& tables : {calibration.tables, with_drawing(calibration.tables)}) {
        const StepCost cost(measured_cost(tables), {0, 2, true, true});
        for (const std::uint64_t n : {0, 1, 7, 512, 1 << 20}) {
          const double seconds = cost.seconds({n, n, n, n});
          if (!std::isfinite(seconds) || !(seconds > 0)) std::abort();
        }
      }
    }
  } catch (const ModelError&) {
  }
  return 0;
}
