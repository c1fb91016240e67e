"""Files of the gguf library, for the reader's tests.

Usage: gguf_reference.py write FOLDER    writes model.gguf and, for each tensor NAME, what the
                                         library dequantizes it to (NAME.f32) and its extents,
                                         slowest first (NAME.shape)
"""
import pathlib
import sys

import gguf
import numpy as np
from gguf.quants import dequantize, quantize

action, folder = sys.argv[1], pathlib.Path(sys.argv[2])
assert action == "write"

random = np.random.default_rng(11)
Type = gguf.GGMLQuantizationType
writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
writer.add_block_count(3)
writer.add_rope_freq_base(10000.0)
writer.add_token_list(["a", "é", "Ġ😀", ""])
writer.add_uint64("a.large", 1 << 40)
writer.add_array("a.numbers", [-1, 2, 3])
writer.add_array("a.reals", [0.5, -1.5])
writer.add_bool("a.flag", True)


def add(name, data, qtype, shape):
    if qtype in (Type.F32, Type.F16):
        writer.add_tensor(name, data)
    else:
        writer.add_tensor(name, data, raw_dtype=qtype)
    with np.errstate(over="ignore"):
        values = dequantize(data, qtype)
    assert values.dtype == np.float32 and values.size == np.prod(shape)
    values.tofile(folder / f"{name}.f32")
    np.array(shape, dtype=np.uint64).tofile(folder / f"{name}.shape")


def any_blocks(qtype, halves, shape):
    """Blocks of random bytes; each begins with `halves` random finite f16 numbers."""
    _, size = gguf.GGML_QUANT_SIZES[qtype]
    blocks = random.integers(0, 256, (np.prod(shape) // 32, size), dtype=np.uint8)
    scales = blocks[:, : 2 * halves].copy().view(np.uint16)
    scales[(scales & 0x7C00) == 0x7C00] &= 0xBFFF  # neither infinity nor NaN
    blocks[:, : 2 * halves] = scales.view(np.uint8)
    return blocks.reshape(shape[0], -1)


shape = (7, 96)
weights = (random.standard_normal(shape) * 0.02).astype(np.float32)
add("f32", weights, Type.F32, shape)
add("f16", weights.astype(np.float16), Type.F16, shape)
add("bf16", quantize(weights, Type.BF16), Type.BF16, shape)
add("q8_0", quantize(weights, Type.Q8_0), Type.Q8_0, shape)
add("q4_0", quantize(weights, Type.Q4_0), Type.Q4_0, shape)
many = (1024, 96)
add("any_q8_0", any_blocks(Type.Q8_0, 1, many), Type.Q8_0, many)
add("any_q4_0", any_blocks(Type.Q4_0, 1, many), Type.Q4_0, many)
add("any_q4_1", any_blocks(Type.Q4_1, 2, many), Type.Q4_1, many)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
