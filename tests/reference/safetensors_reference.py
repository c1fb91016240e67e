"""Files of the safetensors library, for the reader's tests.

Usage: safetensors_reference.py single|sharded FOLDER   writes a model, and for each tensor NAME its
                                                        values (NAME.f32) and extents (NAME.shape)
       safetensors_reference.py refuse FOLDER           fails if the library accepts a file there
"""
import json
import pathlib
import sys

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

action, folder = sys.argv[1], pathlib.Path(sys.argv[2])

def write(path, tensors):
    safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})


if action == "refuse":
    for path in sorted(folder.iterdir()):
        try:
            with safetensors.safe_open(path, framework="numpy") as opened:
                opened.keys()
        except Exception:
            continue
        sys.exit(f"the library accepts {path.name}")
    sys.exit(0)

random = np.random.default_rng(7)
tensors = {}
for dtype in (np.float32, np.float16, ml_dtypes.bfloat16):
    for shape in ((), (1,), (33, 65), (5, 0, 3)):
        if len(tensors) == 11:
            break
        wide = (random.standard_normal(shape) * 10.0 ** random.integers(-7, 5, shape))
        name = f"{np.dtype(dtype).name}.{'x'.join(map(str, shape))}"
        tensors[name] = np.ascontiguousarray(wide, dtype=dtype).reshape(shape)
tensors["ids"] = np.arange(5)
assert len(tensors) == 12

for name, tensor in tensors.items():
    tensor.astype(np.float32).tofile(folder / f"{name}.f32")
    np.array(tensor.shape, dtype=np.uint64).tofile(folder / f"{name}.shape")

if action == "single":
    write(folder / "model.safetensors", tensors)
else:
    weight_map = {name: f"model-{1 + i % 3:05}-of-00003.safetensors"
                  for i, name in enumerate(tensors)}
    for shard in set(weight_map.values()):
        write(folder / shard, {n: t for n, t in tensors.items() if weight_map[n] == shard})
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())},
             "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
