"""Runs jobs/mpirun/run.sh over two hosts (hosts.sh), takes one away, and goes on.

    hosts_test.py PROGRAM CASE
"""

import os
import pathlib
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
from job_checks import ANSWERS, SLOWLY, SOURCE, Job, check, need_programs, run_case, say, wait_until

WATCHDOG = 5  # seconds
PATIENCE = 60  # what a busy machine may add


class Hosts:
    def __init__(self, folder):
        self.folder = f"{folder}/hosts"
        self.work = pathlib.Path(folder)
        self.running = None

    def __enter__(self):
        self.control("up")
        return self

    def __exit__(self, kind, error, trace):
        if error:
            for log in sorted(self.work.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}")
        self.control("down")

    def control(self, command, *arguments):
        return subprocess.run([HERE / "hosts.sh", command, self.folder, *arguments], check=True,
                              stdout=subprocess.PIPE, text=True).stdout

    def start(self, job, hosts, *arguments):
        """run.sh on h1, a rank for each of `hosts`."""
        hostfile = self.work / "hostfile"
        hostfile.write_text("".join(f"{host} slots={hosts.count(host)}\n"
                                    for host in dict.fromkeys(hosts)))
        self.log = self.work / f"run-{time.monotonic_ns()}.log"
        variables = {**os.environ, **job.variables(), "HOSTFILE": str(hostfile),
                     "RANKS": str(len(hosts)), "PENSTOCK": job.program,
                     "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                     "OMPI_MCA_plm_rsh_agent": f"{self.folder}/agent",
                     "OMPI_MCA_mpi_yield_when_idle": "1"}
        with open(self.log, "w") as log:
            self.running = subprocess.Popen(
                [f"{self.folder}/on", "h1", SOURCE / "jobs/mpirun/run.sh", *ANSWERS, "--threads", "1", *arguments],
                env=variables, stdout=log, stderr=log, cwd=self.work)

    def await_end(self, seconds):
        try:
            return self.running.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the job has not ended after {seconds} s") from None

    def said(self):
        return self.log.read_text(errors="replace")

    def await_rows(self, job, rows):
        def arrived():
            check_running = self.running.poll() is None or job.journalled() >= rows
            if not check_running:
                raise AssertionError("the job has ended early")
            return job.journalled() >= rows
        wait_until(f"{rows} records are in the journal", arrived, 120)

    def check_ends(self, what, named):
        """The job ends by itself, says why, and leaves nothing on the hosts."""
        start = time.monotonic()
        code = self.await_end(WATCHDOG + PATIENCE)
        say(f"{time.monotonic() - start:.1f} s after {what} the job has ended with {code}")
        check(code != 0, "with an error")
        check(re.search(named, self.said()), f"that names the cause ({named})", self.said())
        for host in ("h1", "h2"):
            wait_until(f"nothing is left on {host}",
                       lambda: "penstock run" not in self.control("list", host), PATIENCE)


def test_two_hosts(hosts, job):
    """Three stages on two hosts."""
    job.write_input(64)
    job.write_expected()
    hosts.start(job, ["h1", "h1", "h2"])
    check(hosts.await_end(120) == 0, "the job is done", hosts.said())
    check(re.search(r" 1 +h1 .*\n.* 2 +h2 ", hosts.said()), "on both hosts", hosts.said())
    job.check_answers()


def test_cut_link(hosts, job):
    """The link between the hosts is cut: the watchdog ends the job; then it goes on."""
    job.write_input(200)
    job.write_expected()
    hosts.start(job, ["h1", "h2"], *SLOWLY, "--watchdog-seconds", str(WATCHDOG))
    hosts.await_rows(job, 20)
    hosts.control("cut", "h2")
    hosts.check_ends("the cut", r"stage 0: no .* from rank 1, host h2 for [\d.]+ s")
    waited = float(re.search(r"from rank 1, host h2 for ([\d.]+) s", hosts.said()).group(1))
    check(WATCHDOG <= waited < WATCHDOG + 5, "it was noticed in the watchdog's time", hosts.said())
    check(job.state()["state"] == "running" and not job.output.exists(), "the job is not finished",
          job.state())
    kept = job.journalled()
    check(kept >= 20, "what was finished is kept")

    hosts.control("heal", "h2")
    hosts.start(job, ["h1", "h2"])
    check(hosts.await_end(120) == 0, "the same command finishes it", hosts.said())
    job.check_answers()


def test_host_crash(hosts, job):
    """A host is gone at once; the job goes on without it."""
    job.write_input(200)
    job.write_expected()
    hosts.start(job, ["h1", "h2"], *SLOWLY, "--watchdog-seconds", str(WATCHDOG))
    hosts.await_rows(job, 20)
    hosts.control("crash", "h2")
    hosts.check_ends("the crash", r"[Rr]emote daemon.* on node h2|rank 1, host h2 for")
    hosts.start(job, ["h1", "h1", "h1"])
    check(hosts.await_end(120) == 0, "the job is finished on the other host", hosts.said())
    job.check_answers()


CASES = {name.removeprefix("test_"): value for name, value in list(globals().items())
         if name.startswith("test_")}


def run(function, folder, program):
    say(function.__doc__)
    with Hosts(folder) as hosts:
        function(hosts, Job(folder, program))


if __name__ == "__main__":
    need_programs("mpirun", "ip", "nsenter")
    run_case(CASES, __doc__, run)
