#include "model/ops/instruction_set.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "model/ops/instruction_set_cpu.cpp"
// clang-format off
#include "model/ops/simd_targets.hpp"
#include <hwy/foreach_target.h>
#include "model/ops/simd-inl.hpp"
// clang-format on

#include <fmt/format.h>
#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

#include <algorithm>
#include <cctype>

HWY_BEFORE_NAMESPACE();
namespace penstock::model::HWY_NAMESPACE {

const char* target_name() { return hwy::TargetName(HWY_TARGET); }

}  // namespace penstock::model::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock::model {

HWY_EXPORT(target_name);

namespace {

std::string c_library() {
#ifdef __GLIBC__
  return fmt::format("glibc-{}", gnu_get_libc_version());
#else
  return "libc";
#endif
}

}  // namespace

std::string kernel_numeric_class() {
  std::string name = HWY_DYNAMIC_DISPATCH(target_name)();
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return fmt::format("{} highway-{}.{}.{} {}", name, HWY_MAJOR, HWY_MINOR, HWY_PATCH, c_library());
}

}  // namespace penstock::model
#endif  // HWY_ONCE
