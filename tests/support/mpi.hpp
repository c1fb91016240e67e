#pragma once

#include "comm/world.hpp"

namespace penstock::support {

// The world of an MPI test program; made by its main before any test runs.
const comm::World& world();

}  // namespace penstock::support
