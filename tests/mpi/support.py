"""What the tests of the program share: starting it alone or under mpirun, and reading and writing safetensors.

Only the standard library is used. A test is run as `python3 TOPIC_test.py PROGRAM MPIEXEC [unittest options]`.
"""

import array
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

PROGRAM = ""
MPIEXEC = ""
SECONDS = 120  # no command of a test takes longer

# Ranks share the machine's cores, so they must yield while they wait; and a failed job needs no second of grace.
MPI_FLAGS = ["--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1",
             "--mca", "odls_base_sigkill_timeout", "0"]
TCP_FLAGS = ["--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", "lo"]


def environment(extra=None):
    """The caller's environment without what would change Orrery's behaviour or reveal an outer MPI job; what a site sets
    for its MPI stays."""
    kept = {name: value for name, value in os.environ.items()
            if name.startswith("OMPI_MCA_") or
            not (name.startswith(("ORRERY_", "OMPI_", "PMIX_", "PMI_", "SLURM_")) or name in ("RANK", "WORLD_SIZE"))}
    kept.update({"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"})
    kept.update(extra or {})
    return kept


def alone(*arguments, **options):
    """Runs `orrery ARGUMENTS` in one process."""
    options.setdefault("env", environment())
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=SECONDS, **options)


def mpi_command(ranks, *arguments, flags=()):
    return [MPIEXEC, *MPI_FLAGS, *flags, "-n", str(ranks), PROGRAM, *map(str, arguments)]


def mpi(ranks, *arguments, flags=(), **options):
    """Runs `orrery ARGUMENTS` as `ranks` MPI processes."""
    options.setdefault("env", environment())
    return subprocess.run(mpi_command(ranks, *arguments, flags=flags), capture_output=True, text=True, timeout=SECONDS,
                          **options)


def said(result):
    """The lines that Orrery itself put on standard error; mpirun adds its own."""
    return [line for line in result.stderr.splitlines() if line.startswith("orrery: ")]


def write_safetensors(path, tensors):
    """`tensors`: name -> (dtype, shape, bytes)."""
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def read_safetensors(path):
    """name -> (dtype, shape, bytes)."""
    with open(path, "rb") as file:
        content = file.read()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + length])
    data = content[8 + length:]
    return {name: (info["dtype"], info["shape"], data[slice(*info["data_offsets"])])
            for name, info in header.items() if name != "__metadata__"}


def floats(content):
    return array.array("f", content)


def f32(shape, value):
    """A tensor of `shape` whose element i is value(i)."""
    count = 1
    for extent in shape:
        count *= extent
    return ("F32", list(shape), array.array("f", (value(i) for i in range(count))).tobytes())


class ProgramTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="orrery-test-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def files(self):
        return sorted(os.listdir(self.folder))

    def assert_good(self, result):
        self.assertEqual(result.returncode, 0, result.stderr + result.stdout)

    def assert_refused(self, result, *fragments, code=2):
        """One line on standard error with all fragments in it, nothing on standard output, and the exit code."""
        self.assertEqual(result.returncode, code, result.stderr + result.stdout)
        lines = said(result)
        self.assertEqual(len(lines), 1, result.stderr)
        for fragment in fragments:
            self.assertIn(fragment, lines[0])
        self.assertEqual(result.stdout, "")


def main():
    global PROGRAM, MPIEXEC
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} PROGRAM MPIEXEC [unittest options]")
    PROGRAM, MPIEXEC = os.path.abspath(sys.argv[1]), sys.argv[2]
    unittest.main(module="__main__", argv=[sys.argv[0], *sys.argv[3:]])
