"""A launcher whose ranks MPI does not know of starts several worlds of one, which would all write the same files: each refuses,
and says what to do. A process that merely stands in an allocation runs."""

import support
from support import alone, environment, mpi

RUN = ["run", "--seq-len", 64]

# Variables as a launcher leaves them to one of its ranks, and what the line must say.
UNHEARD = [
    ({"PMI_SIZE": "4", "PMI_RANK": "1"}, ["rank 1 of 4", "PMI_SIZE", "1 rank", "mpirun"]),
    ({"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "2"}, ["rank 2 of 3", "1 rank", "mpirun"]),
    ({"WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0"}, ["torchrun", "rank 0 of 4", "mpirun"]),
    ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"},
     ["srun", "rank 0 of 4", "--mpi=pmix"]),
    ({"SLURM_NTASKS": "4", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}, ["srun", "rank 0 of 4"]),
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "3"}, ["srun", "rank 3 of 4"]),
]

# Not ranks of several.
SOLO = [
    {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},  # a batch script
    {"SLURM_NTASKS": "4", "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},  # salloc
    {"WORLD_SIZE": "4"},
    {"RANK": "x", "WORLD_SIZE": "many"},
    {"WORLD_SIZE": "1", "RANK": "0"},
]


class Launchers(support.ProgramTest):
    def test_ranks_that_mpi_does_not_know_of_are_refused(self):
        for variables, fragments in UNHEARD:
            for verb in (RUN + ["--out", self.path("out")], ["check", "--json", self.path("json")]):
                with self.subTest(variables=variables, verb=verb[0]):
                    self.assert_refused(alone(*verb, env=environment(variables)), *fragments, "--launcher none")
        self.assertEqual(self.files(), [])

    def test_a_process_that_was_told_to_runs_alone(self):
        for variables, _ in UNHEARD:
            with self.subTest(variables):
                self.assert_good(alone(*RUN, "--launcher", "none", env=environment(variables)))
        variables = UNHEARD[0][0] | {"ORRERY_LAUNCHER": "none"}
        self.assert_good(alone(*RUN, env=environment(variables)))
        self.assert_refused(alone(*RUN, "--launcher", "auto", env=environment(variables)), "rank 1 of 4")

    def test_a_process_in_an_allocation_runs(self):
        for variables in SOLO:
            with self.subTest(variables):
                self.assert_good(alone(*RUN, env=environment(variables)))

    def test_help_is_for_everybody(self):
        self.assert_good(alone("run", "--help", env=environment({"WORLD_SIZE": "4", "RANK": "0"})))

    def test_the_nearest_launcher_counts(self):
        result = mpi(2, *RUN, env=environment({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1", "SLURM_STEP_ID": "0"}))
        self.assert_good(result)


if __name__ == "__main__":
    support.main()
