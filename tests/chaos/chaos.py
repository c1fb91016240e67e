#!/usr/bin/env python3
"""Disturbs jobs at random instants, in any way, and starts them again with other layouts until
they are done; then compares the output with an undisturbed run's.

    tests/chaos/chaos.py --program build/cpu-release/penstock --rounds 200 --seed 7

Each round is a dataset of its own and as many attempts as it takes. What is drawn depends on the
seed, the round and the attempt only (when it strikes, on the machine too), so --seed and --round
repeat what failed. The working folder of a round that failed stays.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # the tree stays as it is

import weather  # noqa: E402
from journal import Folder
from processes import Attempt, ChaosError, become_subreaper, living_descendants

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(HERE, "..", "..", "jobs", "embedded", "austen-1m.h5")
NAMESPACE = "CHAOS_NAMESPACE"
DISK = "size=24m"
DISTURBED_ATTEMPTS = 8  # then the weather is calm
WORDS = ("Mr. Darcy Elizabeth walked her mother said that it was a truth universally acknowledged "
         "sister Jane Bingley Netherfield ball letter and to the of in “Indeed,” café").split()


def make_records(rng, count):
    """JSON lines with all that may be in a record, some of them wrong."""
    lines, bad_share = [], rng.choice([0, 0.02])
    for i in range(count):
        text = " ".join(rng.choices(WORDS, k=rng.choice([1, 3, 10, 40, 90])))
        record = {"id": rng.choice([i, f"name {i % 7}", None]), "prompt": text}
        if rng.random() < 0.1:
            del record["prompt"]
            record["messages"] = [{"role": "user", "content": text}]
        if rng.random() < 0.3:
            record["temperature"] = rng.choice([0, 0.7, 1.3])
            record["seed"] = rng.randrange(1 << 40)
        if rng.random() < 0.1:
            record["stop"] = rng.choice(["the", ["Elizabeth", ", and "]])
        if rng.random() < 0.1:
            record["repetition_penalty"] = 1.2
        record["max_tokens"] = rng.choice([1, 30, 100, 200, 300])
        record["ignore_eos"] = True
        lines.append(json.dumps(record))
        if rng.random() < bad_share and i > 0:  # by the first one the format is told
            lines[-1] = rng.choice([lines[-1][:-5], "[]", '{"id": "empty", "prompt": ""}'])
    return "\n".join(lines) + rng.choice(["", "\n"])


class Round:
    def __init__(self, options, number, workplace):
        self.options, self.number, self.workplace = options, number, workplace
        self.rng = random.Random(f"{options.seed}/{number}")
        self.disk = None
        self.seconds_to_die = []  # after a SIGKILL, until all processes are gone
        self.sampling = []
        if self.rng.random() < 0.5:
            self.sampling = ["--temperature", "0.9", "--top-p", "0.95", "--seed",
                             str(self.rng.randrange(1000))]
        self.input = os.path.join(workplace, "input.jsonl")
        with open(self.input, "w", encoding="utf-8") as file:
            file.write(make_records(self.rng, options.records))
        mpi = os.path.join(workplace, "mpi")  # what a killed mpirun leaves behind
        os.mkdir(mpi)
        self.environment = {
            "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMPI_MCA_mpi_yield_when_idle": "1", "OMPI_MCA_ess_singleton_isolated": "1",
            "OMPI_MCA_oob_tcp_if_include": "lo", "OMPI_MCA_btl_tcp_if_include": "lo",
            **os.environ, "TMPDIR": mpi, "OMPI_MCA_btl_vader_backing_directory": mpi}
        self.environment.pop("MPIEXEC_TIMEOUT", None)

    def start(self, name, layout, output, options=()):
        """layout: (ranks, threads that are stages): one of them is 0."""
        ranks, stages = layout
        mpirun = [self.options.mpirun.split() + [str(ranks)]] if ranks else []
        program = [self.options.program, "run", MODEL, "--input", self.input, "--output", output,
                   "--threads", "1", "--progress", "none", "--ignore-eos", *self.sampling]
        if stages:
            program += ["--link", "local", "--stages", str(stages)]
        return Attempt(f"{self.options.seed}/{self.number}/{name}",
                       [*mpirun, program + list(options)], self.environment,
                       os.path.join(self.workplace, f"log-{name}"))

    def layout(self, rng):
        ranks = rng.choice([0, 0, 1, 2, 2, 3, 4])
        layout = (ranks, 0 if ranks else rng.randint(1, 4))
        options = ["--kv-memory", rng.choice(["2M", "4M", "16M"])]
        fitting = [n for n in (2, 3, 4) if ranks % n == 0] if ranks else [2]
        if fitting and rng.random() < 0.6:
            options += ["--replicas", str(rng.choice(fitting))]
        if rng.random() < 0.5:
            options += ["--slots", str(rng.randint(1, 6))]
        if rng.random() < 0.5:
            options += ["--max-step-tokens", str(rng.choice([16, 100, 700]))]
        return layout, options

    def undisturbed(self):
        output = os.path.join(self.workplace, "undisturbed.jsonl")
        attempt = self.start("undisturbed", (0, 1), output, ["--kv-memory", "16M"])
        try:
            self.final_code = attempt.wait(self.options.timeout)
            attempt.wait_for_orphans(10)
        finally:
            attempt.end()
        if self.final_code not in (0, 2):
            raise ChaosError(f"the undisturbed run failed: {attempt.output()}")
        self.calm_seconds = attempt.seconds()
        with open(output, "rb") as file:
            return file.read()

    def mount_disk(self):
        output_folder = os.path.join(self.workplace, "disk")
        os.mkdir(output_folder)
        if os.environ.get(NAMESPACE) and self.rng.random() < 0.7:
            subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "chaos", output_folder], check=True)
            self.disk = output_folder
        return output_folder

    def run(self):
        reference = self.undisturbed()
        folder = Folder(os.path.join(self.mount_disk(), "out.jsonl"), reference)
        self.check_reference(folder.rows)
        self.folder = folder
        for number in range(1, DISTURBED_ATTEMPTS + 2):
            done = self.attempt(number, calm=number > DISTURBED_ATTEMPTS)
            if done:
                return
        raise ChaosError("a calm run did not finish the job")

    def check_reference(self, rows):
        if len(rows) != self.options.records:
            raise ChaosError(f"{self.options.records} records, but {len(rows)} rows")
        for index, row in enumerate(rows):
            if json.loads(row)["index"] != index:
                raise ChaosError(f"row {index} is {row[:300]!r}")

    def attempt(self, number, calm):
        """Returns whether the job is done."""
        rng = random.Random(f"{self.options.seed}/{self.number}/{number}")
        layout, options = self.layout(rng)
        kind = "calm" if calm else rng.choices(list(weather.KINDS), weather.KINDS.values())[0]
        damaged = ""
        # The journal is on disk before the output gets its name.
        if number > 1 and not calm and rng.random() < 0.25 and not self.folder.check_output():
            damaged = f"{self.folder.damage(rng)}; "
        if kind == "time limit":
            options += ["--time-limit", f"{rng.uniform(1, self.calm_seconds + 2):.0f}s"]
        if kind in ("hang", "pause"):
            options += ["--watchdog-seconds", "3"]
        before = self.folder.finished()
        attempt = self.start(number, layout, self.folder.output, options)
        left = 1 - len(before) / self.options.records
        sky = weather.Weather(
            attempt, rng, self.folder, 0.5 + left * self.calm_seconds, self.disk,
            lambda: self.start(f"{number}-rival", (0, 1), self.folder.output, options))
        where = f"{layout[0]} ranks" if layout[0] else f"{layout[1]} threads"
        told = f"  {number}: {damaged}{where}, {' '.join(options)}; {kind}"
        try:
            outcome = sky.strike(kind)
            told = f"  {number}: {damaged}{where}, {' '.join(options)}; {outcome.told}"
            code = attempt.wait(self.options.timeout)
            attempt.wait_for_orphans(self.options.timeout)
            if self.disk and os.path.exists(os.path.join(self.disk, "ballast")):
                os.remove(os.path.join(self.disk, "ballast"))
            after, state = self.check(attempt, outcome, before, code)
        except ChaosError as error:
            raise ChaosError(f"{told}: {error}\nIt said:\n{attempt.output()}") from error
        finally:
            attempt.end()
        partial = f", {self.folder.partial_records} partial" if self.folder.partial_records else ""
        gone = attempt.seconds() - (sky.struck or attempt.seconds())
        if outcome.told.startswith("SIGKILL"):
            self.seconds_to_die.append(gone)
        print(f"{told} -> {code} {gone:.1f} s later, {len(before)} -> {len(after)} of "
              f"{self.options.records} records{partial}, {state and state['state']}", flush=True)
        return code == self.final_code

    def check(self, attempt, outcome, before, code):
        state = self.folder.state()
        over = state is not None and state["state"] in ("again", "done", "errors")
        if not (outcome.codes is None or code == self.final_code or code in outcome.codes or
                over and code in outcome.too_late):
            raise ChaosError(f"exit code {code}")
        if "runtime error: " in attempt.output() or "Sanitizer" in attempt.output():
            raise ChaosError("a sanitizer speaks")
        if code == 1 and outcome.must_say and not any(
                words in attempt.output() for words in outcome.must_say):
            raise ChaosError(f"exit code 1, but not a word of {outcome.must_say}")
        after = self.folder.finished()
        if before - after:
            raise ChaosError(f"rows are gone: of the records {sorted(before - after)[:10]}")
        there = self.folder.check_output()
        if code == self.final_code:
            if not there:
                raise ChaosError("done, but there is no output")
            self.folder.check_end(code)
        if code == weather.AGAIN:
            self.check_again(state, after)
        return after, state

    def check_again(self, state, after):
        found = (state["state"], state["finished"] + state["failed"], state["partial_tokens"])
        expected = ("again", len(after), self.folder.partial_tokens)
        if found != expected:
            raise ChaosError(f"state, rows and partial tokens are {found}; the journal has "
                             f"{expected}")
        if os.path.exists(self.folder.file("lock")):
            raise ChaosError("the lock was left behind")

    def clean_up(self):
        for one in living_descendants():
            one.signal(9)
        if self.disk:
            subprocess.run(["umount", "--lazy", self.disk], check=True)


def enter_namespace():
    """A mount namespace of its own, where that is allowed: there a small disk can be had, and goes
    with it."""
    if os.environ.get(NAMESPACE) is not None or shutil.which("unshare") is None:
        return
    for kind in (["--mount"], ["--user", "--map-root-user", "--mount"]):
        trial = ["unshare", *kind, "mount", "-t", "tmpfs", "-o", DISK, "chaos",
                 tempfile.gettempdir()]
        if subprocess.run(trial, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            os.environ[NAMESPACE] = "1"
            os.execvp("unshare", ["unshare", *kind, sys.executable, *sys.argv])
    print("no small disk can be mounted here: full disks are played by limits on a file's size")
    os.environ[NAMESPACE] = ""


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--mpirun", default="mpirun --oversubscribe --bind-to none -n")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--round", type=int, help="only this one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--records", type=int, default=250)
    parser.add_argument("--timeout", type=float, default=60, help="seconds for an attempt")
    options = parser.parse_args()
    options.program = os.path.abspath(options.program)
    enter_namespace()
    become_subreaper()
    begun = time.monotonic()
    rounds = [options.round] if options.round is not None else range(1, options.rounds + 1)
    failed, seconds_to_die = [], [0]
    for number in rounds:
        workplace = tempfile.mkdtemp(prefix="penstock-chaos-")
        one = Round(options, number, workplace)
        print(f"round {number} of seed {options.seed}, {' '.join(one.sampling) or 'greedy'}",
              flush=True)
        try:
            one.run()
        except ChaosError as error:
            failed.append(number)
            print(f"FAILED {error}\nThe files are in {workplace}.", flush=True)
            if one.disk:  # which goes with the namespace
                shutil.copytree(one.disk, os.path.join(workplace, "disk-copy"), symlinks=True)
            continue
        finally:
            one.clean_up()
            seconds_to_die += one.seconds_to_die
        shutil.rmtree(workplace)
    print(f"{len(rounds) - len(failed)} rounds passed, {len(failed)} failed {failed or ''} in "
          f"{time.monotonic() - begun:.0f} s; after a SIGKILL all processes were gone in "
          f"{max(seconds_to_die):.1f} s at most")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
