"""Writes data/sampler.json: what transformers' logits processors leave of given logits.

Usage: make_sampler_reference.py [FOLDER]   (default: data/ beside this script)
Needs: torch, transformers 5.

The logits are not stored. Both sides compute them from a seed (logits() below); they are exact in
f32. Everything is computed in f64. A case in which f32 leaves another set, or in which a tie
straddles the cut, stops the script: it would test rounding and not the filters.
"""
import json
import pathlib
import sys

import torch
import transformers
from transformers.generation import logits_process as lp

CASES = [
    # seed, vocab, scale, filters
    (1, 40, 8.0, {}),
    (2, 40, 8.0, {"temperature": 0.25}),
    (3, 40, 8.0, {"temperature": 3.0}),
    (4, 300, 8.0, {"top_k": 1}),
    (5, 300, 8.0, {"top_k": 40}),
    (6, 60, 8.0, {"top_k": 1000}),
    (7, 300, 8.0, {"top_p": 0.9}),
    (8, 300, 8.0, {"top_p": 0.1}),
    (9, 300, 0.5, {"top_p": 0.02}),
    (10, 300, 8.0, {"min_p": 0.05}),
    (11, 300, 2.0, {"min_p": 0.9}),
    (12, 500, 8.0, {"temperature": 0.7, "top_k": 50, "top_p": 0.9}),
    (13, 500, 8.0, {"temperature": 1.5, "top_k": 50, "top_p": 0.8}),
    (14, 500, 4.0, {"temperature": 1.5, "top_k": 50, "min_p": 0.5}),
    (22, 500, 4.0, {"temperature": 1.5, "top_k": 100, "min_p": 0.5}),
    (15, 500, 8.0, {"temperature": 0.8, "top_p": 0.95, "min_p": 0.1}),
    (16, 500, 4.0, {"temperature": 2.0, "top_k": 80, "top_p": 0.7, "min_p": 0.5}),
    (17, 500, 4.0, {"temperature": 2.0, "top_k": 80, "top_p": 0.9, "min_p": 0.02}),
    (18, 4000, 8.0, {"top_p": 0.3}),
    (19, 32000, 1024.0, {"temperature": 0.6, "top_p": 0.9}),
    (20, 128256, 16.0, {"temperature": 0.6, "top_k": 100, "top_p": 0.9, "min_p": 0.2}),
    (21, 60, 8.0, {"temperature": 0.01}),
]

PENALTIES = [  # seed, vocab, repetition penalty, tokens so far
    (31, 50, 1.3, [3, 7, 7, 49, 0, 12]),
    (32, 50, 0.8, [5, 6, 5, 5]),
    (33, 50, 2.0, list(range(50))),
]


def hashed(seed, i):
    """32-bit finalizer of MurmurHash3 over seed and index."""
    x = (seed * 0x9E3779B9 + i * 0x85EBCA6B + 1) & 0xFFFFFFFF
    x ^= x >> 16
    x = x * 0x85EBCA6B & 0xFFFFFFFF
    x ^= x >> 13
    x = x * 0xC2B2AE35 & 0xFFFFFFFF
    return x ^ x >> 16


def logits(seed, vocab, scale):
    """Multiples of scale / 2^23 in [-scale, scale)."""
    return [((hashed(seed, i) >> 8) - 2**23) * (scale / 2**23) for i in range(vocab)]


def warpers(filters):
    """In transformers' own order."""
    result = [lp.TemperatureLogitsWarper(filters.get("temperature", 1.0))]
    if "top_k" in filters:
        result.append(lp.TopKLogitsWarper(filters["top_k"]))
    if "top_p" in filters:
        result.append(lp.TopPLogitsWarper(filters["top_p"]))
    if "min_p" in filters:
        result.append(lp.MinPLogitsWarper(filters["min_p"]))
    return result


def survivors(values, filters, dtype):
    scores = torch.tensor([values], dtype=dtype)
    for warper in warpers(filters):
        scores = warper(torch.zeros((1, 0), dtype=torch.long), scores)
    probabilities = scores.softmax(-1)[0]
    ids = torch.nonzero(scores[0] > -torch.inf).flatten().tolist()
    return ids, [probabilities[i].item() for i in ids]


def warp_case(seed, vocab, scale, filters):
    values = logits(seed, vocab, scale)
    ids, probabilities = survivors(values, filters, torch.float64)
    assert ids == survivors(values, filters, torch.float32)[0], (seed, "f32 leaves another set")
    falling = sorted(values, reverse=True)
    assert len(ids) == vocab or falling[len(ids) - 1] > falling[len(ids)], (seed, "tie at the cut")
    assert len(ids) <= 310, (seed, len(ids))
    # Falling probability (lowest id on a tie) when there is a filter, else in order.
    order = range(len(ids))
    if set(filters) - {"temperature"}:
        order = sorted(order, key=lambda k: -values[ids[k]])
    return {
        "seed": seed, "vocab": vocab, "scale": scale, **filters,
        "ids": [ids[k] for k in order],
        "probabilities": [float(f"{probabilities[k]:.7g}") for k in order],
    }


def penalty_case(seed, vocab, penalty, tokens):
    values = logits(seed, vocab, 8.0)
    processor = lp.RepetitionPenaltyLogitsProcessor(penalty)
    scores = processor(torch.tensor([tokens]), torch.tensor([values], dtype=torch.float64))
    return {
        "seed": seed, "vocab": vocab, "scale": 8.0, "repetition_penalty": penalty, "tokens": tokens,
        "logits": [float(f"{x:.8g}") for x in scores[0].tolist()],
    }


def main():
    here = pathlib.Path(__file__).parent / "data"
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here
    result = {
        "made_by": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "warped": [warp_case(*case) for case in CASES],
        "penalized": [penalty_case(*case) for case in PENALTIES],
    }
    text = json.dumps(result, separators=(",", ":")).replace('{"seed"', '\n{"seed"')
    (folder / "sampler.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
