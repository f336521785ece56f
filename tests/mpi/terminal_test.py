"""What the program says beside its results: on a terminal a line for what takes long, wiped at the end, and in a pipe none; and notes
on threads that have no cores."""

import json
import os
import pty
import subprocess

import support
from support import alone, environment, mpi, said

SMALL = ["run", "--seq-len", 512, "--heads", 2, "--verify", "none"]


class Terminal(support.ProgramTest):
    @classmethod
    def setUpClass(cls):
        """A run of four seconds, whatever the build and the machine."""
        probe = alone(*SMALL, "--repeat", 50, "--json", "-")
        seconds = json.loads(probe.stdout)["measured"]["forward_seconds"]["median"]
        cls.long = [*SMALL, "--repeat", int(4 / seconds) + 1]

    def on_a_terminal(self, *arguments):
        """Its exit code, and what came to the terminal that was its standard error."""
        screen, terminal = pty.openpty()
        process = subprocess.Popen([support.PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=terminal,
                                   env=environment())
        os.close(terminal)
        shown = b""
        while True:
            try:
                block = os.read(screen, 4096)
            except OSError:  # nobody writes any more
                break
            if not block:
                break
            shown += block
        os.close(screen)
        process.communicate(timeout=support.SECONDS)
        return process.returncode, shown.decode()

    def test_what_takes_long_says_so_on_a_terminal(self):
        code, shown = self.on_a_terminal(*self.long)
        self.assertEqual(code, 0)
        self.assertRegex(shown, r"\r\x1b\[Krun \d+ of \d+, last [^,]+, 2 s")
        self.assertTrue(shown.endswith("\r\x1b[K"), repr(shown))

    def test_what_is_soon_over_says_nothing(self):
        self.assertEqual(self.on_a_terminal("run", "--seq-len", 64), (0, ""))

    def test_a_pipe_gets_nothing(self):
        result = alone(*self.long)
        self.assert_good(result)
        self.assertEqual(result.stderr, "")

    def test_threads_without_cores_get_a_note(self):
        cores = len(os.sched_getaffinity(0))
        result = alone("run", "--seq-len", 64, "--ranks", 2, "--threads", cores)
        self.assert_good(result)
        self.assertEqual(said(result), [] if cores == 1 else
                         [f"orrery: note: the 2 ranks of a node compute with {2 * cores} threads on {cores} cores"])
        result = mpi(2, "run", "--seq-len", 64, "--threads", cores + 1)
        self.assert_good(result)
        self.assertEqual(len(said(result)), 1, result.stderr)
        self.assertIn(f"rank 0 computes with {cores + 1} threads", said(result)[0])

    def test_many_ranks_of_one_thread_get_none(self):
        result = alone("run", "--seq-len", 64, "--ranks", 2 * len(os.sched_getaffinity(0)))
        self.assert_good(result)
        self.assertEqual(said(result), [])


if __name__ == "__main__":
    support.main()
