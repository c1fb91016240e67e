#pragma once

namespace penstock::model {

// Where an op runs. Every op is a function overloaded on its first argument, so that an op's CPU
// and CUDA versions share one header and one description of their arguments.
struct Cpu {
  int threads = 1;  // OpenMP threads; results do not depend on it
};

// An op on a GPU is put on the stream and the call returns; it allocates nothing and never waits,
// so it can be captured into a CUDA graph. All pointers in its arguments are memory of the GPU,
// also those of spans, unless the header says otherwise, and stay valid until the stream has done
// the work. The thread's current GPU is `gpu`. Throws comm::device::DeviceError, and ModelError
// for shapes that have no kernel.
struct Cuda {
  void* stream = nullptr;  // a cudaStream_t
  int gpu = 0;
};

}  // namespace penstock::model
