#pragma once

// Included before Highway's foreach_target.h: kernels are built for AVX-512, AVX2 and SSE4, and
// for the compiler's baseline (plain C++ on x86-64, where Highway 1.0 has nothing below SSSE3). Few
// sets keep numeric classes few.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
