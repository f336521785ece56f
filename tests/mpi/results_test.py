"""What a run writes: the right numbers, in position order whatever the layout, the same bits every time, or nothing."""

import json
import math

import support
from support import alone, f32, floats, mpi, read_safetensors, write_safetensors


def distance(a, b):
    """Relative L2 distance of two lists of floats, infinities equal."""
    pairs = [(x, y) for x, y in zip(a, b) if not (math.isinf(x) and x == y)]
    difference = sum((x - y) ** 2 for x, y in pairs)
    return math.sqrt(difference / max(sum(y * y for _, y in pairs), 1e-30))


class Results(support.ProgramTest):
    SIZES = ["--seq-len", 203, "--heads", 4, "--kv-heads", 2, "--head-dim", 24]

    def output(self, name, *arguments, run=alone, backward=True):
        arguments = [*self.SIZES, *arguments, *(["--backward"] if backward else [])]
        self.assert_good(run("run", *arguments, "--out", self.path(name)))
        return read_safetensors(self.path(name))

    def assert_near(self, results, expected):
        self.assertEqual(results.keys(), expected.keys())
        for name in expected:
            self.assertEqual(results[name][:2], expected[name][:2])
            self.assertLess(distance(floats(results[name][2]), floats(expected[name][2])), 1e-5, name)

    def test_position_order_whatever_the_layout(self):
        for mask in ["causal", "full", "causal+window:30+sinks:3", "causal+documents:50,0,100,53"]:
            expected = self.output("one", "--mask", mask, "--layout", "contiguous")
            for placement in [["--ranks", 3, "--layout", "zigzag"], ["--ranks", 4, "--layout", "striped:5"],
                              ["--ranks", 2, "--strategy", "gather"], ["--ranks", 7],
                              ["--ranks", 5, "--keys-per-step", 100]]:
                with self.subTest(mask=mask, placement=placement):
                    self.assert_near(self.output("many", "--mask", mask, *placement), expected)

    def test_more_ranks_than_tokens(self):
        few = ["--seq-len", 3, "--heads", 2, "--head-dim", 8, "--backward", "--verify", "full"]
        self.assert_good(alone("run", *few, "--out", self.path("one")))
        self.assert_good(alone("run", *few, "--ranks", 8, "--out", self.path("many")))
        self.assert_near(read_safetensors(self.path("many")), read_safetensors(self.path("one")))

    def test_the_answer_that_is_known_exactly(self):
        """Query 0 gives every admitted key the same weight: lse is the log of their number, out the mean of their values."""
        tokens, heads = 50, 2
        write_safetensors(self.path("in"), {
            "q": f32([tokens, heads, 4], lambda i: 0), "k": f32([tokens, heads, 4], lambda i: (i % 7) - 3),
            "v": f32([tokens, heads, 4], lambda i: i // (4 * heads))})  # its position
        inputs = [word for name in ("query", "key", "value") for word in (f"--{name}", self.path("in"))]
        for run, ranks in [(lambda *a: alone(*a, "--ranks", 3), 3), (lambda *a: mpi(2, *a), 2)]:
            with self.subTest(ranks=ranks):
                self.assert_good(run("run", *inputs, "--out", self.path("out")))
                result = read_safetensors(self.path("out"))
                self.assertEqual(result["lse"][1], [heads, tokens])
                for index, lse in enumerate(floats(result["lse"][2])):
                    self.assertAlmostEqual(lse, math.log(index % tokens + 1), places=5)
                for index, value in enumerate(floats(result["out"][2])):
                    self.assertAlmostEqual(value, index // (4 * heads) / 2, places=4)

    def test_the_same_bits_every_time(self):
        for ranks in (1, 2, 3, 4):
            with self.subTest(ranks=ranks):
                placement = ["--ranks", ranks, "--layout", "zigzag", "--strategy", "ring"]
                self.assertEqual(self.output("a", *placement), self.output("b", *placement, "--threads", 2))

    def test_processes_and_threads_give_the_same_bits(self):
        for ranks in (2, 3):
            with self.subTest(ranks=ranks):
                threads = self.output("a", "--ranks", ranks)
                self.assertEqual(threads, self.output("b", run=lambda *a, n=ranks: mpi(n, *a)))
        tcp = self.output("c", run=lambda *a: mpi(3, *a, flags=support.TCP_FLAGS))
        self.assertEqual(tcp, threads)

    def test_half_precision(self):
        for dtype in ("bf16", "fp16"):
            with self.subTest(dtype):
                result = self.output("out", "--dtype", dtype, "--ranks", 3, "--verify", "full")
                self.assertEqual(result["out"][0], dtype.upper().replace("FP", "F"))
                self.assertEqual(result["lse"][0], "F32")

    def test_an_output_is_replaced_whole(self):
        with open(self.path("out"), "w") as file:
            file.write("old")
        self.output("out", "--ranks", 2)
        self.assertEqual(self.files(), ["out"])

    def test_counting_inputs_have_an_exact_answer(self):
        for mask in ("causal", "causal+window:100+sinks:4", "documents:1000,1500,1596"):
            for dtype in ("fp32", "bf16"):
                with self.subTest(f"{mask} {dtype}"):
                    result = alone("run", "--inputs", "counting", "--seq-len", 4096, "--mask", mask, "--dtype", dtype, "--heads", 2,
                                   "--head-dim", 32, "--ranks", 3, "--backward", "--verify", "full", "--json", "-")
                    self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
                    found = json.loads(result.stdout)["verification"]
                    self.assertEqual((found["rows"], found["keys"], found["dk_rel_l2"]), (8192, 8192, 0))

    def test_a_negative_scale(self):
        result = alone("run", "--seq-len", 512, "--heads", 4, "--kv-heads", 1, "--head-dim", 64, "--scale", -0.2, "--backward")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_a_wrong_result_is_not_written(self):
        """Scores of 1e50 are finite in float64 but not in fp32, so that the rows are wrong."""
        write_safetensors(self.path("in"), {"q": f32([8, 1, 4], lambda i: 1e25), "k": f32([8, 1, 4], lambda i: -1e25 - i),
                                            "v": f32([8, 1, 4], float)})
        inputs = [word for name in ("query", "key", "value") for word in (f"--{name}", self.path("in"))]
        for result in (alone("run", *inputs, "--ranks", 2, "--out", self.path("out")),
                       mpi(2, "run", *inputs, "--out", self.path("out"))):
            self.assertEqual(result.returncode, 3, result.stdout + result.stderr)
            self.assertEqual(len(support.said(result)), 1)
            self.assertIn("verification failed", result.stderr)
            self.assertEqual(self.files(), ["in"])


if __name__ == "__main__":
    support.main()
