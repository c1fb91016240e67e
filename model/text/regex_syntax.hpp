#pragma once

#include <string>
#include <string_view>

namespace penstock::model {

// A pattern in the syntax of tokenizer.json (Oniguruma's, Ruby flavour) as one that PCRE2 with
// UTF and UCP matches the same way. The two differ in \s, \h, \v, {n,m}+ and in their Unicode
// versions; what is not known to be equal is refused. Throws ModelError that quotes the pattern.
// Syntax: github.com/kkos/oniguruma, doc/RE.
std::string to_pcre2(std::string_view pattern);

}  // namespace penstock::model
