"""Writes the first inputs of the safetensors and gguf fuzzers, by the formats' own libraries.

Usage: format_corpus.py tests/fuzz/corpus
"""
import json
import pathlib
import sys

import gguf
import ml_dtypes
import numpy as np
import safetensors.numpy
from gguf.quants import quantize

corpus = pathlib.Path(sys.argv[1])
random = np.random.default_rng(3)

folder = corpus / "safetensors"
folder.mkdir(parents=True, exist_ok=True)
tensors = {
    "f32": random.standard_normal((3, 5)).astype(np.float32),
    "f16": random.standard_normal(7).astype(np.float16),
    "bf16": np.zeros((2, 0, 3), ml_dtypes.bfloat16),
    "ids": np.arange(2),
}
# The first byte is the fuzzer's own: 'i' for an index, 'm' for a file of tensors.
(folder / "model").write_bytes(b"m" + safetensors.numpy.save(tensors, {"format": "pt"}))
(folder / "one").write_bytes(b"m" + safetensors.numpy.save({"a": np.array(1, np.float16)}))
(folder / "empty").write_bytes(b"m" + safetensors.numpy.save({}))
for name, index in {
    "index": {"metadata": {"total_size": 4}, "weight_map": {"a": "s"}},
    "index_missing": {"weight_map": {"a": "s", "b": "t"}},
    "index_outside": {"weight_map": {"a": "../s"}},
}.items():
    (folder / name).write_bytes(b"i" + json.dumps(index).encode())

folder = corpus / "gguf"
folder.mkdir(parents=True, exist_ok=True)


def writer(name):
    result = gguf.GGUFWriter(folder / name, "llama")
    return result


def finish(result):
    result.write_header_to_file()
    result.write_kv_data_to_file()
    result.write_tensors_to_file()
    result.close()


vocabulary = writer("vocabulary")
vocabulary.add_token_list(["a", "é", "Ġ😀", ""])
vocabulary.add_token_scores([0.5, -1.0])
vocabulary.add_array("numbers", [-1, 2])
vocabulary.add_array("flags", [True, False])
vocabulary.add_bool("flag", True)
vocabulary.add_uint64("large", 1 << 40)
vocabulary.add_int8("small", -1)
vocabulary.add_float64("real", 0.1)
finish(vocabulary)

model = writer("model")
model.add_custom_alignment(64)
weights = random.standard_normal((2, 32)).astype(np.float32)
model.add_tensor("f32", weights[:, :3].copy())
model.add_tensor("f16", weights[:, :3].astype(np.float16))
Type = gguf.GGMLQuantizationType
for qtype in (Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1):
    model.add_tensor(qtype.name, quantize(weights, qtype), raw_dtype=qtype)
model.add_tensor("q5", quantize(weights, Type.Q5_0), raw_dtype=Type.Q5_0)
finish(model)
