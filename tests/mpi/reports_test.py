"""Reports: the JSON that scripts read has exactly the fields that are promised, and the other verbs say what they should."""

import json
import os
import xml.dom.minidom

import support
from support import alone, mpi

RUN_FIELDS = {
    "version": None,
    "problem": {"seq_len", "batch", "heads", "kv_heads", "head_dim", "dtype", "mask", "scale", "seed", "backward"},
    "plan": {"strategy", "layout", "reason", "world_size", "device", "why_cpu", "options", "keys_per_step", "backward_keys_per_step",
             "link_bytes_per_second", "sm_margin", "kernels", "why_portable", "steps", "bytes_sent",
             "workspace_bytes", "predicted_seconds"},
    "measured": {"forward_seconds", "backward_seconds", "tflops", "exposed_comm_seconds", "turns", "peak_bytes"},
    "verification": {"mode", "rows", "out_rel_l2", "lse_max_abs", "dq_rel_l2", "dk_rel_l2", "dv_rel_l2", "wrong",
                     "keys", "nonfinite", "limits", "exceeded", "right",
                     "out_row_rms", "lse_row_rms", "dq_row_rms", "dk_row_rms", "dv_row_rms"},
    "machine": {"compiler", "build_type", "cpu", "cores", "simd", "mpi", "link", "threads", "device", "compute_capability",
                "cuda_devices", "cuda_runtime", "cuda_driver"},
}
SMALL = ["--seq-len", 96, "--heads", 2, "--head-dim", 16]


class Reports(support.ProgramTest):
    def assert_run_fields(self, report, more=()):
        self.assertEqual(set(report), set(RUN_FIELDS) | set(more))
        for part, fields in RUN_FIELDS.items():
            if fields:
                self.assertEqual(set(report[part]), fields, part)

    def test_json_of_a_run(self):
        result = mpi(2, "run", *SMALL, "--backward", "--repeat", 5, "--warmup", 1, "--seed", 7, "--json", "-")
        self.assert_good(result)
        report = json.loads(result.stdout)
        self.assert_run_fields(report)
        self.assertEqual(report["problem"]["seed"], 7)
        self.assertEqual(report["plan"]["options"], {"keys": 0, "backward-keys": 0, "keep": True})
        self.assertEqual(report["plan"]["world_size"], 2)
        self.assertEqual(len(report["plan"]["bytes_sent"]), 2)
        self.assertIsNone(report["plan"]["predicted_seconds"])
        self.assertEqual(report["plan"]["kernels"] is None, report["plan"]["device"] == "cpu")
        for times in (report["measured"]["forward_seconds"], report["measured"]["backward_seconds"]):
            self.assertEqual(set(times), {"median", "p99", "runs"})
            self.assertEqual(times["runs"], 5)
            self.assertLessEqual(0, times["median"])
            self.assertLessEqual(times["median"], times["p99"])
        self.assertGreater(report["measured"]["tflops"], 0)
        self.assertGreater(report["verification"]["rows"], 0)
        self.assertEqual(report["verification"]["wrong"], 0)
        self.assertLess(report["verification"]["out_rel_l2"], 1e-5)
        self.assertEqual(report["machine"]["link"], "mpi")

    def test_json_in_a_file_beside_the_text(self):
        result = alone("run", *SMALL, "--ranks", 2, "--verify", "none", "--json", self.path("report.json"))
        self.assert_good(result)
        for label in ("problem", "plan", "memory", "sent", "forward", "exposed", "verified"):
            self.assertIn(f"\n{label} ", result.stdout)
        self.assertEqual(result.stderr, "")  # no progress where there is no terminal
        with open(self.path("report.json")) as file:
            report = json.load(file)
        self.assert_run_fields(report)
        self.assertIsNone(report["measured"]["backward_seconds"])
        self.assertEqual(report["verification"]["mode"], "none")
        self.assertEqual(self.files(), ["report.json"])

    def test_reasons_are_of_what_was_chosen(self):
        result = alone("run", *SMALL, "--ranks", 2, "--layout", "contiguous", "--verify", "none", "--json", self.path("report.json"))
        self.assert_good(result)
        self.assertIn("\nwhy           contiguous: asked for; ring: ", result.stdout)
        with open(self.path("report.json")) as file:
            self.assertTrue(json.load(file)["plan"]["reason"].startswith("contiguous: asked for; ring: "))

    def test_waiting_for_a_turn_is_not_called_communication(self):
        ranks = 2 * len(os.sched_getaffinity(0))
        arguments = ["run", *SMALL, "--ranks", ranks, "--device", "cpu", "--verify", "none"]
        report = json.loads(alone(*arguments, "--json", "-").stdout)
        self.assertEqual(report["measured"]["turns"], f"{ranks} ranks take turns on {ranks // 2} core{'s' if ranks > 2 else ''}")
        exposed = next(line for line in alone(*arguments).stdout.splitlines() if line.startswith("exposed "))
        self.assertIn(report["measured"]["turns"], exposed)
        self.assertNotIn("communication", exposed)
        self.assertIsNone(json.loads(alone("run", *SMALL, "--device", "cpu", "--json", "-").stdout)["measured"]["turns"])

    def test_events_of_a_track_follow_one_another(self):
        shapes = [["--ranks", 4, "--seq-len", 512, "--heads", 4, "--backward"],
                  ["--ranks", 3, "--seq-len", 300, "--heads", 8, "--kv-heads", 8, "--strategy", "gather", "--backward"],
                  ["--ranks", 8, "--seq-len", 64, "--heads", 2, "--layout", "striped", "--mask", "causal+window:9"],
                  ["--ranks", 5, "--seq-len", 320, "--heads", 2, "--mask", "full", "--keys-per-step", 128, "--backward"]]
        for shape in shapes:
            self.assert_good(alone("trace", *shape, "--head-dim", 16, "--out", self.path("trace.json")))
            with open(self.path("trace.json")) as file:
                events = json.load(file)["traceEvents"]
            tracks = {}
            for event in events:
                if event["ph"] == "X":
                    tracks.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["dur"], event["cat"]))
            for track in tracks.values():
                track.sort()
                for (begin, duration, _), (following, _, _) in zip(track, track[1:]):
                    self.assertLessEqual(begin + duration, following, shape)
            for rank in range(shape[1]):
                computed = tracks[(rank, 0)]  # all passes on one clock: the backward one when the forward one is over
                passes = [cat for _, _, cat in computed]
                self.assertEqual(passes, sorted(passes, reverse=True), shape)
                self.assertEqual("backward" in passes, "--backward" in shape)
            self.assertGreaterEqual(min(track[0][0] for track in tracks.values()), 0)

    def test_run_proves_when_asked(self):
        self.assert_good(alone("run", *SMALL, "--ranks", 5, "--backward", "--check"))

    def test_no_tokens_at_all(self):
        self.assert_good(alone("run", "--seq-len", 0, "--ranks", 2, "--backward", "--out", self.path("out")))
        self.assertEqual(support.read_safetensors(self.path("out"))["out"][1], [1, 0, 8, 64])

    def test_check(self):
        result = alone("check", *SMALL, "--world-size", 8, "--backward")
        self.assert_good(result)
        self.assertIn("proved: ring over zigzag on 8 ranks", result.stdout)
        result = alone("check", *SMALL, "--world-size", 8, "--backward", "--strategy", "ring:keys=40,keep=no")
        self.assertIn("proved: ring:keys=40,keep=no over zigzag on 8 ranks", result.stdout)
        by_alias = alone("check", *SMALL, "--world-size", 8, "--backward", "--strategy", "ring:keep=no", "--keys-per-step", 40)
        self.assertIn("proved: ring:keys=40,keep=no over zigzag on 8 ranks", by_alias.stdout)
        result = alone("check", *SMALL, "--world-size", 4, "--mask", "window:5", "--json", "-")
        report = json.loads(result.stdout)
        self.assertEqual(report["proof"]["findings"], [])
        self.assertTrue(report["proof"]["proved"])
        self.assertEqual(report["plan"], {"strategy": "gather", "layout": "contiguous", "world_size": 4})

    def test_check_prints_a_program(self):
        result = alone("check", *SMALL, "--world-size", 2, "--print", 1)
        self.assert_good(result)
        self.assertIn("attend", result.stdout)
        self.assertIn("exchange", result.stdout)

    def test_trace(self):
        result = mpi(2, "trace", *SMALL, "--backward", "--out", self.path("ring.json"))
        self.assert_good(result)
        with open(self.path("ring.json")) as file:
            events = json.load(file)
        names = {event["args"]["name"] for event in events["traceEvents"] if event["name"] == "process_name"}
        self.assertEqual(names, {"rank 0", "rank 1"})
        self.assertTrue(any(event["ph"] == "X" and "exchange" in event["name"] for event in events["traceEvents"]))
        self.assert_good(alone("trace", *SMALL, "--ranks", 3, "--out", self.path("ring.svg")))
        self.assertEqual(xml.dom.minidom.parse(self.path("ring.svg")).documentElement.tagName, "svg")
        self.assert_good(alone("run", *SMALL, "--trace", self.path("run.svg")))
        self.assertEqual(self.files(), ["ring.json", "ring.svg", "run.svg"])

    def test_info(self):
        result = alone("info")
        self.assert_good(result)
        self.assertIn("ring", result.stdout)
        report = json.loads(alone("info", "--json", "-").stdout)
        self.assertGreater(report["peak_flops_per_core"], 1e8)
        self.assertIn("gather", report["strategies"])
        self.assertIn(("ring", "keep=yes|no", "yes"),
                      [(o["strategy"], o["option"], o["standard"]) for o in report["strategy_options"]])
        self.assertGreater(report["cores"], 0)

    def test_bench_rows_are_verified(self):
        few = ["--seq-len", 256, "--heads", 2, "--head-dim", 16, "--repeat", 2]
        for run, suite, rows, field in [(alone, "kernel", 2, "forward_of_peak"),
                                        (lambda *a: alone(*a, "--ranks", 2), "ring", 1, "speed_up"),
                                        (lambda *a: mpi(2, *a), "ring", 1, "speed_up"),
                                        (alone, "overhead", 2, "seconds_per_step"), (alone, None, 1, "row")]:
            with self.subTest(suite=suite):
                suite_option = ["--suite", suite] if suite else []
                result = run("bench", *suite_option, *few, "--json", self.path("rows.json"))
                self.assert_good(result)
                self.assertIn("#wrong", result.stdout)
                with open(self.path("rows.json")) as file:
                    report = json.load(file)
                self.assertEqual(len(report["rows"]), rows)
                self.assertIn(field, report["rows"][0]["bench"])
                self.assert_run_fields(report["rows"][0], more=["bench"])
                self.assertEqual(report["rows"][0]["verification"]["wrong"], 0)


if __name__ == "__main__":
    support.main()
