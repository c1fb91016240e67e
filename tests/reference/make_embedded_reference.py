#!/usr/bin/env python3
"""Reference logits and greedy answers of the embedded model, by transformers in f32 on the CPU.

    make_embedded_reference.py MODEL [data]

MODEL is jobs/embedded/austen-1m.h5, read by h5py, or the Hugging Face folder that
train_embedded_model.py wrote: both give the same data. Needs torch, transformers, tokenizers, h5py.

Writes embedded_logits.json + .f32 (see logits_file.py) and embedded_greedy.json: for each prompt
its ids, the ids that greedy decoding adds up to and with a stop token, and the gaps between the two
largest logits.
"""

import argparse
import json
import pathlib

import h5py
import numpy as np
import tokenizers
import torch
import transformers

from logits_file import LogitsFile

NEW_TOKENS = 64
STOP = (1, 3)
MODEL_GROUPS = ("embed/", "layers/", "final/", "head/")

LOGITS = [
    "It was a truth",
    "<|im_start|>user\nMy dear, how do you do?<|im_end|>\n<|im_start|>assistant\n",
    "Elinor could not be surprised at their attachment. She only wished that it were less openly "
    "shewn; and once or twice did venture to suggest the propriety of some self-command to "
    "Marianne. But Marianne abhorred all concealment where no real disgrace could attend "
    "unreserve; and to aim at the restraint of sentiments",
]
PLAIN = [
    "It is a truth universally acknowledged,",
    "Mr. Darcy",
    "She had been",
    "The evening was",
    "\"My dear Emma,\" said he,",
    "In the course of a few days,",
    "Captain Wentworth was",
    "There was no",
    "He could not",
    "Her mother",
    "They walked",
    "London",
    "1811",
    "Elizabeth was surprised,",
    "The family of Dashwood had been long settled in",
    "I",
    "",
    "naïve café — 人",
    "Oh! no,",
    "Mrs. Bennet",
]
CHATS = [
    ["How do you like Bath?"],
    ["Is he married or single?"],
    ["What do you mean?"],
    ["Have you seen Mr. Bingley?"],
    ["I shall never forgive him."],
    ["Do you dance?", "I do, sir, when I am asked.", "Then will you dance with me?"],
    ["It rains."],
    ["Where is Miss Crawford?"],
    ["Good morning!"],
    ["You are very kind."],
]


def read_checkpoint(path):
    """The model of an HDF5 checkpoint, from the config text and the tensors' own names."""
    layer_names = {
        "attn/norm": "input_layernorm", "attn/q": "self_attn.q_proj", "attn/k": "self_attn.k_proj",
        "attn/v": "self_attn.v_proj", "attn/o": "self_attn.o_proj",
        "mlp/norm": "post_attention_layernorm", "mlp/gate": "mlp.gate_proj",
        "mlp/up": "mlp.up_proj", "mlp/down": "mlp.down_proj",
    }
    fixed = {"embed/weight": "model.embed_tokens.weight", "final/norm": "model.norm.weight",
             "head/weight": "lm_head.weight"}
    state = {}

    def add(name, dataset):
        if not isinstance(dataset, h5py.Dataset) or not name.startswith(MODEL_GROUPS):
            return
        array = np.empty(dataset.shape, np.float32)
        dataset.read_direct(array)
        if name.startswith("layers/"):
            _, layer, tensor = name.split("/", 2)
            name = f"model.layers.{int(layer)}.{layer_names[tensor]}.weight"
        else:
            name = fixed[name]
        state[name] = torch.from_numpy(array)

    with h5py.File(path) as file:
        config = bytes(file["config/source.json"][()])
        file.visititems(add)
        tokenizer = bytes(file["tokenizer/tokenizer.json"][()])
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**json.loads(config)))
    model.load_state_dict(state, strict=True)
    return model, tokenizers.Tokenizer.from_str(tokenizer.decode())


def read_model(path):
    if path.is_dir():
        model = transformers.LlamaForCausalLM.from_pretrained(path, dtype=torch.float32)
        return model, tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    return read_checkpoint(path)


def chat(turns):
    text = "".join(f"<|im_start|>{'assistant' if i % 2 else 'user'}\n{turn}<|im_end|>\n"
                   for i, turn in enumerate(turns))
    return text + "<|im_start|>assistant\n"


def greedy(model, ids):
    answer, gaps = [], []
    while len(answer) < NEW_TOKENS and (not answer or answer[-1] not in STOP):
        logits = model(torch.tensor([ids + answer]), use_cache=False).logits[0, -1]
        top = logits.topk(2)
        answer.append(top.indices[0].item())
        gaps.append(float(f"{top.values[0] - top.values[1]:.3g}"))
    return answer, gaps


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("data", nargs="?", type=pathlib.Path,
                        default=pathlib.Path(__file__).parent / "data")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    model, tokenizer = read_model(options.model)
    model = model.float().eval()

    def encode(text):
        return tokenizer.encode(text, add_special_tokens=not text.startswith("<|im_start|>")).ids

    logits = LogitsFile({"stride": 1, "top": 0})
    for prompt in LOGITS:
        logits.add(model, prompt, encode(prompt), decode_steps=4)
    logits.write(options.data / "embedded_logits")

    rows = []
    for prompt in PLAIN + [chat(turns) for turns in CHATS]:
        ids = encode(prompt)
        answer, gaps = greedy(model, ids)
        rows.append({"prompt": prompt, "ids": ids, "answer": answer, "gaps": gaps,
                     "text": tokenizer.decode(answer)})
        print(repr(prompt), "->", repr(rows[-1]["text"]))
    text = ",\n".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) for r in rows)
    (options.data / "embedded_greedy.json").write_text(f'{{"prompts":[\n{text}\n]}}\n')
    stopped = sum(row["answer"][-1] in STOP for row in rows)
    close = sum(gap < 1e-3 for row in rows for gap in row["gaps"])
    print(f"{stopped} of {len(rows)} stop by themselves, {close} gaps are below 1e-3")


if __name__ == "__main__":
    main()
