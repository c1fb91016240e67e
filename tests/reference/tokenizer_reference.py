"""Expected ids and texts of the tokenizers library, for tests/model/text/tokenizer_reference_test.cpp.

usage: tokenizer_reference.py OUT_DIR LINES [GGUF ...]

Writes OUT_DIR/lines (byte strings, not all UTF-8) and, for each case, OUT_DIR/NAME.ids,
NAME.bos_ids (with special tokens, of the first lines) and NAME.texts (decoded again, special tokens
skipped), and NAME.json, the tokenizer. The cases are small tokenizers trained here, one for each
style, and one for each GGUF, put together here from its metadata; NAME is then the file's name.
Strings are a little-endian uint32 count and the bytes; ids a uint32 count and uint32 values.
"""
import os
import pathlib
import random
import struct
import sys
import unicodedata

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<s>", "</s>"]
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
WORDS = ("the of and to in he was for it with as his on be at by had not are but from or have an "
         "they which one you were her all she there would their we him been has when who will more "
         "Don't I'll we've CAN'T you'Re it'S 'tis ’twas naïve café über straße ſ'ſ 'ſ O'Neill").split()
EMOJI = ["👨‍👩‍👧‍👦", "👩🏽‍💻", "🏳️‍🌈", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🇩🇪🇫🇷🇯", "1️⃣#️⃣", "❤️‍🔥", "🧑🏿‍🤝‍🧑🏻", "☺️", "🫨🪿🩷"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\u00a0", "\u1680", "\u180e", "\u2003", "\u200b",
          "\u2028", "\u202f", "\u205f", "\u3000", "\u0085", "\x0b", "\x0c", "\ufeff"]
DIGITS = "0123456789٠١٢٣߀߁०१२๑༣²³¹½¾ⅣⅫ①⑳㊿一二〇𝟘𝟙𐒠𖩠𑽐𞓰🯰"


def code_lines():
    root = pathlib.Path(os.__file__).parent
    for path in sorted(root.glob("*.py")) + sorted(root.glob("encodings/*.py"))[:20]:
        text = path.read_text(encoding="utf-8", errors="replace").split("\n")
        for begin in range(0, len(text), 4):
            yield "\n".join(text[begin:begin + 4])


def every_character():
    points = [c for c in range(0x323B0) if not 0xD800 <= c < 0xE000] + list(range(0xE0000, 0xE0200))
    for begin in range(0, len(points), 24):
        chars = [chr(c) for c in points[begin:begin + 24]]
        yield "".join(chars)
        yield " a".join(chars) + "1" + " 'd".join(chars) + "\n"


def random_text(rng, blocks):
    kind = rng.randrange(10)
    if kind == 0:
        block = rng.choice(blocks)
        return "".join(chr(block + rng.randrange(128)) if rng.random() < 0.85 else " "
                       for _ in range(rng.randrange(1, 40)))
    if kind == 1:
        return "".join(rng.choice(EMOJI) if rng.random() < 0.6 else rng.choice(WORDS + [" ", "‍"])
                       for _ in range(rng.randrange(1, 8)))
    if kind == 2:
        return "".join(rng.choice([chr(rng.randrange(32)), chr(127 + rng.randrange(34)), "a", " ",
                                   chr(0x2000 + rng.randrange(112))])
                       for _ in range(rng.randrange(1, 24)))
    if kind == 3:
        return "".join(rng.choice(SPACES) * rng.choice([1, 1, 1, 2, 3, 7, 40]) +
                       rng.choice(WORDS + ["", "", "=", "()"]) for _ in range(rng.randrange(1, 10)))
    if kind == 4:
        return "".join(rng.choice(DIGITS) if rng.random() < 0.8 else rng.choice([" ", ",", ".", "x"])
                       for _ in range(rng.randrange(1, 30)))
    if kind == 5:
        token = rng.choice(SPECIAL + ADDED)
        begin, end = (0, len(token)) if rng.random() < 0.7 else (rng.randrange(3), len(token) - 1)
        return "".join(rng.choice([token[begin:end], rng.choice(SPECIAL), rng.choice(ADDED),
                                   rng.choice(SPACES), rng.choice(WORDS), "user\n"])
                       for _ in range(rng.randrange(1, 8)))
    if kind == 6:
        base = rng.choice(["e", "a", "ᄀ", "가", "ṩ", "あ", "क", "ο", "\u0d46", "\U00011131", "ｶ", "ﬁ"])
        marks = [0x300, 0x301, 0x323, 0x302, 0x1161, 0x11A8, 0x3099, 0x309A, 0x93C, 0x345, 0xD3E,
                 0x11127, 0xFF9E, 0x1DFA, 0x10EFD, 0x1E08F]
        return "".join(base + "".join(chr(rng.choice(marks)) for _ in range(rng.randrange(4)))
                       for _ in range(rng.randrange(1, 6)))
    sentence = " ".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 14)))
    return sentence + rng.choice(["", ".", "?!", "...", " ", "\n", "\n\n", ";\r\n"])


ADDED = ["<tool>", "qq", " zz", "Ärger", "[L]", "[R]", "lone"]


def make_lines(count):
    rng = random.Random(20240607)
    blocks = [b for b in range(0, 0x32380, 128)
              if any(unicodedata.category(chr(b + i)) not in ("Cn", "Cs", "Co") for i in (0, 40, 90))
              and not 0xD800 <= b < 0xF900]
    lines = [text.encode() for text in every_character()]
    lines += [text.encode() for text in code_lines()][:30000]
    while len(lines) < count:
        line = random_text(rng, blocks).encode()
        if rng.random() < 0.1:  # not UTF-8 any more
            line = bytearray(line)
            for _ in range(rng.randrange(1, 4)):
                line.insert(rng.randrange(len(line) + 1), rng.randrange(0x80, 0x100))
                if len(line) > 2 and rng.random() < 0.5:
                    del line[rng.randrange(len(line))]
            line = bytes(line)
        lines.append(line)
    lines += [b"", b" ", b"\n", b" " * 5000, b"\n " * 800, b"ab" * 3000, b"a" * 5000, "é".encode() * 3000]
    return lines


def byte_level(use_regex=True, prefix=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)


def added_tokens():
    flags = [{}, {"normalized": False}, {}, {}, {"lstrip": True}, {"rstrip": True}, {"single_word": True}]
    return [AddedToken(text, **flag) for text, flag in zip(ADDED, flags)]


def styles():
    isolated = lambda pattern: pre_tokenizers.Split(Regex(pattern), "isolated")
    yield "gpt2", None, byte_level(), {}
    yield "gpt2_prefix", None, byte_level(prefix=True), {}
    yield "smollm", None, pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level()]), {}
    yield "llama3", None, pre_tokenizers.Sequence([isolated(LLAMA3), byte_level(False)]), {
        "ignore_merges": True}
    yield "qwen2", normalizers.NFC(), pre_tokenizers.Sequence([isolated(QWEN2), byte_level(False)]), {}


def train(name, normalizer, pre_tokenizer, options, corpus, size=3000):
    tokenizer = Tokenizer(models.BPE(**options))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens(added_tokens())
    if name == "llama3":
        bos = "<|begin_of_text|>"
        tokenizer.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=bos + " $A </s>", pair=bos + " $A $B", special_tokens=[
                (bos, tokenizer.token_to_id(bos)), ("</s>", tokenizer.token_to_id("</s>"))])])
    return tokenizer


def train_sentencepiece(corpus, metaspace, size=3000, alphabet=400):
    """The shape of Llama-2's and TinyLlama's tokenizer.json: characters with byte fallback."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, limit_alphabet=alphabet,
                                  special_tokens=["<unk>", "<s>", "</s>"] +
                                  ["<0x%02X>" % b for b in range(256 - 64 * metaspace)])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.train_from_iterator(corpus, trainer)
    # The trainer made the byte tokens special; of the model's tokens none is.
    fresh = Tokenizer(tokenizer.model)
    fresh.model.byte_fallback = True
    fresh.add_special_tokens([AddedToken(t, normalized=False, special=True)
                              for t in ("<unk>", "<s>", "</s>")])
    if metaspace:
        fresh.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        fresh.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                           decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    else:
        fresh.normalizer = normalizers.Sequence([normalizers.Prepend("▁"),
                                                 normalizers.Replace(" ", "▁")])
        fresh.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    fresh.add_tokens([AddedToken("<tool>"), AddedToken("lone", single_word=True)])
    return fresh


def from_gguf(path):
    from gguf import GGUFReader
    fields = GGUFReader(path).fields
    value = lambda key: fields["tokenizer.ggml." + key].contents()
    tokens, types, pre = value("tokens"), value("token_type"), value("pre")
    isolated = lambda pattern: pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated", False), byte_level(False)])
    pads = {i for i, t in enumerate(tokens) if t == "[PAD%d]" % i}
    model = models.BPE({t: i for i, t in enumerate(tokens) if i not in pads},
                       [tuple(m.split(" ")) for m in value("merges")],
                       ignore_merges=pre == "llama-bpe")
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.ByteLevel()
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = {
        "gpt-2": byte_level(),
        "llama-bpe": isolated(LLAMA3),
        "qwen2": isolated(QWEN2),
    }.get(pre, pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level()]))
    for i, token in enumerate(tokens):
        if types[i] in (3, 4) and i not in pads:
            added = AddedToken(token, normalized=False, special=types[i] == 3)
            (tokenizer.add_special_tokens if types[i] == 3 else tokenizer.add_tokens)([added])
    if pre == "llama-bpe":
        bos = tokens[value("bos_token_id")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=bos + " $A", pair=bos + " $A $B", special_tokens=[(bos, value("bos_token_id"))])
    return tokenizer


def pack(values):
    return struct.pack("<I%dI" % len(values), len(values), *values)


def pack_bytes(text):
    return struct.pack("<I", len(text)) + text


def write_case(out, name, tokenizer, texts):
    encoded = [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    with_special = tokenizer.encode_batch_fast(texts[:300], add_special_tokens=True)
    decoded = tokenizer.decode_batch(encoded, skip_special_tokens=True)
    (out / (name + ".ids")).write_bytes(b"".join(map(pack, encoded)))
    (out / (name + ".bos_ids")).write_bytes(b"".join(pack(e.ids) for e in with_special))
    (out / (name + ".texts")).write_bytes(b"".join(pack_bytes(t.encode()) for t in decoded))
    tokenizer.save(str(out / (name + ".json")))


def main():
    out = pathlib.Path(sys.argv[1])
    lines = make_lines(int(sys.argv[2]))
    (out / "lines").write_bytes(b"".join(map(pack_bytes, lines)))
    texts = [line.decode("utf-8", "replace") for line in lines]
    corpus = texts[::9]
    for name, normalizer, pre_tokenizer, options in styles():
        write_case(out, name, train(name, normalizer, pre_tokenizer, options, corpus),
                   texts[::4] if name == "gpt2_prefix" else texts)
    for name, metaspace in (("sentencepiece", False), ("metaspace", True)):
        write_case(out, name, train_sentencepiece(corpus, metaspace), texts[::4])
    for path in sys.argv[3:]:
        write_case(out, pathlib.Path(path).name, from_gguf(path), texts)


if __name__ == "__main__":
    main()
