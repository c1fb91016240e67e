#pragma once

#include <string>

#include "tests/support/program.hpp"

namespace penstock::tests {

// Bash, where it may mount file systems that nobody else sees; they are gone when it ends.
inline Finished in_namespace(const std::string& script) {
  const std::string mapped = ::geteuid() == 0 ? "" : "--user --map-root-user ";
  return start(
      {"/bin/bash", "-c", "exec unshare --mount " + mapped + "/bin/bash -c \"$0\"", script});
}

inline bool can_mount() { return in_namespace("mount -t tmpfs none /tmp").code == 0; }

}  // namespace penstock::tests
