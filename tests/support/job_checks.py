"""What the tests of whole jobs share (tests/slurm, tests/hosts): datasets, an undisturbed run's
answers to compare with, and checks that say what they check.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
MODEL = SOURCE / "jobs/embedded/austen-1m.h5"
SKIPPED = 77  # the exit code; CTest knows it
# Answers of some length that differ from record to record, and the same ones in any layout.
ANSWERS = ["--max-tokens", "200", "--ignore-eos", "--temperature", "0.7"]
# Few rows a step make a job last without making it big.
SLOWLY = ["--max-step-tokens", "1"]


def skip(reason):
    print(f"Skipped\n{reason}", flush=True)
    sys.exit(SKIPPED)


def need_programs(*names):
    for name in names:
        if not shutil.which(name):
            skip(f"{name} is not installed")


def enter_namespace():
    """Whatever ends this process ends all that it starts, daemons as well."""
    if os.environ.get("PENSTOCK_TEST_NAMESPACE"):
        return
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0 or subprocess.run([*alone, "--net", "true"]).returncode:
        skip("no namespaces: they need root")
    # The shell is process 1 there, and waits for processes whose parent has ended.
    os.environ["PENSTOCK_TEST_NAMESPACE"] = "entered"
    os.execvp("unshare", [*alone, "bash", "-c", '"$@"; exit "$?"', "-", sys.executable, *sys.argv])


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def check(holds, what, *details):
    say(f"{'ok' if holds else 'FAILED'}: {what}")
    if not holds:
        raise AssertionError("\n".join([what, *map(str, details)]))


def wait_until(what, holds, seconds):
    """Returns what `holds` returns, once that is true."""
    end = time.monotonic() + seconds
    while not (result := holds()):
        if time.monotonic() > end:
            raise AssertionError(f"after {seconds} s still waiting for: {what}")
        time.sleep(0.2)
    say(f"ok: {what}")
    return result


class Job:
    """A dataset, the output of the job that is tested, and the answers of an undisturbed run."""

    def __init__(self, folder, program):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.program = program
        self.input = self.folder / "input.txt"
        self.output = self.folder / "output.jsonl"
        self.expected = self.folder / "expected.jsonl"

    def write_input(self, records):
        self.records = records
        lines = (f"Mr. Darcy said to Elizabeth, {i} times,\n" for i in range(records))
        self.input.write_text("".join(lines))

    def write_expected(self):
        """One process, as many rows a step as there are: a layout that no other job here has."""
        subprocess.run([self.program, "run", MODEL, "--input", self.input, "--output", self.expected,
                        "--progress", "none", "--quiet", *ANSWERS], check=True,
                       env={**os.environ, "OMP_WAIT_POLICY": "passive"})

    def variables(self):
        return {"CKPT": str(MODEL), "INPUT": str(self.input), "OUTPUT": str(self.output)}

    def journalled(self, output=None):
        """Rows of finished records on disk."""
        journals = pathlib.Path(f"{output or self.output}.job").glob("journal-*.jsonl")
        return sum(line.startswith(b'{"id"') for journal in journals
                   for line in journal.read_bytes().splitlines())

    def state(self, output=None):
        try:
            return json.loads(pathlib.Path(f"{output or self.output}.job/state").read_text())
        except FileNotFoundError:
            return {}

    def check_answers(self):
        check(self.output.exists(), "the output is there", self.state())
        check(self.output.read_bytes() == self.expected.read_bytes(),
              f"{self.records} records, answered as by an undisturbed run", self.state())


def run_case(cases, usage, run):
    """run(function, folder, program) with the test that the command line names."""
    if len(sys.argv) != 3 or sys.argv[2] not in cases:
        sys.exit(f"{usage}\ncases: {' '.join(cases)}")
    enter_namespace()
    with tempfile.TemporaryDirectory(prefix="penstock-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        try:
            run(cases[sys.argv[2]], folder, os.path.abspath(sys.argv[1]))
        except AssertionError as error:
            sys.exit(f"FAILED: {error}")
