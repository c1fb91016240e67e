#include "jobs/process_use.hpp"

#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <exception>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>

namespace penstock::jobs {
namespace {

double seconds_of(clockid_t clock) {
  timespec time{};
  if (clock_gettime(clock, &time) != 0) return 0;
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Not getrusage's ru_maxrss, which begins with that of whoever started the program.
std::uint64_t peak_memory_bytes() {
  std::ifstream file("/proc/self/status");  // proc(5)
  for (std::string line; std::getline(file, line);) {
    constexpr std::string_view kField = "VmHWM:";
    if (!line.starts_with(kField)) continue;
    std::uint64_t kib = 0;
    std::istringstream(line.substr(kField.size())) >> kib;
    return kib * 1024;
  }
  return 0;
}

std::uint64_t open_files() {
  std::error_code error;
  std::uint64_t files = 0;
  for (std::filesystem::directory_iterator it("/proc/self/fd", error), end; !error && it != end;
       it.increment(error)) {
    ++files;
  }
  return files > 0 ? files - 1 : 0;  // the folder itself
}

}  // namespace

void to_json(nlohmann::json& json, const ProcessUse& use) {
  json = {{"peak_memory_bytes", use.peak_memory_bytes},
          {"open_files", use.open_files},
          {"thread_seconds", use.thread_seconds}};
}

void from_json(const nlohmann::json& json, ProcessUse& use) {
  json.at("peak_memory_bytes").get_to(use.peak_memory_bytes);
  json.at("open_files").get_to(use.open_files);
  json.at("thread_seconds").get_to(use.thread_seconds);
}

ProcessMeter::ProcessMeter() : begin_(seconds_of(CLOCK_THREAD_CPUTIME_ID)) {}

ProcessUse ProcessMeter::use() const {
  ProcessUse use;
  use.peak_memory_bytes = peak_memory_bytes();
  use.open_files = open_files();
  use.thread_seconds = seconds_of(CLOCK_THREAD_CPUTIME_ID) - begin_;
  return use;
}

double process_age_seconds() {
  // proc(5): starttime is the 22nd field, and the second one is a name that may hold anything but
  // ends with the last bracket.
  std::ifstream file("/proc/self/stat");
  std::string text;
  std::getline(file, text);
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(text.substr(name_end + 1));
  std::string field;
  for (int i = 3; i <= 22; ++i) fields >> field;
  const long ticks_per_second = sysconf(_SC_CLK_TCK);
  try {
    const double start = std::stod(field) / static_cast<double>(ticks_per_second);
    return std::max(0.0, seconds_of(CLOCK_BOOTTIME) - start);
  } catch (const std::exception&) {
    return 0;
  }
}

}  // namespace penstock::jobs
