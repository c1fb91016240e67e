#!/usr/bin/env python3
"""Reference logits of tiny Llama models, by transformers in f32 on the CPU.

    make_tiny_llama.py [data/tiny_llama]

Writes NAME.json + NAME.f32 for each model (see logits_file.py); `config` in the JSON is the model's
config.json. Weights are not stored: element i of a tensor follows from the tensor's name by integer
arithmetic (see `numbers`), which tests/model/convert/tiny_llama_test.cpp repeats. Needs torch and
transformers.
"""

import pathlib
import sys

import numpy as np
import torch
import transformers

from logits_file import LogitsFile

BASE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 48,
    "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 4, "vocab_size": 96, "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "attention_bias": False, "mlp_bias": False, "hidden_act": "silu", "bos_token_id": 1,
    "eos_token_id": 2,
}

MODELS = {
    "mha_untied": {},
    "gqa_wide_heads": {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16},
    "mqa_tied": {"num_key_value_heads": 1, "tie_word_embeddings": True},
    "biases": {"num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
    # As before version 5 of transformers.
    "rope_linear": {"num_key_value_heads": 2, "rope_scaling": {"type": "linear", "factor": 4.0}},
    # As from version 5 on. Wavelengths fall on both sides of 32 and of 32 / 4, and between them.
    "rope_llama3": {
        "num_key_value_heads": 2, "head_dim": 32, "rope_theta": 500.0,
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32}},
}

MASK = (1 << 64) - 1


def name_hash(name):
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 & MASK
    return value


def numbers(name, count):
    """SplitMix64's outputs from the name's hash on; the 24 highest bits as f32 in [-1, 1)."""
    index = np.arange(1, count + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(name_hash(name)) + index * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.int64) - (1 << 23)).astype(np.float32) / np.float32(1 << 23)


def weight(name, shape):
    values = numbers(name, int(np.prod(shape)))
    if "norm" in name:
        values = np.float32(1) + values * np.float32(0.25)
    elif "embed_tokens" not in name:
        values = values * np.float32(0.25)
    return torch.from_numpy(values.reshape(shape))


def prompt(length, factor):
    return [(i * factor + i * i * 7 + 3) % 96 for i in range(length)]


def main():
    folder = pathlib.Path(__file__).parent / "data" / "tiny_llama"
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, changes in MODELS.items():
        config = {**BASE, **changes}
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**config, attn_implementation="eager")).float().eval()
        with torch.no_grad():
            for key, tensor in model.named_parameters():  # a tied head is not among them
                tensor.copy_(weight(key, tuple(tensor.shape)))
            out = LogitsFile({"config": config, "stride": 1, "top": 0})
            out.add(model, "", prompt(70, 5), 4)
            out.add(model, "", prompt(5, 11), 3)
        out.write(folder / name)


if __name__ == "__main__":
    main()
