"""`orrery run` on ranks that are processes and share the CUDA devices there are, over each link between devices: it
verifies, says what it measured, and the links agree to the bit. Skipped where there is no device.

Run as `python3 run_test.py PROGRAM MPIEXEC LINK,LINK... [unittest options]`.
"""

import ctypes
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "mpi"))
import support  # noqa: E402
from support import mpi, read_safetensors  # noqa: E402

LINKS = []
SKIPPED = 77
PROBLEM = ["--seq-len", 4096, "--heads", 8, "--kv-heads", 2, "--head-dim", 128, "--dtype", "bf16", "--backward"]


def devices():
    """How many CUDA devices the driver has; none without a driver."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def on_device(ranks, link, *arguments):
    return mpi(ranks, "run", "--device", "cuda", "--share-device", "--link", link, *PROBLEM, *arguments)


class Run(support.ProgramTest):
    def test_ranks_verify_and_report(self):
        for link in LINKS:
            for ranks in (2, 4):
                with self.subTest(link=link, ranks=ranks):
                    result = on_device(ranks, link, "--strategy", "ring", "--verify", "full", "--json",
                                       self.path("json"))
                    self.assert_good(result)
                    self.assertIn("\nexposed ", result.stdout)
                    with open(self.path("json")) as file:
                        report = json.load(file)
                    self.assertEqual(report["plan"]["world_size"], ranks)
                    self.assertEqual(len(report["plan"]["bytes_sent"]), ranks)
                    self.assertGreater(min(report["plan"]["bytes_sent"]), 0)
                    self.assertGreater(report["measured"]["forward_seconds"]["median"], 0)
                    self.assertGreater(report["measured"]["backward_seconds"]["median"], 0)
                    self.assertGreaterEqual(report["measured"]["exposed_comm_seconds"], 0)
                    self.assertEqual(report["verification"]["mode"], "full")
                    self.assertGreaterEqual(report["verification"]["rows"], 4096)
                    self.assertEqual(report["verification"]["wrong"], 0)
                    self.assertLess(report["verification"]["out_rel_l2"], 1e-2)

    def test_blocks_one_by_one_and_together(self):
        """Ranks that share a device take blocks together unless told otherwise."""
        for link in LINKS:
            for arguments, keys in ((["--keys-per-step", 0], 0), ([], 65536)):
                with self.subTest(link=link, arguments=arguments):
                    self.assert_good(on_device(4, link, "--strategy", "ring", "--verify", "sample", *arguments, "--json",
                                               self.path("json")))
                    with open(self.path("json")) as file:
                        self.assertEqual(json.load(file)["plan"]["keys_per_step"], keys)

    def test_masks_and_strategies_that_leave_ranks_without_work(self):
        for link in LINKS:
            for mask, strategy in (("causal+window:100", "ring"), ("causal+documents:1,4095", "gather")):
                with self.subTest(link=link, mask=mask):
                    self.assert_good(on_device(3, link, "--mask", mask, "--strategy", strategy, "--verify", "sample"))

    def test_links_carry_the_same_bytes(self):
        """Computation does not depend on the link, so neither may a single bit of the result."""
        if len(LINKS) < 2:
            self.skipTest("this build has one link between devices")
        outs = []
        for link in LINKS:
            path = self.path(f"{link}.safetensors")
            self.assert_good(on_device(2, link, "--strategy", "ring", "--verify", "none", "--out", path))
            outs.append(read_safetensors(path))
        self.assertTrue(outs[0])
        self.assertEqual(outs[0], outs[1])

    def test_a_margin_for_communication(self):
        result = on_device(2, LINKS[0], "--sm-margin", 20, "--verify", "sample", "--json", self.path("json"))
        self.assert_good(result)
        with open(self.path("json")) as file:
            self.assertEqual(json.load(file)["plan"]["sm_margin"], 20)
        self.assert_refused(on_device(2, LINKS[0], "--sm-margin", 100000), "margin of 100000", "multiprocessors")

    def test_which_kernels_ran_is_said(self):
        self.assert_good(support.alone("info", "--json", self.path("info.json")))
        with open(self.path("info.json")) as file:
            best = json.load(file)["cuda_devices"][0]["kernels"]
        self.assertIn(best, ("hopper", "portable"))
        for kernels, forward in (("best", best), ("portable", "portable")):
            result = on_device(2, LINKS[0], "--kernels", kernels, "--verify", "sample", "--json", self.path("json"))
            self.assert_good(result)
            with open(self.path("json")) as file:
                ran = json.load(file)["plan"]["kernels"]
            self.assertEqual(ran["forward"], forward)
            self.assertIn(ran["backward"], (best, "portable") if kernels == "best" else ("portable",))
            self.assertIn(f"{forward} kernels", result.stdout)

    def test_what_a_step_takes_of_the_host_is_measured(self):
        self.assert_good(mpi(1, "bench", "--suite", "overhead", "--device", "cuda", "--repeat", 50, "--warmup", 5,
                             "--json", self.path("json")))
        with open(self.path("json")) as file:
            rows = {row["bench"]["row"]: row["bench"] for row in json.load(file)["rows"]}
        issued, in_graph = rows["host time to issue a step"], rows["host time of a step in a CUDA graph"]
        self.assertGreater(issued["steps"], 3)  # of the fused program
        self.assertLess(0, in_graph["seconds_per_step"])
        self.assertLess(in_graph["seconds_per_step"], issued["seconds_per_step"])

    def test_two_ranks_on_one_device_want_to_be_told_to_share(self):
        """Also where each rank sees one device only, as under launchers that hide the others."""
        result = mpi(2, "run", "--device", "cuda", *PROBLEM, env={**support.environment(), "CUDA_VISIBLE_DEVICES": "0"})
        self.assert_refused(result, "ranks 0 and 1", "one CUDA device", "--share-device")

    def test_an_unknown_link_is_refused(self):
        self.assert_refused(on_device(2, "carrier-pigeon"), "carrier-pigeon")


def main():
    if len(sys.argv) < 4:
        sys.exit(f"usage: {sys.argv[0]} PROGRAM MPIEXEC LINK,LINK... [unittest options]")
    support.PROGRAM, support.MPIEXEC = os.path.abspath(sys.argv[1]), sys.argv[2]
    LINKS.extend(sys.argv[3].split(","))
    if not devices():
        print("skipped: no CUDA device")
        sys.exit(SKIPPED)
    unittest.main(module="__main__", argv=[sys.argv[0], *sys.argv[4:]])


if __name__ == "__main__":
    main()
