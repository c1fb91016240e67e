#pragma once

#include <string>

namespace penstock::model {

// The instruction set that our own kernels run with on this machine: "avx3" (AVX-512), "avx2" or
// the compiler's baseline. Sums of other lengths of vector have other bits.
std::string kernel_instruction_set();

}  // namespace penstock::model
