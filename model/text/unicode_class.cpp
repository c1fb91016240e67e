#include "model/text/unicode_class.hpp"

#include <utf8proc.h>

#include <array>

namespace penstock::model {
namespace {

constexpr auto supplement = std::to_array<CategoryRange>({
#include "model/text/unicode_supplement.inc"
});

bool in_supplement(char32_t character, std::string_view letters) {
  for (const CategoryRange& range : supplement) {
    if (character >= range.first && character <= range.last &&
        letters.find(range.category[0]) != letters.npos) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::span<const CategoryRange> unicode_supplement() { return supplement; }

bool is_numeric(char32_t character) {
  if (character < 0x80) return character >= '0' && character <= '9';
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(character))) {
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return true;
    case UTF8PROC_CATEGORY_CN:
      // Unicode 17: Tolong Siki digits and three Chinese ones.
      return in_supplement(character, "N") || (character >= 0x11DE0 && character <= 0x11DE9) ||
             (character >= 0x16FF4 && character <= 0x16FF6);
    default:
      return false;
  }
}

bool is_whitespace(char32_t character) {
  return (character >= 0x09 && character <= 0x0D) || character == 0x20 || character == 0x85 ||
         character == 0xA0 || character == 0x1680 || (character >= 0x2000 && character <= 0x200A) ||
         character == 0x2028 || character == 0x2029 || character == 0x202F || character == 0x205F ||
         character == 0x3000;
}

bool is_word(char32_t character) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(character))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    case UTF8PROC_CATEGORY_SO:  // letters in circles and squares are Alphabetic
      return (character >= 0x24B6 && character <= 0x24E9) ||
             (character >= 0x1F130 && character <= 0x1F149) ||
             (character >= 0x1F150 && character <= 0x1F169) ||
             (character >= 0x1F170 && character <= 0x1F189);
    case UTF8PROC_CATEGORY_CN:
      return in_supplement(character, "LM");
    default:
      return character == 0x200C || character == 0x200D;  // Join_Control
  }
}

}  // namespace penstock::model
