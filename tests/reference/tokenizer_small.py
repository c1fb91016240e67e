"""Writes tests/reference/data/tokenizer_small.json: small tokenizers of every style, made by the
tokenizers library, with texts and what the library makes of them.

usage: tokenizer_small.py > tests/reference/data/tokenizer_small.json
"""
import json
import random
import sys

import tokenizer_reference as reference

CORPUS = [" ".join(reference.WORDS), "def main(): return 12345", "the other one, the 2nd one"] * 3
EDGE = [
    "", " ", "  a  b ", "don't DON'T I'LL 'ſ x", "1234567 ٣٤ Ⅳ²½", "tab\tnew\nline\r\n\r\n  x   \n",
    "nbsp\u00a0nel\u0085 mvs\u180e zwsp\u200b ls\u2028 ideographic\u3000end", "日本語のテキスト 한국어 ไทย हिन्दी",
    "👨‍👩‍👧‍👦 🏳️‍🌈 1️⃣", "<|im_start|>user\nhi<|im_end|>", "<|im_start|> <|im_end", "a<tool>b qq  zz  [L]x  [L] [R]  y",
    "alone lone lone2 _lone lone.", "e\u0301\u0323 \u1e69 \u110b\u1161\u11ab \u0958 ﬁ", "\U00011935\U00011930 \u1df6\u0323 ᲊ \U0001e5d0a",
    "\x00\x01\x7f\x1b[0m", "a" * 100, " " * 70 + "x", "ab" * 60,
]


def main():
    rng = random.Random(7)
    texts = [text.encode() for text in EDGE]
    texts += [b"caf\xc3", b"\xff\xfe ok \xe2\x82 \xed\xa0\x80 \xf4\x90\x80\x80", b"\xf0\x9f\x91"]
    blocks = [0, 0x80, 0x380, 0x400, 0x900, 0x3080, 0x4E00, 0x1F600]
    texts += [reference.random_text(rng, blocks)[:60].encode() for _ in range(40)]
    strings = [text.decode("utf-8", "replace") for text in texts]
    cases = []
    for name, normalizer, pre_tokenizer, options in reference.styles():
        cases.append((name, reference.train(name, normalizer, pre_tokenizer, options, CORPUS, 340)))
    cases.append(("sentencepiece", reference.train_sentencepiece(CORPUS, False, 330, 50)))
    cases.append(("metaspace", reference.train_sentencepiece(CORPUS, True, 330, 50)))
    result = {"texts": [text.hex() for text in texts], "cases": []}
    for name, tokenizer in cases:
        ids = [tokenizer.encode(text, add_special_tokens=True).ids for text in strings]
        any_ids = [[rng.randrange(tokenizer.get_vocab_size() + 3) for _ in range(rng.randrange(12))]
                   for _ in range(60)]
        result["cases"].append({
            "name": name, "tokenizer": tokenizer.to_str(), "ids": ids,
            "texts_without_special": [tokenizer.decode(i, skip_special_tokens=True) for i in ids],
            "texts_with_special": [tokenizer.decode(i, skip_special_tokens=False) for i in ids],
            "any_ids": any_ids,
            "any_texts": [tokenizer.decode(i, skip_special_tokens=True) for i in any_ids]})
    json.dump(result, sys.stdout, ensure_ascii=True, separators=(",", ":"))


main()
