"""Submits the scripts of jobs/slurm, as they are, to a Slurm of two nodes (cluster.sh), lets the
scheduler interrupt the jobs, and compares the final bytes with an undisturbed run's.

    slurm_test.py PROGRAM CASE
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))
from job_checks import (ANSWERS, MODEL, SLOWLY, SOURCE, Job, check, need_programs,
                        run_case, say, wait_until)

SCRIPTS = SOURCE / "jobs/slurm"
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "DEADLINE"}
TWO_NODES = ["--nodes=2", "--ntasks-per-node=1"]


class Cluster:
    def __init__(self, folder):
        self.folder = f"{folder}/slurm"
        self.work = pathlib.Path(folder)

    def __enter__(self):
        self.control("up")
        return self

    def __exit__(self, kind, error, trace):
        if error:
            for log in sorted(self.work.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}")
            print(self.ask("scontrol", "show", "job", check=False))
            for log in sorted(pathlib.Path(self.folder, "log").glob("slurm*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
        self.control("down")

    def control(self, command, *arguments):
        subprocess.run([HERE / "cluster.sh", command, self.folder, *arguments], check=True)

    def crash(self, node):
        say(f"{node} crashes")
        self.control("crash", node)

    def ask(self, *command, check=True, stderr=None, **variables):
        return subprocess.run([f"{self.folder}/in", *command], check=check, text=True,
                              stdout=subprocess.PIPE, stderr=stderr, cwd=self.work,
                              env={**os.environ, **variables}).stdout

    def submit(self, job, script, *options, arguments=(), **variables):
        """Returns the number of the Slurm job. The user gives three variables and PATH."""
        variables = {"PATH": f"{os.path.dirname(job.program)}:{os.environ['PATH']}",
                     **job.variables(), **variables}
        number = self.ask("sbatch", "--parsable", *options, str(SCRIPTS / script), *ANSWERS,
                          *arguments, **variables).strip()
        say(f"{script} is Slurm job {number}")
        return number

    def field(self, number, name):
        """Of all tasks, where it is an array."""
        text = self.ask("scontrol", "show", "job", number, check=False)
        return re.findall(rf"\b{name}=(\S*)", text)

    def restarts(self, number):
        return sum(map(int, self.field(number, "Restarts")))

    def await_end(self, number, seconds=300):
        wait_until(f"Slurm job {number} has ended",
                   lambda: set(self.field(number, "JobState")) <= ENDED, seconds)

    def check_completed(self, number, seconds=300):
        self.await_end(number, seconds)
        check(set(self.field(number, "JobState")) == {"COMPLETED"}, f"Slurm job {number} completed",
              self.field(number, "JobState"))

    def log(self, number):
        return "".join(log.read_text() for log in self.work.glob(f"*-{number}*.log"))

    def await_rows(self, number, job, rows, output=None):
        """Until that many records are in the journal of Slurm job `number`."""
        def arrived():
            done = job.journalled(output) >= rows
            if not done and set(self.field(number, "JobState")) <= ENDED:
                raise AssertionError(f"Slurm job {number} has ended early")
            return done
        wait_until(f"{rows} records are in the journal", arrived, 120)

    def await_restart(self, number, restart, seconds=90):
        wait_until(f"Slurm has requeued job {number}",
                   lambda: self.restarts(number) >= restart, seconds)

    def prepare(self, job, seconds):
        """A dataset that a slow job on two nodes needs some `seconds` for."""
        sample = Job(self.work / "sample", job.program)
        sample.write_input(24)
        number = self.submit(sample, "nodes.sbatch", arguments=SLOWLY)
        self.check_completed(number)
        took = float(re.search(r"time +([\d.]+) s of work", self.log(number)).group(1))
        job.write_input(max(64, int(24 / took * seconds)))
        job.write_expected()
        say(f"{24 / took:.1f} records a second, so {job.records} records")


def test_one_node(cluster, job):
    """run.sbatch: two ranks on one node, by srun; an argument has two lines."""
    job.write_input(64)
    job.write_expected()
    number = cluster.submit(job, "run.sbatch", arguments=("--stop", "no such\nwords"))
    cluster.check_completed(number)
    check("link mpi" in cluster.log(number) and "3 slots" in cluster.log(number),
          "the two tasks were two stages", cluster.log(number))
    job.check_answers()


def test_two_nodes(cluster, job):
    """nodes.sbatch: a stage on each node, by srun."""
    job.write_input(64)
    job.write_expected()
    number = cluster.submit(job, "nodes.sbatch")
    cluster.check_completed(number)
    check(re.search(r" 0 +node1 .*\n.* 1 +node2 ", cluster.log(number)), "a stage on each node",
          cluster.log(number))
    job.check_answers()


def test_two_nodes_by_mpirun(cluster, job):
    """The same, but the site has chosen mpirun."""
    job.write_input(64)
    job.write_expected()
    number = cluster.submit(job, "nodes.sbatch", LAUNCHER="mpirun", OMPI_ALLOW_RUN_AS_ROOT="1",
                            OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_mpi_yield_when_idle="1")
    cluster.check_completed(number)
    check(re.search(r" 0 +node1 .*\n.* 1 +node2 ", cluster.log(number)), "a stage on each node",
          cluster.log(number))
    job.check_answers()


def test_time_limit(cluster, job):
    """preemptible.sbatch: the dataset needs several jobs of a minute."""
    cluster.prepare(job, 110)
    number = cluster.submit(job, "preemptible.sbatch", *TWO_NODES, "--time=1", "--signal=B:USR1@15",
                            arguments=SLOWLY)
    cluster.check_completed(number, 600)
    check(cluster.restarts(number) >= 1, "the job was requeued", cluster.log(number))
    check("TIME LIMIT" not in cluster.log(number), "each job ended before its limit",
          cluster.log(number))
    job.check_answers()


def test_requeue(cluster, job):
    """preemptible.sbatch, and `scontrol requeue` from outside, three times."""
    cluster.prepare(job, 40)
    number = cluster.submit(job, "preemptible.sbatch", *TWO_NODES, arguments=SLOWLY)
    for interruption in range(1, 4):
        cluster.await_rows(number, job, interruption * job.records // 5)
        cluster.ask("scontrol", "requeue", number)
        cluster.await_restart(number, interruption)
    cluster.check_completed(number)
    check(cluster.restarts(number) == 3, "started again as often as asked")
    job.check_answers()


def test_signal(cluster, job):
    """preemptible.sbatch: the signal before the limit, here by hand, to the script only."""
    cluster.prepare(job, 25)
    number = cluster.submit(job, "preemptible.sbatch", *TWO_NODES, arguments=SLOWLY)
    cluster.await_rows(number, job, job.records // 4)
    cluster.ask("scancel", "--signal=USR1", "--batch", number)
    cluster.await_restart(number, 1)
    cluster.check_completed(number)
    check("records are finished: requeueing" in cluster.log(number), "the script says so", cluster.log(number))
    job.check_answers()


def test_signal_by_mpirun(cluster, job):
    """The same where mpirun starts the ranks."""
    cluster.prepare(job, 25)
    number = cluster.submit(job, "preemptible.sbatch", *TWO_NODES, arguments=SLOWLY,
                            LAUNCHER="mpirun", OMPI_ALLOW_RUN_AS_ROOT="1",
                            OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_mpi_yield_when_idle="1")
    cluster.await_rows(number, job, job.records // 4)
    cluster.ask("scancel", "--signal=USR1", "--batch", number)
    cluster.await_restart(number, 1)
    cluster.check_completed(number)
    job.check_answers()


def test_node_crash(cluster, job):
    """preemptible.sbatch: first the second node fails, then the one that runs the script."""
    cluster.prepare(job, 40)
    number = cluster.submit(job, "preemptible.sbatch", *TWO_NODES, arguments=SLOWLY)
    for interruption, node in ((1, "node2"), (2, "node1")):
        cluster.await_rows(number, job, interruption * job.records // 4)
        cluster.crash(node)
        # Slurm needs SlurmdTimeout to notice, unless the script does first.
        cluster.await_restart(number, interruption)
        cluster.control("boot", node)
    cluster.check_completed(number)
    job.check_answers()


def test_killed_rank(cluster, job):
    """nodes.sbatch: one rank is killed; the same command goes on."""
    cluster.prepare(job, 25)
    number = cluster.submit(job, "nodes.sbatch", arguments=SLOWLY)
    cluster.await_rows(number, job, job.records // 4)
    ranks = subprocess.run(["pgrep", "-x", "penstock"], stdout=subprocess.PIPE, text=True)
    os.kill(int(ranks.stdout.split()[-1]), signal.SIGKILL)
    start = time.monotonic()
    cluster.await_end(number, 60)
    say(f"{time.monotonic() - start:.1f} s after the rank")
    check(re.search(r"node\d: task \d: Killed", cluster.log(number)), "srun says which",
          cluster.log(number))
    check(job.state()["state"] == "running", "the job is not finished", job.state())
    cluster.check_completed(cluster.submit(job, "nodes.sbatch"))
    job.check_answers()


def test_preemption(cluster, job):
    """preemptible.sbatch: a job of a better partition takes the nodes away."""
    cluster.prepare(job, 25)
    number = cluster.submit(job, "preemptible.sbatch", *TWO_NODES, arguments=SLOWLY)
    cluster.await_rows(number, job, job.records // 4)
    cluster.ask("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--wrap=sleep 5")
    cluster.await_restart(number, 1)
    cluster.check_completed(number)
    check("SIGTERM" in cluster.log(number), "on Slurm's SIGTERM", cluster.log(number))
    job.check_answers()


def test_cancelled(cluster, job):
    """preemptible.sbatch: scancel is the end."""
    cluster.prepare(job, 25)
    number = cluster.submit(job, "preemptible.sbatch", *TWO_NODES, arguments=SLOWLY)
    cluster.await_rows(number, job, job.records // 4)
    cluster.ask("scancel", number)
    cluster.await_end(number)
    check(cluster.field(number, "JobState") == ["CANCELLED"] and cluster.restarts(number) == 0,
          "it is not requeued", cluster.field(number, "JobState"), cluster.log(number))
    check(job.state()["state"] in ("running", "again"), "and could go on", job.state())


def test_no_progress(cluster, job):
    """preemptible.sbatch: requeued as long as counts grow. A program is played that says so."""
    job.write_input(1)
    # Finished, failed, tokens of answers that are not finished, after each run.
    runs = [(5, 0, 9), (5, 1, 0), (5, 1, 3), (5, 1, 3)]
    played = job.folder / "played"
    states = " ".join(f"{finished},{failed},{tokens}" for finished, failed, tokens in runs)
    played.write_text(f"""#!/bin/bash
        states=({states})
        IFS=, read -r finished failed tokens <<< "${{states[${{SLURM_RESTART_COUNT:-0}}]}}"
        mkdir -p "$OUTPUT.job"
        cat > "$OUTPUT.job/state" <<< '{{"state": "again", "finished": '$finished', "failed": '$failed',
          "left": 1, "partial_tokens": '$tokens'}}'
        exit 75""")
    played.chmod(0o755)
    number = cluster.submit(job, "preemptible.sbatch", "--ntasks=1", "--ntasks-per-node=1",
                            PENSTOCK=str(played))
    cluster.await_end(number)
    check(cluster.restarts(number) == len(runs) - 1, "requeued after each run but the last",
          cluster.log(number))
    check("no further than the 6 records" in cluster.log(number), "which says why",
          cluster.log(number))


def test_array(cluster, job):
    """array.sbatch and merge.sbatch, with tasks that are interrupted, and one that is missing."""
    job.write_input(600)
    job.write_expected()
    array = cluster.submit(job, "array.sbatch", "--array=1-3", "--ntasks-per-node=1",
                           arguments=SLOWLY)
    merge = cluster.submit(job, "merge.sbatch", f"--dependency=afterany:{array}")
    part = [f"{job.output}.part-{number}-of-3" for number in range(4)]
    # The last task has the array's number, by which all would be requeued.
    cluster.await_rows(array, job, 10, part[3])
    cluster.ask("scancel", "--signal=USR1", "--batch", f"{array}_3")
    cluster.await_rows(array, job, 10, part[2])
    cluster.ask("scontrol", "requeue", f"{array}_2")
    cluster.await_rows(array, job, 10, part[1])
    cluster.ask("scancel", f"{array}_1")

    cluster.await_end(merge)
    check(cluster.restarts(array) == 2, "two tasks were requeued, the cancelled one not",
          cluster.field(array, "Restarts"))
    check("part-1-of-3 is missing" in cluster.log(merge) and "part-3-" not in cluster.log(merge),
          "the merge says which part is missing", cluster.log(merge))
    check(not job.output.exists(), "and joins nothing")

    command = re.search(r"to go on: PARTS=(\d+) sbatch (\S+) (\S+)", cluster.log(merge))
    check(command and command.group(3) == str(SCRIPTS / "array.sbatch"), "and how to go on",
          cluster.log(merge))
    array = cluster.submit(job, "array.sbatch", command.group(2), "--ntasks-per-node=1",
                           PARTS=command.group(1))
    merge = cluster.submit(job, "merge.sbatch", f"--dependency=afterany:{array}")
    cluster.check_completed(merge)
    job.check_answers()


def test_plan(cluster, job):
    """What penstock plan --sbatch writes: Slurm takes it for a model on GPUs, and a small job by it
    comes to its end."""
    def plan(model, script, *options):
        subprocess.run([job.program, "plan", model, "--sbatch", script, "--scripts", SCRIPTS,
                        "--cpus-per-task", "1", *options], check=True)

    model = cluster.work / "llama.h5"
    subprocess.run([job.program, "synth", "llama-3.1-70b", model, "--no-data"], check=True)
    machine = cluster.work / "machine.json"
    machine.write_text('{"device": "h100-sxm", "devices_per_node": 2}')
    script = cluster.work / "large.sbatch"
    plan(model, script, "--machine", machine, "--devices", "4", "--stages", "4", "--prompt", "100",
         "--generate", "20", "--records", "1000")
    said = cluster.ask("sbatch", "--test-only", script, stderr=subprocess.STDOUT, **job.variables())
    check(re.search(r"Job \d+ to start at .* using 4 processors on nodes node\[1-2\]", said),
          "sbatch --test-only takes it, on both nodes", said, script.read_text())

    job.write_input(64)
    job.write_expected()
    script = cluster.work / "small.sbatch"
    plan(MODEL, script, "--machine", "cpu-node", "--stages", "2", "--replicas", "1", "--input",
         job.input, "--output", job.output)
    number = cluster.submit(job, script)
    cluster.check_completed(number)
    check(re.search(r" 0 +node1 .*\n.* 1 +node2 ", cluster.log(number)), "a stage on each node",
          cluster.log(number))
    check("cut by --layers" in cluster.log(number), "with the layers of the plan",
          cluster.log(number))
    job.check_answers()


CASES = {name.removeprefix("test_"): value for name, value in list(globals().items())
         if name.startswith("test_")}


def run(function, folder, program):
    say(function.__doc__)
    with Cluster(folder) as cluster:
        function(cluster, Job(folder, program))


if __name__ == "__main__":
    need_programs("slurmctld", "slurmd", "munged", "sbatch", "ip", "nsenter")
    run_case(CASES, __doc__, run)
