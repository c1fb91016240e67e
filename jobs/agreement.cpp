#include "jobs/agreement.hpp"

#include <fmt/format.h>

#include <exception>
#include <string>
#include <vector>

#include "jobs/launch.hpp"

namespace penstock::jobs {

void agree_on(comm::Endpoint& endpoint, std::string_view what, const std::function<void()>& body) {
  bool ok = true;
  std::string text;
  try {
    body();
  } catch (const std::exception& e) {
    ok = false;
    text = endpoint.all().size() == 1
               ? std::string(e.what())
               : fmt::format("{} ({}, {})", e.what(), stage_name(endpoint),
                             endpoint.control->describe(endpoint.control->member()));
  }
  endpoint.all().agree(ok, text, what, endpoint.watchdog);
}

// Option files and copies of the checkpoint may differ from host to host.
void agree_on_equal(comm::Endpoint& endpoint, const nlohmann::ordered_json& mine) {
  std::vector<nlohmann::ordered_json> all;
  for (const std::string& text :
       endpoint.all().all_gather(mine.dump(), "comparing the options", endpoint.watchdog)) {
    all.push_back(nlohmann::ordered_json::parse(text));
  }
  agree_on(endpoint, "comparing the options", [&] {
    for (const auto& [name, value] : mine.items()) {
      if (value == all[0].at(name)) continue;
      throw UsageError(fmt::format("{} is {} here, but {} on stage 0: give all ranks the same",
                                   name, value.dump(), all[0].at(name).dump()));
    }
  });
}

}  // namespace penstock::jobs
