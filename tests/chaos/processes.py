"""Starts a job and knows all of its processes, also those that lost their parent."""

import ctypes
import os
import signal
import time

POLL_SECONDS = 0.002
MARK = "CHAOS_ATTEMPT"  # in the environment of an attempt's processes


class ChaosError(Exception):
    """A promise of the program was broken."""


def become_subreaper():
    """Processes whose parent died become children of this one, so that none can get lost."""
    pr_set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def read_proc(pid, name):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:  # it has ended
        return b""


class Process:
    """Stays the same process when its id is used again: by its time of start."""

    def __init__(self, pid, stat):
        self.pid = pid
        self.state, self.parent = stat[0], int(stat[1])
        self.born = stat[19]

    def environment(self, name):
        for setting in read_proc(self.pid, "environ").split(b"\0"):
            if setting.startswith(name.encode() + b"="):
                return setting[len(name) + 1:].decode()
        return None

    def _has_signal(self, field, number):
        for line in read_proc(self.pid, "status").splitlines():
            if line.startswith(field):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
        return False

    def catches(self, number):
        return self._has_signal(b"SigCgt:", number)

    def ignores(self, number):
        return self._has_signal(b"SigIgn:", number)

    def __eq__(self, other):
        return (self.pid, self.born) == (other.pid, other.born)

    def signal(self, number):
        """Returns False if it has ended already."""
        now = process(self.pid)
        if now is None or now.born != self.born:
            return False
        os.kill(self.pid, number)
        return True


def process(pid):
    text = read_proc(pid, "stat")
    if not text:
        return None
    stat = text[text.rindex(b")") + 2:].split()
    return None if stat[0] in (b"Z", b"X") else Process(pid, stat)


def living_descendants():
    found = [process(int(name)) for name in os.listdir("/proc") if name.isdigit()]
    children = {}
    for one in found:
        if one is not None:
            children.setdefault(one.parent, []).append(one)
    living, parents = [], [os.getpid()]
    while parents:
        for child in children.get(parents.pop(), []):
            living.append(child)
            parents.append(child.pid)
    return living


class Attempt:
    """One start of the command. Polls instead of waiting, as it also has to collect orphans."""

    statuses = {}  # of all children that ended, by process id

    def __init__(self, name, command, environment, log):
        self.name, self.program, self.log = name, command[-1][0], log
        self.begun = time.monotonic()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        words = [word for part in command for word in part]
        # SIGXFSZ stays ignored, as Python has it: a file that is too large is an error then.
        self.pid = os.posix_spawnp(
            words[0], words, {**environment, MARK: name},
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                          (os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)],
            setsid=True, setsigdef=[signal.SIGPIPE, signal.SIGINT])
        os.close(output)
        Attempt.statuses.pop(self.pid, None)
        self.launcher = process(self.pid)
        self.launched = len(command) > 1

    @staticmethod
    def reap():
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            Attempt.statuses[pid] = os.waitstatus_to_exitcode(status)

    def processes(self):
        return [one for one in living_descendants() if one.environment(MARK) == self.name]

    def ranks(self):
        """The program's processes in the order of their ranks."""
        program = os.path.realpath(self.program)
        found = []
        for one in self.processes():
            try:
                if os.readlink(f"/proc/{one.pid}/exe") != program:
                    continue
            except OSError:
                continue
            found.append((int(one.environment("OMPI_COMM_WORLD_RANK") or 0), one))
        return [one for _, one in sorted(found, key=lambda item: item[0])]

    def code(self):
        """The exit code (negative: the signal), None while it runs."""
        self.reap()
        return Attempt.statuses.get(self.pid)

    def seconds(self):
        return time.monotonic() - self.begun

    def sleep_until(self, condition, poll_seconds=POLL_SECONDS):
        """Polls; returns False if the attempt ended before the condition held."""
        while not condition():
            if self.code() is not None:
                return False
            time.sleep(poll_seconds)
        return self.code() is None

    def wait(self, limit):
        """Returns the exit code."""
        if self.sleep_until(lambda: self.seconds() > limit):
            if self.processes() != [self.launcher] or not self.launched:
                raise ChaosError(f"still running after {limit} s: {self.describe()}")
            # All ranks have ended, and mpirun has not seen it, which is its own affair.
            print(f"mpirun did not end by itself: {self.output()}")
            self.launcher.signal(signal.SIGKILL)
            self.sleep_until(lambda: False)
        return self.code()

    def wait_for_orphans(self, limit):
        """Until the processes that outlived the one that was started are gone, too."""
        ended = time.monotonic()
        while True:
            self.reap()
            left = self.processes()
            if not left:
                return
            if time.monotonic() > ended + limit:
                raise ChaosError(f"ended, but left processes behind: {self.describe()}")
            time.sleep(0.01)

    def describe(self):
        return "; ".join(f"{one.pid} {one.state.decode()} {read_proc(one.pid, 'wchan').decode()} "
                         f"{read_proc(one.pid, 'cmdline').decode().replace(chr(0), ' ')[:60]}"
                         for one in self.processes())

    def end(self):
        for _ in range(100):
            left = self.processes()
            for one in left:
                one.signal(signal.SIGKILL)
            self.reap()
            if not left:
                return
            time.sleep(0.02)

    def output(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()
