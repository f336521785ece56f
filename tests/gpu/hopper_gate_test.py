#!/usr/bin/env python3
"""The gate on the Hopper kernels can close: compilers that complain, kernels that differ, a kernel that serialises.

Run as `python3 hopper_gate_test.py NVCC [unittest options]`.
"""

import os
import stat
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)
import hopper_gate  # noqa: E402

NVCC = sys.argv.pop(1)

LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN6orrery7kernels4cuda4sm9014forward_kernelI6__halfEEvNS2_1AE' for 'sm_90a'
ptxas info    : Function properties for _ZN6orrery7kernels4cuda4sm9014forward_kernelI6__halfEEvNS2_1AE
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 9 barriers, 1 bytes smem
ptxas info    : Compile time = 900.0 ms
ptxas info    : Compiling entry function '_Z5plainPf' for 'sm_90a'
ptxas info    : Function properties for _Z5plainPf
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 20 registers
"""
SERIALISED = ("ptxas info    : (C7512) Potential Performance Loss: wgmma.mma_async instructions are serialized due to "
              "insufficient register resources for the wgmma pipeline in the function 'k'\n")
SAID = {"registers": 168, "barriers": 9, "stack": 0, "spill_stores": 0, "spill_loads": 0}

# Products whose sums are touched before they are awaited.
TOUCHED = """
#include "kernels/cuda/sm90/ptx.cuh"
using namespace orrery::kernels::cuda::sm90;
__global__ void touched(float* out, int steps) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  const auto at = depth_along_rows(orrery::kernels::cuda::shared_address(bytes));
  float sums[32] = {};
  for (int step = 0; step < steps; ++step) {
    wgmma_fence();
    Wgmma<__half, 64>::shared(sums, at, at, true);
    wgmma_commit();
    AWAITED;
    for (float& sum : sums) sum *= 2.0f;
  }
  wgmma_wait<0>();
  for (int i = 0; i < 32; ++i) out[32 * threadIdx.x + i] = sums[i];
}
"""


class Launcher(unittest.TestCase):
    """cmake/ptxas_gate.py around compilers that say what a test wants."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="orrery-hopper-gate-")
        self.addCleanup(folder.cleanup)
        self.object = os.path.join(folder.name, "kernel.cu.o")
        self.compiler = os.path.join(folder.name, "compiler")

    def compile(self, command):
        gate = [sys.executable, "-B", os.path.join(ROOT, "cmake/ptxas_gate.py")]
        return subprocess.run(gate + command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def compile_saying(self, text, code=0):
        with open(self.compiler, "w", encoding="utf-8") as script:
            script.write(f"#!/bin/sh\ncat >&2 << 'END'\n{text}END\necho object > \"$3\"\nexit {code}\n")
        os.chmod(self.compiler, os.stat(self.compiler).st_mode | stat.S_IXUSR)
        return self.compile([self.compiler, "-c", "-o", self.object])

    def test_what_ptxas_says_is_kept_and_not_shown(self):
        done = self.compile_saying(LOG + "kernel.cu(3): warning #177-D: a variable is not used\n")
        self.assertEqual((done.returncode, done.stdout), (0, "kernel.cu(3): warning #177-D: a variable is not used\n"))
        with open(self.object + ".ptxas", encoding="utf-8") as log:
            self.assertEqual(log.read(), LOG)
        self.assertTrue(os.path.exists(self.object))

    def test_serialised_products_are_an_error(self):
        for number in ("C7508", "C7510", "C7512"):
            done = self.compile_saying(LOG + SERIALISED.replace("C7512", number))
            self.assertEqual(done.returncode, 1)
            self.assertIn(number, done.stdout)
            self.assertFalse(os.path.exists(self.object), "make must not take it for built")

    def test_the_compilers_own_errors_pass(self):
        done = self.compile_saying("ptxas error   : Registers are spilled\n", 255)
        self.assertEqual((done.returncode, done.stdout), (255, "ptxas error   : Registers are spilled\n"))

    def test_a_kernel_that_serialises_is_found(self):
        if not os.path.exists(NVCC):
            self.skipTest("no CUDA compiler is here")
        for awaited, code in (("", 1), ("wgmma_wait<0>(), keep(sums)", 0)):
            source = os.path.join(os.path.dirname(self.object), "kernel.cu")
            with open(source, "w", encoding="utf-8") as file:
                file.write(TOUCHED.replace("AWAITED", awaited))
            done = self.compile([NVCC, "-std=c++20", "-gencode", "arch=compute_90a,code=sm_90a", "-Xptxas=-v", "-I",
                                 os.path.join(ROOT, "src"), "-I", os.path.join(ROOT, "include"), "-c", source, "-o",
                                 self.object])
            self.assertEqual(done.returncode, code, done.stdout)
            self.assertEqual(len(hopper_gate.read_objects([self.object], None)), 1)


class Numbers(unittest.TestCase):
    def test_logs_are_read(self):
        kernels = hopper_gate.read_log(LOG)
        self.assertEqual(list(map(hopper_gate.base_name, kernels)), ["forward_kernel", "plain"])
        self.assertEqual(list(kernels.values()), [SAID, {"registers": 20, "barriers": 0, "stack": 8, "spill_stores": 4,
                                                         "spill_loads": 12}])
        with self.assertRaises(ValueError):
            hopper_gate.read_log(LOG.replace("Used 20 registers", ""))

    def test_products_are_counted(self):
        code = ("\tcode for sm_90a\n\t\tFunction : _Z5plainPf\n  /*0010*/ HGMMA.64x64x16.F32 R24, gdesc[UR4] ;\n"
                "  /*0020*/ STL [R1], R2 ;\n  HGMMA.64x64x16.F32 R24, R4, gdesc[UR4] ;\n\t\tFunction : _Z5otherPf\n RET ;\n")
        self.assertEqual(hopper_gate.read_code(code),
                         {"_Z5plainPf": {"hgmma": 2, "local": 1, "hidden_powers": 0},
                          "_Z5otherPf": {"hgmma": 0, "local": 0, "hidden_powers": 0}})

    def test_powers_that_products_hide_are_counted(self):
        wait, power = "WARPGROUP.DEPBAR.LE gsb0, 0x{} ;\n", "MUFU.EX2 R4, R4 ;\n"
        code = "".join(["\t\tFunction : k\n", power, wait.format(1), 2 * power, wait.format(0), 4 * power, wait.format(2),
                        power])
        self.assertEqual(hopper_gate.read_code(code)["k"]["hidden_powers"], 3)

    def compare(self, recorded, built, compiler="nvcc 1"):
        return hopper_gate.compare({"compiler": "nvcc 1", "kernels": recorded}, built, compiler)

    def test_every_number_counts(self):
        numbers = {**SAID, "hgmma": 24, "local": 0, "hidden_powers": 32}
        self.assertEqual(self.compare({"a/k": numbers}, {"a/k": numbers}), [])
        self.assertEqual(self.compare({"a/k": numbers}, {"a/k": SAID}), [], "not counted here")
        for what in numbers:
            other = {**numbers, what: numbers[what] + 1}
            self.assertEqual(len(self.compare({"a/k": numbers}, {"a/k": other})), 1, what)

    def test_another_compiler_may_count_otherwise_and_not_spill(self):
        self.assertEqual(self.compare({"a/k": SAID}, {"a/k": {**SAID, "registers": 160}}, "nvcc 2"), [])
        self.assertEqual(len(self.compare({"a/k": SAID}, {"a/k": {**SAID, "spill_loads": 4}}, "nvcc 2")), 1)

    def test_under_another_compiler_too_products_hide_powers(self):
        for powers, wrong in ((20, 0), (0, 1)):
            found = self.compare({"a/k": {"hidden_powers": 32}}, {"a/k": {"hidden_powers": powers}}, "nvcc 2")
            self.assertEqual(len(found), wrong)
        self.assertEqual(self.compare({"a/k": {"hidden_powers": 0}}, {"a/k": {"hidden_powers": 0}}, "nvcc 2"), [])

    def test_kernels_are_neither_lost_nor_added_in_silence(self):
        self.assertEqual(len(self.compare({"a/k": SAID}, {"b/k": SAID}, "nvcc 2")), 2)


if __name__ == "__main__":
    unittest.main()
