"""Writes f32 bit patterns and what numpy (float16) and ml_dtypes (bfloat16) make of them.

Usage: dtype_reference.py FOLDER
"""
import pathlib
import sys

import ml_dtypes
import numpy as np

folder = pathlib.Path(sys.argv[1])
spread = np.arange(0, 2**32, 4093, dtype=np.uint64).astype(np.uint32)  # a prime: all exponents
f32 = spread.view(np.float32)
f32.tofile(folder / "f32")
patterns = np.arange(65536, dtype=np.uint32).astype(np.uint16)
with np.errstate(all="ignore"):
    for name, dtype in (("f16", np.float16), ("bf16", ml_dtypes.bfloat16)):
        f32.astype(dtype).view(np.uint16).tofile(folder / name)
        patterns.view(dtype).astype(np.float32).tofile(folder / f"{name}_patterns")
