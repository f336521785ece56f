"""Ranks that are stopped or killed in the middle of a run, with real signals: the job ends in time, with the right code, and
one can read who failed; nothing is left running."""

import json
import os
import signal
import subprocess
import time
import uuid

import support
from support import TCP_FLAGS, alone, environment, mpi_command

RANKS = 4
VICTIM = 2
TIMEOUT = 2.0  # --timeout of the runs
HEADS = 8  # by gather: no rank gets further than two heads past what the victim has sent
RANK_SECONDS = 4.0  # that a rank computes in one run
STRUCK_AT = 0.8  # seconds of its own time after which the victim is past its start and in its first heads


def state_and_cpu_seconds(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return fields[0], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return "gone", 0.0


def processes_of(tag):
    """rank -> pid of the living ranks that were started with this tag in their environment."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                values = dict(entry.split(b"=", 1) for entry in file.read().split(b"\0") if b"=" in entry)
        except OSError:
            continue
        rank = values.get(b"OMPI_COMM_WORLD_RANK")
        if values.get(b"TEST_TAG") == tag.encode() and rank and state_and_cpu_seconds(pid)[0] not in ("Z", "gone"):
            found[int(rank)] = int(pid)
    return found


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.02)


class Failure(support.ProgramTest):
    @classmethod
    def setUpClass(cls):
        """A sequence so long that one pass keeps a rank busy for RANK_SECONDS, whatever the build and the machine."""
        probe = alone("run", "--seq-len", 1024, "--heads", HEADS, "--verify", "none", "--repeat", 15, "--json", "-")
        seconds = json.loads(probe.stdout)["measured"]["forward_seconds"]["median"]
        cls.seq_len = int(1024 * (RANKS * RANK_SECONDS / seconds) ** 0.5)

    def start(self, flags):
        self.tag = uuid.uuid4().hex
        command = mpi_command(RANKS, "run", "--seq-len", self.seq_len, "--heads", HEADS, "--strategy", "gather",
                              "--verify", "none", "--timeout", TIMEOUT, "--out", self.path("out"), flags=flags)
        job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=environment({"TEST_TAG": self.tag}))
        self.addCleanup(self.end, job)
        wait_until(lambda: len(processes_of(self.tag)) == RANKS, 20, "the ranks to start")
        return job

    def end(self, job):
        job.kill()
        job.communicate()
        for pid in processes_of(self.tag).values():
            os.kill(pid, signal.SIGKILL)

    def start_computing(self, flags):
        """A job, and the victim's pid, in the middle of a pass."""
        for _ in range(4):
            job = self.start(flags)
            victim = processes_of(self.tag)[VICTIM]
            wait_until(lambda: state_and_cpu_seconds(victim)[1] > STRUCK_AT or job.poll() is not None, 60,
                       "the rank to compute")
            if job.poll() is None:
                return job, victim
            # Measured on a busy machine, the sequence came out too short.
            self.assertEqual(job.returncode, 0, job.communicate())
            os.remove(self.path("out"))
            type(self).seq_len *= 2
        raise AssertionError("every run was over at once")

    def strike(self, what, flags=()):
        """Sends a signal to one rank while it computes; returns the job's code, its lines and how long it then lived."""
        job, victim = self.start_computing(flags)
        os.kill(victim, what)
        struck = time.monotonic()
        _, errors = job.communicate(timeout=support.SECONDS)
        seconds = time.monotonic() - struck
        wait_until(lambda: not processes_of(self.tag), 3, f"no rank to be left ({processes_of(self.tag)})")
        self.assertEqual(self.files(), [])
        return job.returncode, errors, seconds

    def check_stopped(self, flags):
        code, errors, seconds = self.strike(signal.SIGSTOP, flags)
        self.assertEqual(code, 4, errors)
        self.assertRegex(errors, rf"orrery: .*\[rank \d/{RANKS}\] forward step \d+ exchange.* rank {VICTIM} ")
        # The others first finish what they can do without the victim, of which there is less than a pass.
        self.assertLess(seconds, RANK_SECONDS * RANKS + TIMEOUT)

    def test_a_stopped_rank_over_shared_memory(self):
        self.check_stopped(())

    def test_a_stopped_rank_over_tcp(self):
        self.check_stopped(TCP_FLAGS)

    def test_a_killed_rank_over_shared_memory(self):
        self.check_killed(())

    def test_a_killed_rank_over_tcp(self):
        self.check_killed(TCP_FLAGS)

    def check_killed(self, flags):
        code, errors, seconds = self.strike(signal.SIGKILL, flags)
        self.assertNotEqual(code, 0)
        self.assertIn(f"rank {VICTIM} ", errors)  # the launcher's line: it alone knows
        self.assertIn("Killed", errors)
        self.assertLess(seconds, 5)

    def test_an_interrupted_job_leaves_nothing(self):
        job = self.start(())
        job.send_signal(signal.SIGINT)
        job.communicate(timeout=support.SECONDS)
        self.assertNotEqual(job.returncode, 0)
        wait_until(lambda: not processes_of(self.tag), 5, "no rank to be left")
        self.assertEqual(self.files(), [])


if __name__ == "__main__":
    support.main()
