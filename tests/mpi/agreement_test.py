"""Ranks that were started with different arguments fail together, at once, and one of them says what differs."""

import support
from support import MPI_FLAGS, environment


def mpi_each(*commands, variables=()):
    """One rank for each list of arguments, in which rank 0 has these variables too."""
    words = [support.MPIEXEC, *MPI_FLAGS]
    for index, arguments in enumerate(commands):
        words += [":"] if index else []
        words += ["-n", "1", *(["env", *variables] if index == 0 else []), support.PROGRAM, *map(str, arguments)]
    return support.subprocess.run(words, capture_output=True, text=True, timeout=support.SECONDS, env=environment())


class Agreement(support.ProgramTest):
    def test_different_arguments(self):
        small = ["run", "--seq-len", 64]
        for other, fragments in [(["run", "--seq-len", 128], ["--seq-len 64", "--seq-len 128", "rank 1"]),
                                 (["run", "--seq-len", 64, "--backward"], ["--backward", "rank 1"]),
                                 (["bench", "--seq-len", 64], ["orrery run", "orrery bench"]),
                                 (["run", "--seq-len", 64, "--orbit"], ["rank 1", "--orbit"]),
                                 (["--help"], ["orrery run", "orrery --help"])]:
            with self.subTest(other):
                self.assert_refused(mpi_each(small, other), *fragments)
                self.assert_refused(mpi_each(other, small), *[f for f in fragments if f != "rank 1"])

    def test_one_of_four(self):
        same = ["run", "--mask", "causal"]
        self.assert_refused(mpi_each(same, same, ["run", "--mask", "full"], same), "--mask causal", "--mask full", "rank 2")

    def test_an_input_that_one_rank_cannot_read(self):
        """Rank 1 finds no directory for its files; all ranks hear of it."""
        support.write_safetensors(self.path("in"), {name: support.f32([6, 1, 4], float) for name in "qkv"})
        words = ["run", *[word for name in ("query", "key", "value") for word in (f"--{name}", "in")]]
        command = [support.MPIEXEC, *MPI_FLAGS, "-n", "1", "-wdir", self.folder, support.PROGRAM, *words, ":", "-n", "1",
                   "-wdir", "/", support.PROGRAM, *words]
        result = support.subprocess.run(command, capture_output=True, text=True, timeout=support.SECONDS,
                                        env=environment())
        self.assert_refused(result, "rank 1", "in")

    def test_different_variables(self):
        same = ["run", "--seq-len", 64]
        for variable, fragments in [("ORRERY_CHECK=1", ["'ORRERY_CHECK=1'", "rank 1 with 'ORRERY_CHECK=0'"]),
                                    ("ORRERY_TIMEOUT_SECONDS=7", ["ORRERY_TIMEOUT_SECONDS=7", "=300"]),
                                    ("ORRERY_KERNELS=portable", ["ORRERY_KERNELS=portable", "=best"]),
                                    ("ORRERY_CHECK=maybe", ["rank 0: ORRERY_CHECK='maybe'"])]:
            with self.subTest(variable):
                self.assert_refused(mpi_each(same, same, variables=[variable]), *fragments)

    def test_variables_that_say_the_same(self):
        same = ["run", "--seq-len", 64]
        self.assert_good(mpi_each(same, same, variables=["ORRERY_CHECK=0", "ORRERY_THREADS=2"]))

    def test_threads_may_differ(self):
        result = mpi_each(["run", "--seq-len", 64], ["run", "--seq-len", 64, "--threads", 2])
        self.assert_good(result)


if __name__ == "__main__":
    support.main()
