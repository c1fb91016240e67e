"""What happens to an attempt. Each kind of weather waits for a random instant and strikes; it says
what it did, and which ends are right."""

import os
import resource
import signal

from processes import ChaosError, POLL_SECONDS

AGAIN = 75


class Outcome:
    """How an attempt may end."""

    def __init__(self, told, codes=None, must_say=None):
        self.told = told
        self.codes = codes  # besides those of a job that is done; None: any
        self.must_say = must_say  # one of these, with exit code 1
        self.too_late = ()  # codes of a job whose work is over, as the state says


class Weather:
    def __init__(self, attempt, rng, folder, expected_seconds, disk, start_rival):
        self.attempt, self.rng, self.folder = attempt, rng, folder
        self.expected_seconds = expected_seconds
        self.disk = disk  # folder of a small file system, or None
        self.start_rival = start_rival
        self.struck = None  # seconds after the attempt's start

    def wait_for_an_instant(self):
        """Returns when it is, in words; None if the attempt ended before."""
        kind = self.rng.choice(["time", "time", "time", "rows", "rows", "start", "merge"])
        if kind == "time":
            seconds = self.rng.uniform(0, self.expected_seconds)
            words, ready = f"after {seconds:.3f} s", lambda: self.attempt.seconds() > seconds
        elif kind == "rows":
            share = self.rng.random()
            have = self.folder.size()
            size = have + share * max(0, len(self.folder.reference) - have)
            words, ready = f"with {share:.0%} of the rows left", lambda: self.folder.size() > size
        elif kind == "start":
            words, ready = "when ranks start", lambda: self.attempt.ranks()
        else:
            words, ready = "at the merge", self.folder.merging
        # A merge is over in a millisecond.
        if not self.attempt.sleep_until(ready, 0 if kind == "merge" else POLL_SECONDS):
            return None
        if kind == "merge" and self.rng.random() < 0.7:
            return words
        if kind != "time":
            pause = self.rng.uniform(0, 0.02 if kind == "merge" else 0.3)
            end = self.attempt.seconds() + pause
            if not self.attempt.sleep_until(lambda: self.attempt.seconds() > end):
                return None
            words += f" and {pause:.3f} s"
        return words

    def strike(self, kind):
        """Waits for an instant, and for the attempt to have seen what happens then."""
        if kind in ("calm", "time limit"):
            return Outcome(kind, [AGAIN] if kind == "time limit" else [])
        when = self.wait_for_an_instant()
        if when is None:
            return Outcome(f"{kind}, but it ended before", [])
        outcome = getattr(self, kind.replace(" ", "_"))()
        outcome.told += f" {when}"
        self.struck = self.attempt.seconds()
        if kind in ("pause", "rival") and self.rng.random() < 0.7:
            then = self.strike(self.rng.choice(["kill", "usr", "terminate"]))
            then.told = f"{outcome.told}; {then.told}"
            return then
        return outcome

    def targets(self):
        """One process or several: a rank, the launcher, or all of them in any order."""
        ranks = self.attempt.ranks()
        names = [f"rank {i}" for i in range(len(ranks))]
        if self.attempt.launched:
            ranks.append(self.attempt.launcher)
            names.append("mpirun")
        if not ranks:
            return [], "nothing"
        kind = self.rng.random()
        if kind < 0.5:
            i = self.rng.randrange(len(ranks))
        elif kind < 0.75:
            i = len(ranks) - 1
        else:
            self.rng.shuffle(ranks)
            return ranks, "all processes"
        return [ranks[i]], names[i]

    def kill(self):
        targets, name = self.targets()
        for one in targets:
            one.signal(signal.SIGKILL)
        outcome = Outcome(f"SIGKILL of {name}")
        if name == "mpirun" and self.rng.random() < 0.5:
            # Started again while the ranks still live.
            outcome.told += f" and {self.rival().told}"
        return outcome

    def _drain(self, number, name):
        targets, target = self.targets()
        # Signals are not taken while MPI starts and ends.
        heard = all(one.catches(number) for one in targets + self.attempt.ranks())
        for one in targets:
            one.signal(number)
        outcome = Outcome(f"{name} to {target}{'' if heard else ', which does not take it'}")
        outcome.too_late = (-number, 128 + number)
        return heard, outcome

    def usr(self):
        number = self.rng.choice([signal.SIGUSR1, signal.SIGUSR2])
        heard, outcome = self._drain(number, number.name)
        if heard:
            outcome.codes = [AGAIN]
        return outcome

    def terminate(self):
        number = self.rng.choice([signal.SIGTERM, signal.SIGINT])
        heard, outcome = self._drain(number, number.name)
        # mpirun gives its ranks little time, and then has a code of its own.
        if heard and not self.attempt.launched:
            outcome.codes = [AGAIN]
        return outcome

    def interrupt_twice(self):
        heard, outcome = self._drain(signal.SIGINT, "SIGINT twice")
        pause = self.rng.uniform(0, 0.2)
        end = self.attempt.seconds() + pause
        if self.attempt.sleep_until(lambda: self.attempt.seconds() > end):
            for one in self.attempt.ranks():
                one.signal(signal.SIGINT)
        if heard and not self.attempt.launched:
            outcome.codes = [AGAIN]
        return outcome

    def pause(self):
        """Stopped and continued in any order, longer than the watchdog if all are stopped."""
        targets, name = self.targets()
        seconds = self.rng.uniform(0.05, 4 if name == "all processes" else 1)
        for one in targets:
            one.signal(signal.SIGSTOP)
        end = self.attempt.seconds() + seconds
        self.attempt.sleep_until(lambda: self.attempt.seconds() > end)
        self.rng.shuffle(targets)
        for one in targets:
            one.signal(signal.SIGCONT)
        return Outcome(f"{name} stopped for {seconds:.2f} s", [])

    def hang(self):
        """A rank that never comes back, for the watchdog to find."""
        ranks = self.attempt.ranks()
        # Nobody watches before MPI has started.
        if len(ranks) < 2 or not all(one.catches(signal.SIGUSR1) for one in ranks):
            return self.kill()
        i = self.rng.randrange(len(ranks))
        ranks[i].signal(signal.SIGSTOP)
        return Outcome(f"rank {i} stopped for good")

    def full_disk(self):
        if self.disk is None:
            return self.file_limit()
        spare = self.rng.choice([0, 0, 4096, 16384])
        ballast = os.path.join(self.disk, "ballast")
        with open(ballast, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                pass
            size = max(0, file.tell() - spare)
            file.truncate(size)
        return Outcome(f"disk full but for {spare} bytes", [1], ["No space left on device"])

    def file_limit(self):
        """No file of the driver may grow beyond some size."""
        ranks = self.attempt.ranks()
        if not ranks:
            return Outcome("nothing")
        # The log of the attempt is a file, too.
        size = max(16384, self.folder.size() + self.rng.choice([0, 1, 100, 5000]))
        try:
            _, hard = resource.prlimit(ranks[0].pid, resource.RLIMIT_FSIZE)
            resource.prlimit(ranks[0].pid, resource.RLIMIT_FSIZE, (size, hard))
        except OSError:  # it has ended
            pass
        # Where SIGXFSZ is not ignored, as under mpirun, it may end the process.
        codes = [1] if ranks[0].ignores(signal.SIGXFSZ) else None
        return Outcome(f"no file beyond {size} bytes", codes, ["File too large"])

    def rival(self):
        """A second job on the same output is refused, or finds the work done."""
        rival = self.start_rival()
        try:
            code = rival.wait(60)
            rival.wait_for_orphans(10)
        finally:
            rival.end()
        words = rival.output()
        if code not in (0, 1, 2) or code == 1 and "another job works on" not in words:
            raise ChaosError(f"a second job on the same output: exit code {code}: {words}")
        return Outcome(f"a rival (exit code {code})", [])


KINDS = {"calm": 1, "kill": 8, "usr": 4, "terminate": 4, "interrupt twice": 1, "time limit": 2,
         "pause": 3, "hang": 1, "full disk": 3, "file limit": 1, "rival": 1}
