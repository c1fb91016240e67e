"""What a job's folder must hold after each attempt, judged by the undisturbed run's output."""

import glob
import json
import os
import random
import re

from processes import ChaosError

CHECKSUM = re.compile(rb',"xxh3":"[0-9a-f]{16}"\}$')
PARTIAL = b'{"partial":'
STATES = ("running", "again", "done", "errors", "broken")


class Folder:
    def __init__(self, output, reference):
        self.output, self.path = output, output + ".job"
        self.reference = reference  # the bytes of the whole output
        self.rows = reference.splitlines()
        self.indexes = {row: index for index, row in enumerate(self.rows)}
        self.made_damage = set()  # lines that damage() left
        self.partial = {}  # record: the longest list of tokens seen

    def file(self, name):
        return os.path.join(self.path, name)

    def journals(self):
        return sorted(glob.glob(self.file("journal-*.jsonl")))

    def size(self):
        try:
            return sum(os.path.getsize(path) for path in self.journals())
        except OSError:
            return 0

    def merging(self):
        return bool(glob.glob(self.output + ".*.tmp"))

    def finished(self):
        """The records that have a row, after looking at each line of each journal. A row is the
        output's very bytes, and there is one for a record; so is any beginning of it."""
        found = set()
        latest = {}
        for path in self.journals():
            with open(path, "rb") as file:
                lines = file.read().split(b"\n")
            here = {}  # the latest of this journal; of several journals the longest counts
            for number, line in enumerate(lines, 1):
                if not line or line in self.made_damage:
                    continue
                where = f"{path}, line {number}"
                end = CHECKSUM.search(line)
                whole = end is not None and number < len(lines)
                if not whole:
                    self.check_torn(line, where)
                elif line.startswith(PARTIAL):
                    row = json.loads(line)
                    self.check_partial(row, where)
                    here[row["index"]] = len(row["partial"])
                else:
                    row = line[:end.start()] + b"}"
                    index = self.indexes.get(row)
                    if index is None:
                        raise ChaosError(f"{where}: not the undisturbed run's row: {row[:300]!r}")
                    if index in found:
                        raise ChaosError(f"{where}: record {index} was answered twice")
                    found.add(index)
            for index, tokens in here.items():
                latest[index] = max(latest.get(index, 0), tokens)
        self.partial_tokens = sum(n for index, n in latest.items() if index not in found)
        self.partial_records = sum(1 for index in latest if index not in found)
        return found

    def check_torn(self, line, where):
        beginnings = (row[:-1] + b',"xxh3":"' for row in self.rows)
        shorter = re.sub(rb'(,"xxh3":")[0-9a-f]*"?\}?$', rb"\1", line)
        if not line.startswith(PARTIAL[:len(line)]) and not any(
                row.startswith(shorter) for row in beginnings):
            raise ChaosError(f"{where}: rubbish: {line[:300]!r}")

    def check_partial(self, row, where):
        index, tokens = row["index"], row["partial"]
        if list(row) != ["partial", "index", "xxh3"] or not 0 <= index < len(self.rows):
            raise ChaosError(f"{where}: a strange partial row: {row}")
        known = self.partial.setdefault(index, tokens)
        shared = min(len(known), len(tokens))
        if known[:shared] != tokens[:shared]:
            raise ChaosError(f"{where}: record {index} went another way than before")
        if len(tokens) > len(known):
            self.partial[index] = tokens

    def state(self):
        """None where there is none: a job that never began."""
        try:
            with open(self.file("state"), encoding="utf-8") as file:
                text = file.read()
        except FileNotFoundError:
            return None
        try:
            state = json.loads(text)
            counts = [state[name] for name in ("finished", "failed", "left", "partial_tokens")]
        except (ValueError, KeyError) as error:
            raise ChaosError(f"the state cannot be read: {error!r}: {text!r}") from error
        if state["state"] not in STATES or min(counts) < 0 or sum(counts[:3]) != len(self.rows):
            raise ChaosError(f"a strange state: {text}")
        return state

    def check_output(self):
        """Whether it is there; if so, it is whole."""
        try:
            with open(self.output, "rb") as file:
                found = file.read()
        except FileNotFoundError:
            return False
        if found != self.reference:
            rows = found.splitlines()
            for index, (mine, expected) in enumerate(zip(rows, self.rows)):
                if mine != expected:
                    raise ChaosError(f"the output differs in row {index}: {mine!r}, "
                                     f"undisturbed: {expected!r}")
            raise ChaosError(f"the output has {len(rows)} rows, {len(found)} bytes; undisturbed: "
                             f"{len(self.rows)}, {len(self.reference)}")
        return True

    def check_end(self, code):
        """After a run that ended by itself with all records done."""
        state = self.state()
        if state is None or state["state"] != ("errors" if code == 2 else "done"):
            raise ChaosError(f"exit code {code}, but the state is {state}")
        if state["left"] or state["failed"] != sum(b'"error"' in row for row in self.rows):
            raise ChaosError(f"wrong counts: {state}")
        litter = glob.glob(self.output + ".*.tmp") + glob.glob(self.file("*.tmp"))
        litter += [path for path in [self.file("lock")] if os.path.exists(path)]
        if litter:
            raise ChaosError(f"left behind: {litter}")

    def damage(self, rng: random.Random):
        """What a crash of the machine could do to the journal's end, and a bad disk anywhere."""
        journals = self.journals()
        path = rng.choice(journals) if journals else None
        if path is None or os.path.getsize(path) == 0:
            return "nothing to damage"
        with open(path, "rb") as file:
            text = file.read()
        kind = rng.choice(["cut", "cut", "garbage", "zeros", "half a row", "flipped"])
        if kind == "cut":
            bytes_cut = rng.randint(1, min(len(text), rng.choice([1, 20, 300, 5000])))
            text = text[:-bytes_cut]
            kind = f"the journal's last {bytes_cut} bytes cut off"
        elif kind == "flipped":
            at = rng.randrange(len(text))
            text = text[:at] + bytes([text[at] ^ (1 << rng.randrange(8))]) + text[at + 1:]
            begin = text.rfind(b"\n", 0, at) + 1
            end = text.find(b"\n", at + 1)
            self.made_damage.update(text[begin:end if end >= 0 else len(text)].split(b"\n"))
            kind = f"a bit of the journal's byte {at} flipped"
        else:
            if kind == "garbage":
                more = rng.randbytes(rng.randint(1, 300))
            elif kind == "zeros":
                more = bytes(rng.randint(1, 9000))
            else:
                more = rng.choice(self.rows)[:rng.randint(1, 80)]
            if rng.random() < 0.4:
                more += b"\n"
            text += more
            kind = f"{len(more)} bytes of {kind} appended to the journal"
        last = text.rfind(b"\n") + 1
        with open(path, "wb") as file:
            file.write(text)
        if kind.startswith(("the journal", "a bit")):
            if not CHECKSUM.search(text[last:]):  # else only its newline is gone
                self.made_damage.add(text[last:])
        else:
            # They stick to a row that had no newline.
            stuck = text[:len(text) - len(more)].rfind(b"\n") + 1
            self.made_damage.update(text[stuck:].split(b"\n"))
        self.made_damage.discard(b"")
        return kind
