#pragma once

// Included before Highway's foreach_target.h: kernels are built for the compiler's baseline, AVX2
// and AVX-512 and for nothing in between, which keeps numeric classes few.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
