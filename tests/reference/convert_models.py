"""Writes one tiny model in a foreign format, and what its checkpoint must hold.

usage: convert_models.py CASE FOLDER

FOLDER/model is the Hugging Face folder or FOLDER/model.gguf the GGUF file. FOLDER/expected.json
lists the tensors of the checkpoint (name, dtype, shape, offset and size in FOLDER/expected.bin).
Needs numpy, ml_dtypes, safetensors, gguf. The interleaving of q and k rows in GGUF files is
LlamaModel.permute of llama.cpp's conversion/llama.py, written anew.
"""

import json
import os
import sys

import gguf
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 96, 160, 2, 4, 2, 32, 300
DTYPES = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

# (name in the checkpoint, in Hugging Face, in GGUF, shape)
PARTS = [
    ("attn/norm", "input_layernorm.weight", "attn_norm.weight", (HIDDEN,)),
    ("attn/q", "self_attn.q_proj.weight", "attn_q.weight", (HEADS * HEAD_DIM, HIDDEN)),
    ("attn/q_bias", "self_attn.q_proj.bias", "attn_q.bias", (HEADS * HEAD_DIM,)),
    ("attn/k", "self_attn.k_proj.weight", "attn_k.weight", (KV_HEADS * HEAD_DIM, HIDDEN)),
    ("attn/k_bias", "self_attn.k_proj.bias", "attn_k.bias", (KV_HEADS * HEAD_DIM,)),
    ("attn/v", "self_attn.v_proj.weight", "attn_v.weight", (KV_HEADS * HEAD_DIM, HIDDEN)),
    ("attn/v_bias", "self_attn.v_proj.bias", "attn_v.bias", (KV_HEADS * HEAD_DIM,)),
    ("attn/o", "self_attn.o_proj.weight", "attn_output.weight", (HIDDEN, HEADS * HEAD_DIM)),
    ("attn/o_bias", "self_attn.o_proj.bias", "attn_output.bias", (HIDDEN,)),
    ("mlp/norm", "post_attention_layernorm.weight", "ffn_norm.weight", (HIDDEN,)),
    ("mlp/gate", "mlp.gate_proj.weight", "ffn_gate.weight", (INNER, HIDDEN)),
    ("mlp/gate_bias", "mlp.gate_proj.bias", "ffn_gate.bias", (INNER,)),
    ("mlp/up", "mlp.up_proj.weight", "ffn_up.weight", (INNER, HIDDEN)),
    ("mlp/up_bias", "mlp.up_proj.bias", "ffn_up.bias", (INNER,)),
    ("mlp/down", "mlp.down_proj.weight", "ffn_down.weight", (HIDDEN, INNER)),
    ("mlp/down_bias", "mlp.down_proj.bias", "ffn_down.bias", (HIDDEN,)),
]


def tensors(biases, tied):
    """All tensors in the checkpoint's order: name, Hugging Face name, GGUF name, f32 values."""
    random = np.random.default_rng(7)

    def values(shape):
        return random.standard_normal(shape).astype(np.float32)

    embedding = values((VOCAB, HIDDEN))
    result = [("/embed/weight", "model.embed_tokens.weight", "token_embd.weight", embedding)]
    for layer in range(LAYERS):
        for name, hf, foreign, shape in PARTS:
            if biases or not name.endswith("_bias"):
                result.append((f"/layers/{layer:04}/{name}", f"model.layers.{layer}.{hf}",
                               f"blk.{layer}.{foreign}", values(shape)))
    result.append(("/final/norm", "model.norm.weight", "output_norm.weight", values((HIDDEN,))))
    head = embedding if tied else values((VOCAB, HIDDEN))
    result.append(("/head/weight", "lm_head.weight", "output.weight", head))
    return result


def write_expected(folder, stored, dtype):
    """`stored`: name and the values as the source holds them; matrices become `dtype`."""
    listing, offset = [], 0
    with open(os.path.join(folder, "expected.bin"), "wb") as out:
        for name, value in stored:
            kind = dtype if value.ndim == 2 else "f32"
            data = value.astype(DTYPES[kind]).tobytes()
            out.write(data)
            listing.append({"name": name, "dtype": kind, "shape": list(value.shape),
                            "offset": offset, "size": len(data)})
            offset += len(data)
    with open(os.path.join(folder, "expected.json"), "w") as out:
        json.dump({"dtype": dtype, "tensors": listing}, out)


def byte_tokenizer():
    """tokenizer.json of the 256 bytes in GPT-2's alphabet, for the folders."""
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": None, "post_processor": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                          "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                    "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False,
                  "vocab": {token: i for i, token in enumerate(alphabet())}, "merges": []},
    }


def alphabet():
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, moved = [], 0
    for byte in range(256):
        if byte in visible:
            table.append(chr(byte))
        else:
            table.append(chr(256 + moved))
            moved += 1
    return table


def write_hf(folder, source="bf16", target=None, sharded=False, biases=False, tied=False,
             ship_head=False):
    model = os.path.join(folder, "model")
    os.makedirs(model)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "vocab_size": VOCAB,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "attention_bias": biases, "mlp_bias": biases, "tie_word_embeddings": tied,
        "eos_token_id": 5, "bos_token_id": None,
    }
    files = {
        "config.json": json.dumps(config),
        "generation_config.json": json.dumps({"eos_token_id": [5, 9], "temperature": 0.25}),
        "tokenizer.json": json.dumps(byte_tokenizer()),
        "tokenizer_config.json": json.dumps({"chat_template": [
            {"name": "tool_use", "template": "wrong"}, {"name": "default", "template": "right"}]}),
    }
    for name, text in files.items():
        with open(os.path.join(model, name), "w") as out:
            out.write(text)
    everything = tensors(biases, tied)
    stored = {}
    for name, hf, _, value in everything:
        if name != "/head/weight" or not tied or ship_head:
            stored[hf] = value.astype(DTYPES[source])
    stored["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(16, np.float32)
    if sharded:
        names = sorted(stored)
        shards = [dict((n, stored[n]) for n in names[i::3]) for i in range(3)]
        index = {"metadata": {}, "weight_map": {}}
        for i, shard in enumerate(shards):
            file = f"model-{i + 1:05}-of-00003.safetensors"
            save_file(shard, os.path.join(model, file), metadata={"format": "pt"})
            index["weight_map"].update({n: file for n in shard})
        with open(os.path.join(model, "model.safetensors.index.json"), "w") as out:
            json.dump(index, out)
    else:
        save_file(stored, os.path.join(model, "model.safetensors"), metadata={"format": "pt"})
    write_expected(folder, [(n, v.astype(DTYPES[source]).astype(np.float32))
                            for n, _, _, v in everything], target or source)


def permute(value, heads):
    """Rows h, j, i (head, half, pair) in the order h, i, j."""
    rows = value.shape[0] // heads
    order = [h * rows + j * (rows // 2) + i
             for h in range(heads) for i in range(rows // 2) for j in range(2)]
    return value[order]


def llama3_divisors(theta):
    pairs = np.arange(HEAD_DIM // 2, dtype=np.float64)
    lengths = 2 * np.pi * theta ** (2 * pairs / HEAD_DIM)
    low, high = LLAMA3["low_freq_factor"], LLAMA3["high_freq_factor"]
    original, factor = LLAMA3["original_max_position_embeddings"], LLAMA3["factor"]
    smooth = np.clip((original / lengths - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def write_gguf(folder, kind="F16", tied=False, llama3=False, biases=False, divisors=None):
    theta = 500000.0
    writer = gguf.GGUFWriter(os.path.join(folder, "model.gguf"), "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(theta)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    words = alphabet() + ["in", "th"] + [f"<|{i}|>" for i in range(258, VOCAB)]
    writer.add_token_list(words)
    writer.add_token_types([1] * 258 + [3] * (VOCAB - 258))
    writer.add_token_merges(["i n", "t h"])
    writer.add_bos_token_id(258)
    writer.add_eos_token_id(259)
    writer.add_eot_token_id(260)
    writer.add_chat_template("template of the file")

    matrix_type = gguf.GGMLQuantizationType[kind]
    float_kinds = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
    stored = []
    for name, _, foreign, value in tensors(biases, tied):
        heads = {"q": HEADS, "k": KV_HEADS}.get(name.split("/")[-1].removesuffix("_bias"))
        source = permute(value, heads) if heads and "attn" in name else value
        quantity = gguf.GGMLQuantizationType.F32 if value.ndim == 1 else matrix_type
        if name != "/head/weight" or not tied:
            data = gguf.quants.quantize(source, quantity)
            writer.add_tensor(foreign, data, raw_dtype=quantity)
        # Rows are quantized one by one, so that order and quantization commute.
        kept = gguf.quants.dequantize(gguf.quants.quantize(value, quantity), quantity)
        stored.append((name, kept.reshape(value.shape).astype(np.float32)))
    if llama3:
        divisors = llama3_divisors(theta)
    if divisors is not None:
        writer.add_tensor("rope_freqs.weight", np.asarray(divisors, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_expected(folder, stored, float_kinds.get(kind, "bf16"))


CASES = {
    "hf_bf16": lambda folder: write_hf(folder, "bf16"),
    "hf_f16_sharded": lambda folder: write_hf(folder, "f16", sharded=True),
    "hf_f32_biases": lambda folder: write_hf(folder, "f32", biases=True),
    "hf_f32_to_bf16": lambda folder: write_hf(folder, "f32", "bf16"),
    "hf_f32_to_f16": lambda folder: write_hf(folder, "f32", "f16"),
    "hf_tied": lambda folder: write_hf(folder, tied=True),
    "hf_tied_with_head": lambda folder: write_hf(folder, tied=True, ship_head=True),
    "gguf_f32_biases": lambda folder: write_gguf(folder, "F32", biases=True),
    "gguf_f16": lambda folder: write_gguf(folder, "F16"),
    "gguf_bf16_tied": lambda folder: write_gguf(folder, "BF16", tied=True),
    "gguf_q8_0": lambda folder: write_gguf(folder, "Q8_0"),
    "gguf_q4_0": lambda folder: write_gguf(folder, "Q4_0"),
    "gguf_q4_1": lambda folder: write_gguf(folder, "Q4_1"),
    "gguf_llama3": lambda folder: write_gguf(folder, "F16", llama3=True),
    "gguf_odd_divisors": lambda folder: write_gguf(folder, "F16", divisors=[1.0] * 8 + [3.0] * 8),
}

if __name__ == "__main__":
    CASES[sys.argv[1]](sys.argv[2])
