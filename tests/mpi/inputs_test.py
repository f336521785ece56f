"""Inputs from files. A header is hostile; tensors must fit together and with the options. Whatever is wrong is refused in one
line, and no output appears."""

import json
import os
import resource
import signal
import struct

import support
from support import alone, f32, mpi, write_safetensors

TOKENS, HEADS, KV_HEADS, WIDTH = 12, 4, 2, 8


def wave(i):
    return ((i * 37) % 101) / 50 - 1


class Inputs(support.ProgramTest):
    def good(self, **changes):
        tensors = {"q": f32([TOKENS, HEADS, WIDTH], wave), "k": f32([TOKENS, KV_HEADS, WIDTH], wave),
                   "v": f32([TOKENS, KV_HEADS, WIDTH], wave), "do": f32([TOKENS, HEADS, WIDTH], wave)}
        tensors.update(changes)
        for name, tensor in tensors.items():
            write_safetensors(self.path(f"{name}.safetensors"), {name: tensor})

    def arguments(self, *more):
        return ["run", "--query", self.path("q.safetensors"), "--key", self.path("k.safetensors"), "--value",
                self.path("v.safetensors"), "--out", self.path("out.safetensors"), *more]

    def refuses(self, *fragments, more=()):
        before = self.files()
        self.assert_refused(alone(*self.arguments(*more)), *fragments)
        self.assertEqual(self.files(), before)

    def test_sizes_come_from_the_files(self):
        self.good()
        result = alone(*self.arguments("--json", "-", "--backward", "--grad-out", self.path("do.safetensors")))
        self.assert_good(result)
        problem = json.loads(result.stdout)["problem"]
        self.assertEqual((problem["seq_len"], problem["heads"], problem["kv_heads"], problem["head_dim"],
                          problem["dtype"], problem["batch"]), (TOKENS, HEADS, KV_HEADS, WIDTH, "fp32", 1))
        outputs = support.read_safetensors(self.path("out.safetensors"))
        self.assertEqual({name: tensor[1] for name, tensor in outputs.items()},
                         {"out": [TOKENS, HEADS, WIDTH], "lse": [HEADS, TOKENS], "dq": [TOKENS, HEADS, WIDTH],
                          "dk": [TOKENS, KV_HEADS, WIDTH], "dv": [TOKENS, KV_HEADS, WIDTH]})

    def test_a_batch_dimension_is_kept(self):
        self.good(q=f32([1, TOKENS, HEADS, WIDTH], wave), k=f32([1, TOKENS, HEADS, WIDTH], wave),
                  v=f32([1, TOKENS, HEADS, WIDTH], wave))
        self.assert_good(alone(*self.arguments()))
        outputs = support.read_safetensors(self.path("out.safetensors"))
        self.assertEqual(outputs["out"][1], [1, TOKENS, HEADS, WIDTH])
        self.assertEqual(outputs["lse"][1], [1, HEADS, TOKENS])

    def test_a_tensor_may_be_named(self):
        write_safetensors(self.path("all.safetensors"),
                          {"layer.3.query": f32([TOKENS, HEADS, WIDTH], wave), "k": f32([TOKENS, HEADS, WIDTH], wave)})
        path = self.path("all.safetensors")
        self.assert_good(alone("run", "--query", path + ":layer.3.query", "--key", path, "--value", path + ":k"))
        self.assert_refused(alone("run", "--query", path, "--key", path, "--value", path), "layer.3.query")
        self.assert_refused(alone("run", "--query", path + ":", "--key", path, "--value", path), "FILE:TENSOR")
        self.assert_refused(alone("run", "--query", "no:such:file", "--key", path, "--value", path), "'no:such:file'",
                            "'no'")

    def test_names_may_hold_any_character(self):
        names = ["layers/0/q", "layers:0:k", "a/b:c/d"]
        for file in ("plain", "a:b", "a:b:", "c+d e,f#1;.safetensors", ":"):
            with self.subTest(file):
                path = self.path(file)
                write_safetensors(path, {name: f32([TOKENS, HEADS, WIDTH], wave) for name in names})
                self.assert_good(alone("run", "--query", f"{path}:{names[0]}", "--key", f"{path}:{names[1]}", "--value",
                                       f"{path}:{names[2]}"))

    def test_the_longest_file_wins(self):
        for file, heads in [("a", 1), ("a:q", 2), ("a:q:q", 3)]:
            write_safetensors(self.path(file), {name: f32([TOKENS, heads, WIDTH], wave) for name in ("q", "k", "v", "q:q")})
        for given, heads in [("a", 1), ("a:k", 1), ("a:q", 2), ("a:q:k", 2), ("a:q:q", 3), ("a:q:q:q:q", 3)]:
            with self.subTest(given):
                result = alone("run", "--query", given, "--key", given, "--value", given, "--json", "-", cwd=self.folder)
                self.assert_good(result)
                self.assertEqual(json.loads(result.stdout)["problem"]["heads"], heads)

    def test_heads_before_tokens(self):
        """The same numbers in either order give the same results, and the wrong order is noted."""
        tokens, heads, kv_heads = 3, 4, 2

        def swapped(heads, first):  # element i of a tensor in the order that puts `first`'s axis first
            def value(i):
                width, i = i % WIDTH, i // WIDTH
                head, token = (i // tokens, i % tokens) if first == "heads" else (i % heads, i // heads)
                return wave(token * 50 + head * 9 + width)
            return value

        for batch in ([], [1]):
            for order, layout in [("tokens", "bshd"), ("heads", "bhsd")]:
                def tensor(heads):
                    axes = [tokens, heads] if order == "tokens" else [heads, tokens]
                    return f32([*batch, *axes, WIDTH], swapped(heads, order))

                self.good(q=tensor(heads), k=tensor(kv_heads), v=tensor(kv_heads), do=tensor(heads))
                result = alone(*self.arguments("--input-layout", layout, "--backward", "--ranks", 2, "--verify", "full",
                                               "--grad-out", self.path("do.safetensors")))
                self.assert_good(result)
                self.assertEqual(result.stderr, "")
                os.rename(self.path("out.safetensors"), self.path(layout))
            with open(self.path("bshd"), "rb") as one, open(self.path("bhsd"), "rb") as other:
                self.assertEqual(one.read(), other.read())
        self.refuses("tokens differ", "--input-layout bhsd")
        self.refuses("--input-layout 'bsd'", more=["--input-layout", "bsd"])

    def test_inputs_that_look_transposed_are_noted(self):
        both = f32([1, 2, 64, 4], wave)
        self.good(q=both, k=both, v=both)
        for run in (alone, lambda *a: mpi(2, *a)):
            result = run(*self.arguments())
            self.assert_good(result)
            self.assertEqual(len(support.said(result)), 1)
            for fragment in ("note", "64 heads over 2 tokens", "--input-layout bhsd"):
                self.assertIn(fragment, support.said(result)[0])
        result = alone(*self.arguments("--input-layout", "bhsd"))
        self.assert_good(result)
        self.assertEqual(result.stderr, "")
        self.assertIn("2 heads", result.stdout)
        self.assertEqual(alone(*self.arguments("--input-layout", "bshd")).stderr, "")

    def test_what_the_reference_reader_opens(self):
        data = f32([TOKENS, HEADS, WIDTH], wave)[2]
        entry = {"dtype": "F32", "shape": [TOKENS, HEADS, WIDTH], "data_offsets": [0, len(data)], "note": [{"shape": 1}]}
        header = json.dumps({"__metadata__": None, "x": entry}).encode()
        with open(self.path("in"), "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header + data)
        given = self.path("in") + ":x"
        self.assert_good(alone("run", "--query", given, "--key", given, "--value", given))

    def test_documents_from_a_file(self):
        self.good()
        with open(self.path("doc+uments"), "w") as file:
            file.write("0\n5\n5\n12\n")
        mask = f"documents:offsets@{self.path('doc+uments')}+causal"
        result = alone(*self.arguments("--mask", mask, "--json", "-"))
        self.assert_good(result)
        self.assertEqual(json.loads(result.stdout)["problem"]["mask"], "causal+documents:5,0,7")
        os.remove(self.path("out.safetensors"))
        self.refuses("line 4, column 1", "10 more than", more=["--mask", f"documents:@{self.path('doc+uments')}"])
        os.mkfifo(self.path("fifo"))
        self.refuses("nothing for 10 s", more=["--mask", f"documents:@{self.path('fifo')}"])

    def test_options_that_contradict_the_files(self):
        self.good()
        for option, value in [("--seq-len", 13), ("--heads", 8), ("--kv-heads", 4), ("--head-dim", 16), ("--batch", 2)]:
            with self.subTest(option):
                self.refuses(option, str(value), more=[option, str(value)])
        self.refuses("--dtype bf16", "fp32", more=["--dtype", "bf16"])
        self.assert_good(alone(*self.arguments("--seq-len", TOKENS, "--heads", HEADS, "--dtype", "fp32")))

    def test_tensors_that_do_not_fit_together(self):
        for name, tensor, fragment in [("k", f32([TOKENS + 1, KV_HEADS, WIDTH], wave), "tokens differ"),
                                       ("v", f32([TOKENS, HEADS, WIDTH], wave), "heads differ"),
                                       ("k", f32([TOKENS, KV_HEADS, 4], wave), "head_dims differ"),
                                       ("v", f32([1, TOKENS, KV_HEADS, WIDTH], wave), "dimensions differ"),
                                       ("q", f32([TOKENS, WIDTH], wave), "2 dimensions"),
                                       ("q", f32([TOKENS, 3, WIDTH], wave), "3"),
                                       ("k", ("BF16", [TOKENS, KV_HEADS, WIDTH], bytes(2 * TOKENS * KV_HEADS * WIDTH)),
                                        "dtypes differ"),
                                       ("q", ("I32", [TOKENS, HEADS, WIDTH], bytes(4 * TOKENS * HEADS * WIDTH)), "I32")]:
            with self.subTest(f"{name}: {fragment}"):
                self.good(**{name: tensor})
                self.refuses(fragment)

    def test_hostile_files(self):
        def header(text, data=b""):
            return struct.pack("<Q", len(text)) + text + data

        def q(**changes):
            info = {"dtype": "F32", "shape": [1, 1, 1], "data_offsets": [0, 4]}
            info.update(changes)
            return json.dumps({"q": info}).encode()

        for name, content in {
                "empty": b"", "short": b"\1\2\3", "cut in the header": struct.pack("<Q", 500) + b"{",
                "huge header": struct.pack("<Q", 1 << 63) + b"{}", "no JSON": header(b"{]"),
                "no object": header(b"[1]"), "deep": header(b"[" * 100000),
                "negative shape": header(q(shape=[-1, 1, 1]), bytes(4)),
                "overflowing shape": header(q(shape=[1 << 40, 1 << 40, 1 << 40]), bytes(4)),
                "beyond the file": header(q(data_offsets=[0, 4]), bytes(2)),
                "backward range": header(q(data_offsets=[4, 0]), bytes(4)),
                "wrong size": header(q(data_offsets=[0, 8]), bytes(8)), "hole": header(q(data_offsets=[4, 8]), bytes(8)),
                "unknown dtype": header(q(dtype="F99"), bytes(4)), "no dtype": header(b'{"q": {"shape": [1,1,1]}}'),
                "control characters": header(b'{"q\\n\\u001b[31m": 3}')}.items():
            with self.subTest(name):
                self.good()
                with open(self.path("q.safetensors"), "wb") as file:
                    file.write(content)
                self.refuses("q.safetensors")

    def test_files_that_are_none(self):
        self.good()
        os.remove(self.path("k.safetensors"))
        self.refuses("k.safetensors")
        os.mkdir(self.path("k.safetensors"))
        self.refuses("k.safetensors")

    def test_bad_input_under_mpirun_is_told_once(self):
        self.good(k=f32([TOKENS + 1, KV_HEADS, WIDTH], wave))
        before = self.files()
        self.assert_refused(mpi(3, *self.arguments()), "tokens differ")
        self.assertEqual(self.files(), before)

    def test_numbers_that_are_not_finite(self):
        """Each is refused before the run, by name and place, on every rank; or allowed, and what it reaches is set apart."""
        for name, heads, value in [("k", KV_HEADS, float("nan")), ("v", KV_HEADS, float("-inf")), ("q", HEADS, float("inf")),
                                   ("do", HEADS, float("nan"))]:
            at = (9 * heads + 1) * WIDTH + 3  # token 9, head 1, column 3
            self.good(**{name: f32([TOKENS, heads, WIDTH], lambda i, at=at, value=value: value if i == at else wave(i))})
            more = ["--backward", "--grad-out", self.path("do.safetensors"), "--mask", "causal"]
            before = self.files()
            for run in (lambda *a: alone(*a, "--ranks", 2), lambda *a: mpi(3, *a)):
                with self.subTest(f"{name} {value}"):
                    self.assert_refused(run(*self.arguments(*more)), f"{name}.safetensors:{name} holds", str(value).lstrip("-"),
                                        "token 9, head 1, column 3", "--allow-nonfinite")
                    self.assertEqual(self.files(), before)
            result = alone(*self.arguments(*more, "--allow-nonfinite", "--verify", "full", "--json", "-"))
            self.assert_good(result)
            found = json.loads(result.stdout)["verification"]
            self.assertGreater(found["nonfinite"], 0)
            self.assertEqual(found["rows"] + found["keys"] + found["nonfinite"], TOKENS * (HEADS + KV_HEADS))
            self.assertTrue(found["right"])
            os.remove(self.path("out.safetensors"))

    def test_allowing_what_cannot_be(self):
        self.assert_refused(alone("run", "--allow-nonfinite"), "--allow-nonfinite", "--query")
        self.good()
        self.refuses("--inputs", "--query", more=["--inputs", "counting"])

    def test_a_full_disk_leaves_nothing(self):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (256, 256))

        self.good()
        before = self.files()
        self.assert_refused(alone(*self.arguments("--json", "-"), preexec_fn=limit), "out.safetensors", code=5)
        self.assertEqual(self.files(), before)


if __name__ == "__main__":
    support.main()
