"""Writes model/text/unicode_supplement.inc: the code points that joined a general category between
Unicode 14 (PCRE2 10.40 to 10.42) and Unicode 16 (the Oniguruma inside of the tokenizers library).

usage: python3.11 unicode_supplement.py > model/text/unicode_supplement.inc
"""
import sys
import unicodedata

from tokenizers import Regex, pre_tokenizers

CATEGORIES = ["Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No",
              "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So"]


def reference_members(category):
    keep = pre_tokenizers.Split(Regex(r"\p{%s}" % category), "removed", invert=True)
    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    members = set()
    for begin in range(0, len(points), 4096):
        text = "".join(map(chr, points[begin:begin + 4096]))
        for piece, _ in keep.pre_tokenize_str(text):
            members.update(map(ord, piece))
    return members


def ranges(points):
    found = []
    for point in sorted(points):
        if found and found[-1][1] == point - 1:
            found[-1][1] = point
        else:
            found.append([point, point])
    return found


def main():
    if unicodedata.unidata_version != "14.0.0":
        sys.exit("needs a Python whose unicodedata is of Unicode 14 (Python 3.11)")
    print("// Written by tests/reference/unicode_supplement.py; do not edit.")
    for category in CATEGORIES:
        old = {c for c in range(0x110000) if unicodedata.category(chr(c)) == category}
        new = reference_members(category)
        if old - new:
            print("left", category, [hex(c) for c in old - new], file=sys.stderr)
        for first, last in ranges(new - old):
            print('{"%s", 0x%X, 0x%X},' % (category, first, last))


main()
