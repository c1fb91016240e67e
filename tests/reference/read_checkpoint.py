"""Reads a checkpoint with h5py alone, as io/README.md describes it, and prints one JSON object.

usage: read_checkpoint.py FILE

For each tensor: shape, dtype, offset and its first values; and the block checksums and the digest,
computed from the bytes.
"""

import json
import struct
import sys

import h5py
import numpy as np
import xxhash


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def dtype_of(dataset):
    kind = dataset.id.get_type()
    if not isinstance(kind, h5py.h5t.TypeFloatID):
        raise ValueError(f"{dataset.name}: not floating point")
    fields = (kind.get_size(), kind.get_precision(), kind.get_fields(), kind.get_ebias())
    known = {
        (4, 32, (31, 23, 8, 0, 23), 127): "f32",
        (2, 16, (15, 10, 5, 0, 10), 15): "f16",
        (2, 16, (15, 7, 8, 0, 7), 127): "bf16",
    }
    if kind.get_order() != h5py.h5t.ORDER_LE or kind.get_norm() != h5py.h5t.NORM_IMPLIED:
        raise ValueError(f"{dataset.name}: not little-endian with implied leading bit")
    return known[fields]


class Digest:
    def __init__(self):
        self.hash = xxhash.xxh3_128()

    def number(self, value):
        self.hash.update(struct.pack("<Q", value & 0xFFFFFFFFFFFFFFFF))

    def text(self, value):
        value = value.encode() if isinstance(value, str) else value
        self.number(len(value))
        self.hash.update(value)


def digest_of(root, fields, config_text, blobs, tensors, checksums):
    digest = Digest()
    digest.text("penstock")
    digest.number(1)
    digest.text(root["architecture"])
    digest.text(root["dtype"])
    digest.number(int(root["no_data"]))
    digest.number(len(fields))
    for name in sorted(fields, key=str.encode):
        digest.text(name)
        value = fields[name]
        if isinstance(value, np.integer):
            digest.text("i")
            digest.number(int(value))
        elif isinstance(value, np.floating):
            digest.text("f")
            digest.hash.update(struct.pack("<d", value))
        else:
            digest.text("s")
            digest.text(text(value))
    digest.text(config_text)
    digest.number(len(blobs))
    for name in sorted(blobs, key=str.encode):
        digest.text(name)
        digest.text(blobs[name])
    digest.number(len(tensors))
    for tensor in tensors:
        digest.text(tensor["name"])
        digest.text(tensor["dtype"])
        digest.number(len(tensor["shape"]))
        for extent in tensor["shape"]:
            digest.number(extent)
    digest.text(checksums)
    return digest.hash.hexdigest()


def read(path):
    with h5py.File(path, "r") as file, open(path, "rb") as raw:
        root = {name: text(value) for name, value in file.attrs.items()}
        fields = dict(file["config"].attrs)
        config_text = b""
        if "source.json" in file["config"]:
            config_text = file["config/source.json"][()].tobytes()
        blobs = {name: item[()].tobytes() for name, item in file["tokenizer"].items()}
        found = {}

        def visit(name, item):
            top = name.split("/")[0]
            if isinstance(item, h5py.Dataset) and top not in ("config", "tokenizer", "checksums"):
                found[int(item.attrs["order"])] = item

        file.visititems(visit)
        tensors = []
        blocks = b""
        for order in range(len(found)):
            item = found[order]
            values = item[()]
            offset = item.id.get_offset()
            tensors.append({
                "name": item.name,
                "dtype": dtype_of(item),
                "shape": list(item.shape),
                "offset": offset,
                # JSON has no infinity.
                "first": [float(value) if np.isfinite(value) else str(value)
                          for value in values.ravel()[:8]],
            })
            if offset is not None:
                raw.seek(offset)
                left = item.id.get_storage_size()
                while left > 0:
                    block = raw.read(min(left, 4 << 20))
                    blocks += xxhash.xxh3_128_digest(block)
                    left -= len(block)
        result = {
            "root": {name: value if isinstance(value, str) else int(value)
                     for name, value in root.items()},
            "config": {name: text(value) if isinstance(value, bytes) else value.item()
                       for name, value in fields.items()},
            "config_text": config_text.decode(),
            "tokenizer": {name: blob.decode("latin-1") for name, blob in blobs.items()},
            "tensors": tensors,
        }
        table = file["checksums"][()].tobytes() if "checksums" in file else b""
        result["checksums_match"] = table == blocks
        result["digest"] = digest_of(root, fields, config_text, blobs, tensors, table)
        return result


if __name__ == "__main__":
    json.dump(read(sys.argv[1]), sys.stdout)
