#pragma once

#include <span>
#include <string_view>

// Classes of characters as the reference tokenizers library sees them. Its parts follow different
// versions of Unicode (Oniguruma: 16, Rust's char: 17, PCRE2 10.42: 14, utf8proc 2.8: 15), so what
// a library here does not know yet is added from a table.
namespace penstock::model {

// Code points [first, last] that joined the general category after Unicode 14.
struct CategoryRange {
  char category[3];
  char32_t first;
  char32_t last;
};
std::span<const CategoryRange> unicode_supplement();

bool is_numeric(char32_t character);     // Rust's char::is_numeric: Nd, Nl, No
bool is_whitespace(char32_t character);  // White_Space
bool is_word(char32_t character);        // \w of Rust's regex crate (UTS #18, annex C)

}  // namespace penstock::model
