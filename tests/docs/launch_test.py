"""The scripts in launch/ on machines with and without what CUDA needs, which are made of a copy and of stand-ins.

Run as `python3 launch_test.py SOURCE_FOLDER`.
"""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

SOURCE = ""


class Launch(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp(prefix="orrery-launch-test-")
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        for name in ("deps.sh", "quickstart.sh", "test.sh"):
            os.makedirs(os.path.join(self.root, "launch"), exist_ok=True)
            shutil.copy(os.path.join(SOURCE, "launch", name), os.path.join(self.root, "launch"))
        self.says("bin/cmake", "cmake version 3.25.1")
        self.says("bin/dpkg", "Status: install ok installed")
        self.says("bin/mpirun", "mpirun $*")
        self.says("bin/nvcc", "Cuda compilation tools, release 12.4, V12.4.99")
        self.says("bin/nvidia-smi", "GPU 0: a stand-in")
        self.says("tests/data/unpack.sh", "unpacked")
        self.says("build/cuda/orrery", "orrery $*")

    def says(self, name, text, code=0):
        """A program that prints the text, in which $* are its arguments, and ends with the code."""
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\necho "{text}"\nexit {code}\n')
        os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)

    def run_script(self, *words, **variables):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("ORRERY_")}
        environment.update({"PATH": os.path.join(self.root, "bin") + os.pathsep + environment["PATH"],
                            "CUDACXX": os.path.join(self.root, "bin/nvcc"), **variables})
        return subprocess.run(["bash", *words], cwd=self.root, env=environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60)

    def refused(self, result, *words):
        self.assertEqual(result.returncode, 2, result.stdout + result.stderr)
        self.assertEqual(result.stdout, "")  # nothing was installed or built
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)

    def test_without_a_cuda_compiler_both_scripts_refuse(self):
        for script, variables in ((["launch/quickstart.sh", "--device", "cuda"], {}),
                                  (["launch/quickstart.sh", "--device=cuda"], {}),
                                  (["launch/quickstart.sh"], {"ORRERY_PRESET": "cuda"}),
                                  (["launch/test.sh"], {"ORRERY_PRESET": "cuda"})):
            self.refused(self.run_script(*script, CUDACXX="/nowhere/nvcc", **variables), "/nowhere/nvcc", "12.4", "CUDACXX")

    def test_an_old_cuda_compiler_is_refused(self):
        self.says("bin/nvcc", "Cuda compilation tools, release 11.8, V11.8.89")
        self.refused(self.run_script("launch/quickstart.sh", "--device", "cuda"), "CUDA 11.8", "12.4")

    def test_without_a_device_the_quickstart_refuses(self):
        self.says("bin/nvidia-smi", "No devices were found", code=6)
        self.refused(self.run_script("launch/quickstart.sh", "--device", "cuda"), "no CUDA device")

    def test_on_cuda_ranks_are_threads_and_on_cpus_processes(self):
        cuda = self.run_script("launch/quickstart.sh", "--device", "cuda")
        self.assertEqual(cuda.returncode, 0, cuda.stderr)
        self.assertIn("orrery run --ranks 4", cuda.stdout.splitlines()[-1])
        self.assertIn("--device cuda", cuda.stdout.splitlines()[-1])
        cpu = self.run_script("launch/quickstart.sh", CUDACXX="/nowhere/nvcc")
        self.assertEqual(cpu.returncode, 0, cpu.stderr)
        self.assertIn("-n 4", cpu.stdout.splitlines()[-1])
        self.assertIn("build/release/orrery run", cpu.stdout.splitlines()[-1])


if __name__ == "__main__":
    SOURCE = os.path.abspath(sys.argv.pop(1))
    unittest.main()
