#pragma once

#include <string>

namespace penstock::model {

// What decides about the bits of our own kernels, for the numeric class: the instruction set they
// run with on this machine ("avx3" is AVX-512), since sums of other lengths of vector have other
// bits, and whose exp, sin, cos and pow they call: "avx3 highway-1.0.3 glibc-2.36".
std::string kernel_numeric_class();

}  // namespace penstock::model
