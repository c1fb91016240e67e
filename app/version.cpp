#include "app/commands.hpp"

namespace penstock::app {

std::string version() { return "penstock " PENSTOCK_VERSION; }

}  // namespace penstock::app
