"""The real thing: one layer's queries, keys and values of a trained model, over 16,384 bytes of a book, through every layout
and kind of mask on 1 to 7 ranks, forward and backward, held against float64.

By default a selection in which every rank count, layout, mask and dtype occurs; with ORRERY_TEST_ALL=1 all of them.
"""

import itertools
import json
import os
import subprocess

import support
from support import alone, read_safetensors, write_safetensors

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENS = 16384
MASKS = {
    "causal": "causal",
    "full": "full",
    "window": "causal+window:1024",
    "sinks": "causal+window:512+sinks:16",
    "documents": "causal+documents:5000,1,0,7383,4000",
    "prefix": "causal+prefix:3000",
}
LAYOUTS = ["contiguous", "zigzag", "striped", "striped:64"]
RANKS = [1, 2, 3, 4, 7]
SELECTION = [
    # ranks, layout, mask, strategy, dtype, backward
    (1, "contiguous", "causal", "ring", "bf16", True),
    (2, "zigzag", "causal", "ring", "fp32", True),
    (3, "striped", "window", "ring", "fp32", True),
    (4, "zigzag", "documents", "ring", "bf16", True),
    (7, "contiguous", "sinks", "gather", "bf16", True),
    (4, "striped:64", "prefix", "gather", "bf16", False),
    (7, "zigzag", "documents", "gather", "fp32", True),
    (3, "contiguous", "window", "auto", "fp32", True),
]

# Relative L2 errors. 16-bit results are rounded once (2^-9 at most, an element); dq is larger, since delta, as in
# FlashAttention, is taken from the rounded output.
LIMITS = {
    "bf16": {"out_rel_l2": 2 ** -8, "lse_max_abs": 1e-5, "dq_rel_l2": 2.5e-2, "dk_rel_l2": 2 ** -8, "dv_rel_l2": 2 ** -8},
    "fp32": {"out_rel_l2": 1e-5, "lse_max_abs": 1e-5, "dq_rel_l2": 1e-5, "dk_rel_l2": 1e-5, "dv_rel_l2": 1e-5},
}


def widened(content):
    """bf16 as fp32: the same values with 16 more bits of mantissa."""
    wide = bytearray(2 * len(content))
    wide[2::4] = content[0::2]
    wide[3::4] = content[1::2]
    return bytes(wide)


class Book(support.ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = os.environ.get("ORRERY_TEST_DATA") or os.path.join(HERE, "..", "..", "build", "data")
        unpacked = subprocess.run(["bash", os.path.join(HERE, "..", "data", "unpack.sh"), folder], capture_output=True,
                                  text=True, timeout=120)
        if unpacked.returncode != 0:
            raise AssertionError(unpacked.stderr)
        cls.files_of = {"bf16": [os.path.join(folder, f"kjv_{name}.safetensors") for name in "qkv"], "fp32": []}
        for path in cls.files_of["bf16"]:
            wide = path.replace("kjv_", "kjv_fp32_")
            tensors = {name: ("F32", shape, widened(content)) for name, (_, shape, content) in read_safetensors(path).items()}
            write_safetensors(wide, tensors)
            cls.files_of["fp32"].append(wide)

    def check(self, ranks, layout, mask, strategy, dtype, backward):
        query, key, value = self.files_of[dtype]
        arguments = ["--query", query, "--key", key, "--value", value, "--mask", MASKS[mask], "--layout", layout,
                     "--strategy", strategy, "--ranks", ranks, "--json", "-"]
        result = alone("run", *arguments, *(["--backward"] if backward else []))
        self.assert_good(result)
        report = json.loads(result.stdout)
        self.assertEqual(report["problem"]["seq_len"], TOKENS)
        errors = report["verification"]
        self.assertEqual(errors["wrong"], 0)
        self.assertGreaterEqual(errors["rows"], 90)
        for name, limit in LIMITS[dtype].items():
            if backward or not name.startswith("d"):
                self.assertLessEqual(errors[name], limit, name)

    def test_the_book(self):
        cases = SELECTION
        if os.environ.get("ORRERY_TEST_ALL") == "1":
            cases = itertools.product(RANKS, LAYOUTS, MASKS, ["ring", "gather"], ["bf16", "fp32"], [True])
        for case in cases:
            with self.subTest(case=case):
                self.check(*case)


if __name__ == "__main__":
    support.main()
