"""Threads, processes and address space that a shell or a container withholds: code 5, and the line says how many were asked for."""

import os
import resource
import unittest

import support
from support import alone

NOBODY = 65534


class Limits(support.ProgramTest):
    def limited(self, limit, value, *arguments, user=None):
        def limits():
            resource.setrlimit(limit, (value, value))
            if user is not None:
                os.setuid(user)
        return alone(*arguments, preexec_fn=limits)

    def test_no_address_space_for_the_threads_of_a_rank(self):
        result = self.limited(resource.RLIMIT_AS, 400_000 << 10, "run", "--ranks", 2, "--threads", 200)
        self.assert_refused(result, "of the 200", "ulimit -v", code=5)

    def test_no_address_space_for_the_ranks(self):
        result = self.limited(resource.RLIMIT_AS, 400_000 << 10, "run", "--ranks", 900, "--seq-len", 900)
        self.assert_refused(result, "of 900", code=5)

    def test_no_address_space_for_the_tensors(self):
        result = self.limited(resource.RLIMIT_AS, 400_000 << 10, "run", "--seq-len", 1 << 20, "--heads", 8)
        self.assert_refused(result, "out of memory", code=5)

    def test_too_few_processes(self):
        """A limit of processes binds no root."""
        user = NOBODY if os.getuid() == 0 else None
        if user is not None and not os.access(support.PROGRAM, os.X_OK):
            raise unittest.SkipTest("nobody may not start the program")
        result = self.limited(resource.RLIMIT_NPROC, 20, "run", "--threads", 100, user=user)
        self.assert_refused(result, "of the 100", "ulimit -u", code=5)


if __name__ == "__main__":
    support.main()
