#!/usr/bin/env python3
"""Trains the embedded model: jobs/embedded/austen-1m.h5 is a Llama of 1.2 M parameters.

Text: Jane Austen's six novels, in the public domain, as Debian's package r-cran-janeaustenr 1.0.0-1
ships them (package licence: MIT). Get it without installing anything:

    apt-get download r-cran-janeaustenr
    dpkg-deb -x r-cran-janeaustenr_*.deb x

Needs torch, transformers and tokenizers. Runs on one CPU thread in about a quarter of an hour:

    train_embedded_model.py x/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb FOLDER

FOLDER becomes a Hugging Face folder (bf16 safetensors), which `penstock convert` turns into the
checkpoint in the tree. Same versions of torch and of the CPU's instruction set, same weights: all
random choices are seeded, one thread computes.

The model learns two kinds of documents, so that plain prompts and conversations both work:
passages of the novels between <|begin_of_text|> and <|end_of_text|>, and spoken dialogue in the
form of plain ChatML, one speaker as the user and the other as the assistant.
"""

import argparse
import json
import math
import pathlib
import random
import re
import struct
import sys
import time
import zlib

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

SEED = 1775
VOCAB_SIZE = 1024
CONTEXT = 512
BEGIN, END = "<|begin_of_text|>", "<|end_of_text|>"
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
SPECIAL = [BEGIN, END, IM_START, IM_END]
# The pre-tokenizer of Llama 3.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def read_novels(path):
    """Yields each novel's lines from an R lazy-load database of character vectors.

    An entry is a big-endian uncompressed size and a zlib stream with R's XDR serialization:
    https://cran.r-project.org/doc/manuals/r-release/R-ints.html#Serialization-Formats
    """
    data = pathlib.Path(path).read_bytes()
    while data:
        (size,) = struct.unpack(">I", data[:4])
        inflate = zlib.decompressobj()
        entry = inflate.decompress(data[4:])
        data = inflate.unused_data
        if len(entry) != size or entry[:2] != b"X\n":
            raise SystemExit(f"{path}: not a lazy-load database of R")
        (version,) = struct.unpack(">I", entry[2:6])
        at = 14
        if version == 3:  # the name of the native encoding
            at += 4 + struct.unpack(">I", entry[at : at + 4])[0]
        flags, count = struct.unpack(">II", entry[at : at + 8])
        if flags & 0xFF != 16:
            raise SystemExit(f"{path}: an entry is not a character vector")
        at += 8
        lines = []
        for _ in range(count):
            _, length = struct.unpack(">Ii", entry[at : at + 8])
            at += 8
            lines.append(entry[at : at + length].decode())
            at += length
        yield lines


def chapters(lines):
    """A novel as chapters of unwrapped paragraphs."""
    paragraphs, out = [], []
    for block in "\n".join(lines).split("\n\n"):
        text = " ".join(block.split()).replace("_", "")
        if not text:
            continue
        if re.match(r"(chapter|volume) ", text, re.IGNORECASE) and len(text) < 30:
            if paragraphs:
                out.append(paragraphs)
            paragraphs = []
        elif text != text.upper():  # drops titles and THE END
            paragraphs.append(text)
    out.append(paragraphs)
    return out[1:] if len(out) > 1 else out  # what stands before the first chapter


def speech(paragraph):
    """What is said in a paragraph that opens with a quotation mark, or None."""
    if not paragraph.startswith('"') or paragraph.count('"') % 2:
        return None
    text = ""
    for part in re.findall(r'"([^"]+)"', paragraph):
        part = part.strip()
        if text.endswith(",") and part[:1].isupper() and not re.match(r"I\b", part):
            text = text[:-1] + "."
        text += (" " if text else "") + part
    return re.sub(r",$", ".", text) or None


def passages(paragraphs, rng):
    """Cuts a chapter into passages of one or more whole paragraphs or sentences."""
    pieces = []
    for paragraph in paragraphs:
        if len(paragraph) < 1000:
            pieces.append((paragraph, "\n\n"))
        else:
            sentences = re.split(r"(?<=[.!?]) (?=[A-Z])", paragraph)
            pieces += [(s, " ") for s in sentences[:-1]] + [(sentences[-1], "\n\n")]
    text, wanted, out = "", rng.randint(80, 1000), []
    for piece, after in pieces:
        text += piece
        if len(text) >= wanted:
            out.append(text)
            text, wanted = "", rng.randint(80, 1000)
        else:
            text += after
    return out + ([text.strip()] if text.strip() else [])


def conversations(paragraphs, rng):
    """Runs of spoken paragraphs as lists of turns, the first the user's."""
    out, run = [], []
    for paragraph in paragraphs + [""]:
        said = speech(paragraph)
        if said and len(said) <= 400:
            run.append(said)
            continue
        while len(run) >= 2:
            turns = min(len(run), rng.choice([2, 2, 4, 6]))
            turns -= turns % 2
            out.append(run[:turns])
            run = run[turns:]
        run = []
    return out


def train_tokenizer(texts):
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE,
            special_tokens=SPECIAL,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    begin = tokenizer.token_to_id(BEGIN)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN} $B", special_tokens=[(BEGIN, begin)]
    )
    return tokenizer


def rows_of(documents, length, rng):
    """Packs shuffled documents into rows of length + 1 tokens that each begin a document."""
    rng.shuffle(documents)
    rows, row = [], []
    for ids in documents:
        row += ids
        if len(row) > length:
            rows.append(row[: length + 1])
            row = []
    return rows


def model_config():
    return transformers.LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=288,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=48,  # not hidden_size / heads, on purpose
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=[1, 3],
        pad_token_id=None,
        initializer_range=0.04,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("rdata")
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, default=2800)
    parser.add_argument("--batch", type=int, default=2048, help="tokens in a step")
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--stop-after", type=int, help="steps to try before stopping, for a test")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    rng = random.Random(SEED)

    plain, chats = [], []
    for novel in read_novels(options.rdata):
        for paragraphs in chapters(novel):
            plain += passages(paragraphs, rng)
            chats += conversations(paragraphs, rng)
    tokenizer = train_tokenizer(plain)
    folder = pathlib.Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))

    documents = []
    for text in plain:
        documents.append(tokenizer.encode(text).ids + [tokenizer.token_to_id(END)])
    for turns in chats:
        text = ""
        for i, turn in enumerate(turns):
            text += f"{IM_START}{'assistant' if i % 2 else 'user'}\n{turn}{IM_END}\n"
        documents.append(tokenizer.encode(text, add_special_tokens=False).ids)
    rng.shuffle(documents)
    held_out, documents = documents[:200], documents[200:]
    print(f"{len(plain)} passages, {len(chats)} conversations,"
          f" {sum(map(len, documents))} tokens", flush=True)

    model = transformers.LlamaForCausalLM(model_config())
    print(f"{model.num_parameters()} parameters", flush=True)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=options.lr, betas=(0.9, 0.95),
    )
    loss_of = torch.nn.functional.cross_entropy
    rows, started = [], time.time()
    for step in range(options.steps):
        warm = min(1.0, (step + 1) / 100)
        rate = options.lr * warm * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        # Half the context first, as attention takes most of the time; all of it at the end.
        row_length = CONTEXT // 2 if step < 0.8 * options.steps else CONTEXT
        wanted = options.batch // row_length
        if len(rows) < wanted or len(rows[-1]) != row_length + 1:
            rows = rows_of(documents, row_length, rng)
        batch = torch.tensor([rows.pop() for _ in range(wanted)])
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch[:, :-1], use_cache=False).logits.float()
        loss = loss_of(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.3f} {time.time() - started:.0f} s", flush=True)
        if options.stop_after and step >= options.stop_after:
            sys.exit(0)

    model = model.to(torch.bfloat16).float().eval()  # what the checkpoint will hold
    with torch.no_grad():
        total = count = 0
        for ids in held_out:
            ids = torch.tensor([ids[:CONTEXT]])
            total += loss_of(model(ids[:, :-1]).logits[0], ids[0, 1:], reduction="sum").item()
            count += ids.shape[1] - 1
    print(f"held out: {total / count:.3f} nats for a token")

    model.to(torch.bfloat16).save_pretrained(folder)
    json_files = {
        "generation_config.json": {
            "bos_token_id": 0, "eos_token_id": [1, 3], "do_sample": False,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BEGIN, "eos_token": END,
            "model_max_length": CONTEXT, "clean_up_tokenization_spaces": False,
            "chat_template": CHATML,
        },
    }
    for name, content in json_files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
