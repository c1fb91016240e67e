#pragma once

namespace penstock::model {

// Where an op runs. Every op is a function overloaded on its first argument, so that an op's CPU
// and CUDA versions share one header and one description of their arguments.
struct Cpu {
  int threads = 1;  // OpenMP threads; results do not depend on it
};

}  // namespace penstock::model
