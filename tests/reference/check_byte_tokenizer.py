"""Loads a tokenizer.json with the tokenizers library and prints ids, a line for each question.

usage: check_byte_tokenizer.py TOKENIZER.json

Prints the vocabulary's size, the ids of a text, and whether that text and all bytes come back.
Needs tokenizers.
"""

import sys

from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(sys.argv[1])
text = "Grüß <|bos|>\n"
ids = tokenizer.encode(text).ids
print(tokenizer.get_vocab_size())
print(*ids)
print(tokenizer.decode(ids, skip_special_tokens=False) == text)
print(tokenizer.decode([300, 301], skip_special_tokens=True))
