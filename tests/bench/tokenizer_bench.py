"""Runs tokenizer_bench and the tokenizers library on the same lines, one thread each, in seconds of
the processor.

usage: tokenizer_bench.py TOKENIZER_BENCH TOKENIZER_JSON FILE...
"""
import os
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer  # noqa: E402  (the variable is read at import)

program, model, files = sys.argv[1], sys.argv[2], sys.argv[3:]
lines = []
for path in files:
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        lines += [line + "\n" for line in file.read().split("\n")]
size = sum(len(line.encode()) for line in lines)
tokenizer = Tokenizer.from_file(model)
for _ in range(3):
    start = time.process_time()
    count = sum(len(encoding) for encoding in tokenizer.encode_batch_fast(lines, add_special_tokens=False))
    seconds = time.process_time() - start
    print("tokenizers: %.1f MB/s  (%d tokens, %.3f s)" % (size / seconds / 1e6, count, seconds))
subprocess.run([program, model, *files], check=True)
