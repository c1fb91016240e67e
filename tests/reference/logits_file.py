"""Reference logits as the C++ tests read them: NAME.json says what lies where in NAME.f32.

NAME.f32 holds little-endian f32. For each prompt and each listed position it has a row of the
logits of the ids 0, stride, 2·stride, … and, where `top` is not 0, those of the `top` largest,
whose ids stand in the JSON. Positions count the prompt's tokens and then the greedily decoded
ones, which stand in `decoded`; `magnitude` is the largest |logit| of the whole row.
"""

import json

import numpy as np
import torch

# Ends of chunks of 7, 32 and 33 tokens, the first token, and both sides of a KV block's border.
POSITIONS = [0, 6, 31, 32, 63, 65]


class LogitsFile:
    def __init__(self, header):
        self.header = {**header, "prompts": []}
        self.rows = []

    def add(self, model, text, ids, decode_steps):
        """Adds the logits of one prompt; `model` is called on the whole text, without a cache."""
        prompt_tokens = len(ids)
        decoded = []
        for _ in range(decode_steps):
            logits = model(torch.tensor([ids + decoded]), use_cache=False).logits[0]
            decoded.append(logits[-1].argmax().item())
        logits = model(torch.tensor([ids + decoded]), use_cache=False).logits[0].numpy()
        wanted = {p for p in POSITIONS if p < prompt_tokens}
        wanted |= set(range(prompt_tokens - 1, prompt_tokens + decode_steps))
        if prompt_tokens <= 8:
            wanted |= set(range(prompt_tokens))
        positions = []
        for position in sorted(wanted):
            row = logits[position].astype("<f4")
            top = np.argsort(-row, kind="stable")[: self.header["top"]]
            positions.append({"position": position, "top": top.tolist(),
                              "magnitude": float(np.abs(row).max())})
            self.rows += [row[:: self.header["stride"]], row[top]]
        self.header["prompts"].append(
            {"text": text, "ids": ids, "decoded": decoded, "positions": positions})

    def write(self, path):
        path.with_suffix(".json").write_text(
            json.dumps(self.header, ensure_ascii=False, separators=(",", ":")) + "\n")
        np.concatenate(self.rows).tofile(path.with_suffix(".f32"))
