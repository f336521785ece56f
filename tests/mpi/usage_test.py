"""The command line: every wrong use ends with one clear line and exit code 2, alone and under mpirun."""

import support
from support import alone, environment, mpi

# Arguments, and what the line must say.
REFUSED = [
    ([], ["no verb"]),
    (["fly"], ["unknown verb 'fly'", "run, check, bench, trace, info"]),
    (["--help", "x"], ["unexpected argument 'x'"]),
    (["help", "fly"], ["unknown verb 'fly'"]),
    (["help", "run", "x"], ["unexpected argument 'x' after help"]),
    (["-V", "x"], ["unexpected argument 'x' after -V"]),
    (["run", "-x"], ["-x"]),
    (["run", "--seq-len", "-h"], ["--seq-len"]),
    (["run", "--orbit", "3"], ["--orbit"]),
    (["run", "--seq", "3"], ["--seq"]),  # no abbreviations
    (["run", "stray"], ["unexpected argument 'stray'"]),
    (["run", "--seq-len"], ["--seq-len"]),
    (["run", "--seq-len", "--backward"], ["--seq-len"]),
    (["run", "--seq-len="], ["--seq-len"]),
    (["run", "--seq-len", "1e3"], ["--seq-len '1e3' is not a whole number"]),
    (["run", "--seq-len", "-4"], ["--seq-len -4"]),
    (["run", "--seq-len", "99999999999999999999"], ["--seq-len 99999999999999999999 is out of range"]),
    (["run", "--seq-len", "8", "--seq-len", "9"], ["--seq-len"]),
    (["run", "--seq-len", "4000000000000000000"], ["4000000000000000000"]),
    (["run", "--heads", "0"], ["--heads 0"]),
    (["run", "--heads", "6", "--kv-heads", "4"], ["6", "4"]),
    (["run", "--head-dim", "257"], ["257"]),
    (["run", "--dtype", "fp64"], ["fp64"]),
    (["run", "--mask", "round"], ["round"]),
    (["run", "--mask", "full+causal"], ["full", "causal"]),
    (["run", "--mask", "sinks:4"], ["sinks", "window"]),
    (["run", "--seq-len", "10", "--mask", "documents:4,5"], ["9", "10"]),
    (["run", "--mask", "documents:@/nowhere"], ["/nowhere"]),
    (["run", "--scale", "nan"], ["--scale 'nan'"]),
    (["run", "--scale", "0"], ["--scale 0"]),
    (["run", "--layout", "spiral"], ["spiral"]),
    (["run", "--layout", "striped:0"], ["striped:0"]),
    (["run", "--strategy", "spiral"], ["spiral", "ring", "gather"]),
    (["run", "--keys-per-step", "-1"], ["--keys-per-step -1"]),
    (["check", "--keys-per-step", "some"], ["--keys-per-step 'some'"]),
    (["run", "--backward-keys-per-step", "100"], ["--backward-keys-per-step needs --backward"]),
    (["check", "--strategy", "gather", "--keys-per-step", "100"], ["keys per step", "--strategy gather"]),
    (["check", "--strategy", "ring:keys=1", "--keys-per-step", "2"], ["--keys-per-step", "ring:keys=1"]),
    (["check", "--strategy", "ring:key=1"], ["'key'", "keys=N|auto, backward-keys=N|auto, keep=yes|no"]),
    (["check", "--strategy", "ring:keep=maybe"], ["keep=maybe", "keep=yes|no"]),
    (["check", "--strategy", "ring:keys=1,keys=2"], ["keys", "twice"]),
    (["check", "--strategy", "ring:"], ["OPTION=VALUE"]),
    (["run", "--device", "cuda", "--device-index", "99"], ["cuda"]),  # too high, or no device at all
    (["run", "--device-index", "-1"], ["--device-index -1"]),
    (["run", "--device-index", "first"], ["--device-index 'first'"]),
    (["run", "--device", "cpu", "--device-index", "0"], ["--device-index", "cpu"]),
    (["run", "--device", "cpu", "--share-device"], ["--share-device", "cpu"]),
    (["run", "--device", "cpu", "--link", "mpi"], ["--link", "cpu"]),
    (["run", "--device", "cpu", "--sm-margin", "4"], ["--sm-margin", "cpu"]),
    (["run", "--sm-margin", "-1"], ["--sm-margin -1"]),
    (["run", "--sm-margin", "half"], ["--sm-margin 'half'"]),
    (["check", "--sm-margin", "4"], ["--sm-margin"]),
    (["run", "--device", "cpu", "--kernels", "portable"], ["--kernels", "cpu"]),
    (["run", "--kernels", "fast"], ["--kernels 'fast'", "best", "portable"]),
    (["check", "--kernels", "best"], ["--kernels"]),
    (["run", "--link", "rope"], ["rope"]),
    (["run", "--ranks", "2", "--link", "nccl"], ["--link nccl", "process"]),
    (["run", "--device", "tpu"], ["tpu"]),
    (["run", "--launcher", "some"], ["--launcher 'some'", "auto", "none"]),
    (["run", "--threads", "0"], ["--threads 0"]),
    (["run", "--ranks", "0"], ["--ranks 0"]),
    (["run", "--repeat", "0"], ["--repeat 0"]),
    (["run", "--timeout", "0"], ["--timeout"]),
    (["run", "--timeout", "inf"], ["--timeout 'inf'"]),
    (["run", "--verify", "maybe"], ["maybe"]),
    (["run", "--inputs", "zeros"], ["--inputs", "zeros", "normal, counting"]),
    (["run", "--scale", "1e39"], ["scale is 1e+39", "2^126"]),
    (["run", "--scale", "1e-40"], ["scale is 1e-40", "2^-126"]),
    (["run", "--query", "q.safetensors"], ["--query, --key and --value"]),
    (["run", "--grad-out", "g.safetensors"], ["--grad-out"]),
    (["run", "--trace", "t.txt"], [".json or .svg"]),
    (["run", "--out", "/nowhere/out.safetensors"], ["/nowhere"]),
    (["run", "--out", "/"], ["directory"]),
    (["run", "--json", "/nowhere/r.json"], ["/nowhere"]),
    (["run", "--out", "same", "--json", "same"], ["same"]),
    (["run", "--config", "/nowhere.ini"], ["/nowhere.ini"]),
    (["run", "--world-size", "4"], ["--world-size"]),
    (["trace", "--out", "a.svg", "--trace", "b.svg"], ["--out", "--trace"]),
    (["check", "--world-size", "0"], ["--world-size 0"]),
    (["check", "--world-size", "4", "--print", "4"], ["--print 4"]),
    (["check", "--ranks", "4"], ["--ranks"]),
    (["bench", "--suite", "ring"], ["two ranks"]),
    (["bench", "--suite", "speed"], ["speed"]),
    (["info", "--seq-len", "4"], ["--seq-len"]),
]


class Usage(support.ProgramTest):
    def test_wrong_use_is_refused_in_one_line(self):
        for arguments, fragments in REFUSED:
            with self.subTest(arguments):
                self.assert_refused(alone(*arguments), *fragments)

    def test_under_mpirun_one_rank_says_it(self):
        for arguments, fragments in [(["run", "--orbit"], ["--orbit"]), (["run", "--mask", "round"], ["round"]),
                                     (["run", "--ranks", "3"], ["--ranks 3", "2 ranks"]),
                                     (["check"], ["one process"]), (["run", "--out", "/nowhere/x"], ["/nowhere"])]:
            with self.subTest(arguments):
                self.assert_refused(mpi(2, *arguments), *fragments)

    def test_help_and_version(self):
        for arguments, fragment in [(["--help"], "usage:"), (["--version"], "orrery "), (["run", "--help"], "--mask"),
                                    (["check", "--help"], "--world-size"), (["bench", "--help"], "--suite"),
                                    (["trace", "--help"], "--out"), (["info", "--help"], "--json"),
                                    (["-h"], "usage:"), (["help"], "usage:"), (["-V"], "orrery "),
                                    (["run", "-h"], "--mask"), (["help", "check"], "--world-size")]:
            with self.subTest(arguments):
                result = alone(*arguments)
                self.assert_good(result)
                self.assertIn(fragment, result.stdout)
                self.assertEqual(result.stderr, "")

    def test_help_under_mpirun_is_printed_once(self):
        result = mpi(2, "--help")
        self.assert_good(result)
        self.assertEqual(result.stdout.count("usage:"), 1)

    def test_variables_of_the_site(self):
        for name, value in [("ORRERY_THREADS", "many"), ("ORRERY_THREADS", "0"), ("ORRERY_TIMEOUT_SECONDS", "-1"),
                            ("ORRERY_SM_MARGIN", "-1"), ("ORRERY_KERNELS", "fast"), ("ORRERY_KERNELS", ""),
                            ("ORRERY_AGREE", "never"), ("ORRERY_CHECK", "yes"), ("ORRERY_LAUNCHER", "some")]:
            with self.subTest(f"{name}={value}"):
                self.assert_refused(alone("run", env=environment({name: value})), name, value)
        result = alone("run", "--seq-len", 16, "--json", "-", env=environment({"ORRERY_THREADS": "2"}))
        self.assertIn('"threads": 2', result.stdout)

    def test_config_file_fills_what_is_not_typed(self):
        with open(self.path("job.ini"), "w") as file:
            file.write("# a job\nseq-len = 48\nheads = 2\nbackward = true\n")
        result = alone("run", "--config", self.path("job.ini"), "--heads", 3, "--json", "-")
        self.assert_good(result)
        self.assertIn('"seq_len": 48', result.stdout)
        self.assertIn('"heads": 3', result.stdout)
        self.assertIn('"backward": true', result.stdout)

    def test_config_file_keeps_what_a_value_holds(self):
        for written, name in [("a#1;b.json", "a#1;b.json"), ("\t spaced out.json \r", "spaced out.json"),
                              ('" quoted #.json"', " quoted #.json"), ("x=y.json", "x=y.json")]:
            with self.subTest(written):
                with open(self.path("job.ini"), "w", newline="") as file:
                    file.write(f"  # a comment\n; another\n\nseq-len=16\nbackward = off\njson = {written}\n")
                self.assert_good(alone("run", "--config", "job.ini", cwd=self.folder))
                self.assertEqual(self.files(), sorted(["job.ini", name]))
                support.os.remove(self.path(name))

    def test_config_file_is_read_as_strictly(self):
        for text, *fragments in [("# a job\norbit = 3\n", "job.ini:2: 'orbit'"), ("seq-len = x\n", "job.ini:1", "--seq-len 'x'"),
                                 ("seq-len\n", "job.ini:1: 'seq-len' is not NAME = VALUE"),
                                 ("heads = 2\nseq-len =\n", "job.ini:2", "no value"), ("= 3\n", "job.ini:1", "no name"),
                                 ("heads = 2\n\nheads = 2\n", "job.ini:3", "line 1 already"),
                                 ("[run]\nheads = 2\n", "job.ini:1", "section"), ("--heads = 2\n", "job.ini:1", "dashes"),
                                 ("backward = maybe\n", "job.ini:1", "neither true nor false"),
                                 ("heads = 2 # few\n", "job.ini:1", "--heads '2 # few'", "a line of its own"),
                                 ('json = "r.json\n', "job.ini:1", "quote"), ("config = other.ini\n", "job.ini:1", "config"),
                                 ("dtype = fp12\n", "job.ini:1", "fp12"), ("world-size = 2\n", "job.ini:1", "world-size")]:
            with self.subTest(text):
                with open(self.path("job.ini"), "w") as file:
                    file.write(text)
                self.assert_refused(alone("run", "--config", self.path("job.ini")), *fragments)

    def test_a_full_standard_output_is_an_error(self):
        with open("/dev/full", "w") as full:
            result = support.subprocess.run([support.PROGRAM, "--help"], stdout=full, stderr=support.subprocess.PIPE,
                                            text=True, timeout=support.SECONDS, env=environment())
        self.assertEqual(result.returncode, 5)
        self.assertIn("standard output", result.stderr)


if __name__ == "__main__":
    support.main()
