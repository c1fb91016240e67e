"""Writes model/text/unicode_after_9.inc: the code points that normalization treats specially in
today's Unicode and that the tokenizers library, whose normalization is of Unicode 9, leaves alone.

usage: python unicode_after_9.py > model/text/unicode_after_9.inc     (needs tokenizers, unicodedata2)
"""
import unicodedata2 as unicode_data

from tokenizers import normalizers

FORMS = {name: getattr(normalizers, name)() for name in ("NFC", "NFD", "NFKC", "NFKD")}


def reference_reorders(char):
    """Whether the reference sees a combining class above 0: marks around it would swap."""
    nfd = FORMS["NFD"].normalize_str
    return any(nfd(text) != text for text in ("a" + char + "\u0334", "a\u0345" + char))


def main():
    found = set()
    for point in range(0xE01F0):
        if 0xD800 <= point < 0xF900:
            continue
        char = chr(point)
        if unicode_data.combining(char) and not reference_reorders(char):
            found.add(point)
        for name, form in FORMS.items():
            if form.normalize_str(char) != unicode_data.normalize(name, char):
                found.add(point)
        parts = unicode_data.decomposition(char).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            text = "".join(chr(int(part, 16)) for part in parts)
            if FORMS["NFC"].normalize_str(text) != unicode_data.normalize("NFC", text):
                found.add(int(parts[0], 16))
    print("// Written by tests/reference/unicode_after_9.py; do not edit.")
    begin = None
    for point in sorted(found):
        if begin is None:
            begin = point
        if point + 1 not in found:
            print("{0x%X, 0x%X}," % (begin, point))
            begin = None


main()
