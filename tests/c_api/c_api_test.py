"""liborrery.so from Python, by ctypes: ranks that are Python threads, whose results are those of attention written down
in Python's own float64. And what the library looks like from outside: where fields lie, which symbols it shows.

Run as `python3 c_api_test.py LIBRARY LAYOUT_PROGRAM NM [unittest options]`.
"""

import ctypes
import math
import os
import signal
import subprocess
import sys
import threading
import time
import unittest
from ctypes import byref

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import orrery_ctypes as c  # noqa: E402

LIBRARY = LAYOUT = NM = ""
orrery = None

SEED, SEQ_LEN, HEADS, KV_HEADS, DIM = 3, 37, 4, 2, 8


def generated(which, position, head):
    return [orrery.orrery_generated_value(which, SEED, 0, position, head, column) for column in range(DIM)]


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b))


def reference():
    """Causal attention and its gradients, by the definition: {name: {(position, head): row}}."""
    heads, kv_heads, everywhere = range(HEADS), range(KV_HEADS), range(SEQ_LEN)
    q = {(i, h): generated(c.QUERY, i, h) for i in everywhere for h in heads}
    do = {(i, h): generated(c.GRAD_OUT, i, h) for i in everywhere for h in heads}
    k = {(j, g): generated(c.KEY, j, g) for j in everywhere for g in kv_heads}
    v = {(j, g): generated(c.VALUE, j, g) for j in everywhere for g in kv_heads}
    scale = 1 / math.sqrt(DIM)
    out, lse, dq = {}, {}, {}
    dk, dv = {at: [0.0] * DIM for at in k}, {at: [0.0] * DIM for at in v}
    for (i, h), query in q.items():
        g = h // (HEADS // KV_HEADS)
        scores = [scale * dot(query, k[j, g]) for j in range(i + 1)]
        lse[i, h] = [math.log(math.fsum(map(math.exp, scores)))]
        p = [math.exp(score - lse[i, h][0]) for score in scores]
        out[i, h] = [math.fsum(p[j] * v[j, g][x] for j in range(i + 1)) for x in range(DIM)]
        delta = dot(do[i, h], out[i, h])
        ds = [p[j] * (dot(do[i, h], v[j, g]) - delta) * scale for j in range(i + 1)]
        dq[i, h] = [math.fsum(ds[j] * k[j, g][x] for j in range(i + 1)) for x in range(DIM)]
        for j in range(i + 1):
            for x in range(DIM):
                dk[j, g][x] += ds[j] * query[x]
                dv[j, g][x] += p[j] * do[i, h][x]
    return {"out": out, "lse": lse, "grad_query": dq, "grad_key": dk, "grad_value": dv}


class Rank:
    """One rank of an attention, on the calling thread."""

    def __init__(self, local, rank):
        self.context = c.make(orrery.orrery_local_context, local, rank)
        self.results = {}
        self.memory = []
        try:
            self.run()
        finally:
            orrery.orrery_context_destroy(self.context)

    def call(self, function, *arguments):
        if function(*arguments) != c.OK:
            raise RuntimeError(orrery.orrery_last_error(self.context).decode())

    def tensor(self, tokens, heads):
        self.memory.append((ctypes.c_float * (tokens * heads * DIM + 1))())
        return orrery.orrery_dense(self.memory[-1], c.FP32, 1, tokens, heads, DIM)

    def run(self):
        problem = c.Problem(seq_len=SEQ_LEN, heads=HEADS, kv_heads=KV_HEADS, head_dim=DIM, mask=b"causal")
        plan, attention = ctypes.c_void_p(), ctypes.c_void_p()
        self.call(orrery.orrery_context_use_device, self.context, c.Device())
        self.call(orrery.orrery_plan_create, self.context, problem, c.PlanOptions(backward=1), byref(plan))
        rank = orrery.orrery_context_rank(self.context)
        tokens = orrery.orrery_plan_positions(plan, rank, None, 0)
        positions = (ctypes.c_int64 * (tokens + 1))()
        orrery.orrery_plan_positions(plan, rank, positions, tokens)

        query, out, grad_out, grad_query = (self.tensor(tokens, HEADS) for _ in range(4))
        key, value, grad_key, grad_value = (self.tensor(tokens, KV_HEADS) for _ in range(4))
        self.memory.append((ctypes.c_float * (tokens * HEADS + 1))())
        tensors = c.Tensors(query=query, key=key, value=value, out=out,
                            lse=orrery.orrery_rows(self.memory[-1], 1, HEADS, tokens), grad_out=grad_out,
                            grad_query=grad_query, grad_key=grad_key, grad_value=grad_value)
        for which, tensor in ((c.QUERY, tensors.query), (c.KEY, tensors.key), (c.VALUE, tensors.value),
                              (c.GRAD_OUT, tensors.grad_out)):
            self.call(orrery.orrery_generate, self.context, plan, which, SEED, tensor, c.Device())

        self.call(orrery.orrery_attention_create, self.context, plan, c.AttentionOptions(), byref(attention))
        size = orrery.orrery_attention_workspace_bytes(attention)
        room = (ctypes.c_char * (size + 64))()
        workspace = (ctypes.addressof(room) + 63) // 64 * 64
        self.call(orrery.orrery_attention_bind, attention, tensors, workspace, size)
        self.call(orrery.orrery_attention_forward, attention)
        self.call(orrery.orrery_attention_backward, attention)
        self.call(orrery.orrery_attention_wait, attention)
        found = c.Verification()
        self.call(orrery.orrery_attention_verify, attention, c.VerifyOptions(full=1), found)
        assert found.rows == SEQ_LEN * HEADS and found.wrong == 0
        timeline = c.Timeline()
        self.call(orrery.orrery_attention_timeline, attention, c.FORWARD, timeline)
        assert timeline.seconds > 0
        orrery.orrery_plan_destroy(plan)
        orrery.orrery_attention_destroy(attention)

        for name in ("out", "lse", "grad_query", "grad_key", "grad_value"):
            t = getattr(tensors, name)
            data = ctypes.cast(t.data, ctypes.POINTER(ctypes.c_float))
            self.results[name] = {
                (positions[i], h): [data[i * t.token_stride + h * t.head_stride + x] for x in range(t.width)]
                for i in range(tokens) for h in range(t.heads)}


class Attention(unittest.TestCase):
    def run_on(self, ranks):
        local = c.make(orrery.orrery_local_create, ranks, c.ContextOptions(timeout_seconds=60))
        done, errors = [], []

        def body(rank):
            try:
                done.append(Rank(local, rank))
            except Exception as error:  # noqa: BLE001: told by the main thread
                errors.append(error)

        threads = [threading.Thread(target=body, args=(rank,)) for rank in range(ranks)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        orrery.orrery_local_destroy(local)
        self.assertEqual(errors, [])
        return {name: {at: row for rank in done for at, row in rank.results[name].items()} for name in done[0].results}

    def test_is_what_float64_says(self):
        expected = reference()
        for ranks in (1, 3):
            results = self.run_on(ranks)
            for name, rows in expected.items():
                self.assertEqual(results[name].keys(), rows.keys())
                for at, row in rows.items():
                    for got, wanted in zip(results[name][at], row):
                        self.assertAlmostEqual(got, wanted, delta=2e-5 * (1 + abs(wanted)), msg=f"{name} {at} P={ranks}")

    def test_refusals_come_back_as_text(self):
        local = c.make(orrery.orrery_local_create, 1, None)
        context = c.make(orrery.orrery_local_context, local, 0)
        plan = ctypes.c_void_p()
        self.assertEqual(orrery.orrery_plan_create(context, c.Problem(seq_len=4, mask=b"diagonal"), None, byref(plan)),
                         c.INVALID)
        self.assertIn(b"diagonal", orrery.orrery_last_error(context))
        self.assertFalse(plan)
        with self.assertRaisesRegex(RuntimeError, "world of 0"):
            c.make(orrery.orrery_local_create, 0, None)
        orrery.orrery_context_destroy(context)
        orrery.orrery_local_destroy(local)

    def test_control_c_ends_a_wait_for_a_peer(self):
        """A process of its own, whose main thread waits at a barrier for a rank that never comes."""
        script = """if True:
            import sys
            sys.path.insert(0, sys.argv[2])
            import orrery_ctypes as c
            orrery = c.load(sys.argv[1])
            interruptible = c.Interruptible()
            local = c.make(orrery.orrery_local_create, 2, c.ContextOptions(timeout_seconds=100,
                                                                           interrupted=interruptible.hook))
            context = c.make(orrery.orrery_local_context, local, 0)
            print("waits", flush=True)
            status = orrery.orrery_context_barrier(context)
            try:
                interruptible.check()
            except KeyboardInterrupt:
                print(status, orrery.orrery_last_error(context).decode(), flush=True)
            orrery.orrery_context_destroy(context)
            orrery.orrery_local_destroy(local)
            """
        here = os.path.dirname(os.path.abspath(__file__))
        with subprocess.Popen([sys.executable, "-c", script, LIBRARY, here], stdout=subprocess.PIPE, text=True) as process:
            self.assertEqual(process.stdout.readline(), "waits\n")
            time.sleep(0.3)  # until it does
            process.send_signal(signal.SIGINT)
            began = time.monotonic()
            said, _ = process.communicate(timeout=60)
        self.assertLess(time.monotonic() - began, 20)
        self.assertEqual(said, f"{c.INTERRUPTED} a wait for other ranks was interrupted\n")
        self.assertEqual(process.returncode, 0)

    def test_plans_are_proved_without_a_world(self):
        problem = c.Problem(seq_len=4096, mask=b"causal")
        with self.assertRaisesRegex(RuntimeError, "keys=-1"):
            c.make(orrery.orrery_plan_for, 16, 4, problem, c.PlanOptions(keys_per_step=-1))
        with self.assertRaisesRegex(RuntimeError, "link of -1"):
            c.make(orrery.orrery_plan_for, 16, 4, problem, c.PlanOptions(link_bytes_per_second=-1))
        plan = c.make(orrery.orrery_plan_for, 16, 4, problem,
                      c.PlanOptions(backward=1, keys_per_step=1024, link_bytes_per_second=1e11))
        findings = ctypes.c_int64(-1)
        self.assertEqual(orrery.orrery_plan_check(plan, 0, byref(findings), None, 0), 0)
        self.assertEqual(findings.value, 0)
        self.assertIn(b"seq_len=4096", orrery.orrery_plan_text(plan))
        self.assertIn(b"strategy=ring:keys=1024,backward-keys=0,keep=yes", orrery.orrery_plan_text(plan))
        self.assertIn(b"between_nodes=100000000000", orrery.orrery_plan_text(plan))
        orrery.orrery_plan_destroy(plan)

    def test_options_in_the_text_and_in_fields_of_old_make_the_same_plan(self):
        problem = c.Problem(seq_len=4096, mask=b"causal")

        def text(**options):
            plan = c.make(orrery.orrery_plan_for, 8, 8, problem, c.PlanOptions(backward=1, **options))
            known = orrery.orrery_plan_text(plan)
            orrery.orrery_plan_destroy(plan)
            return known

        self.assertEqual(text(strategy=b"ring:keys=2048,backward-keys=0,keep=no"),
                         text(strategy=b"ring", keys_per_step=2048, keep_key_value=0))
        self.assertEqual(text(keys_per_step=2048, backward_keys_per_step=1024), text(strategy=b"auto:keys=2048,backward-keys=1024"))
        self.assertIn(b" strategy=gather ", text(strategy=b"gather", keys_per_step=2048))  # to which they mean nothing
        self.assertIn(b"ring:keys=65536,backward-keys=65536,keep=yes", text(link_bytes_per_second=3e11))
        with self.assertRaisesRegex(RuntimeError, "its options are: keys=N.auto"):
            text(strategy=b"ring:key=1")

    def test_strategies_are_listed_with_their_options(self):
        def listed(function):
            needed = function(None, 0)
            lines = ctypes.create_string_buffer(needed + 1)
            self.assertEqual(function(lines, len(lines)), needed)
            return lines.value

        self.assertIn(b"gather each rank", listed(orrery.orrery_strategies))
        self.assertIn(b"ring keep=yes|no yes the backward pass", listed(orrery.orrery_strategy_options))


class Outside(unittest.TestCase):
    def test_fields_lie_where_c_puts_them(self):
        lines = subprocess.run([LAYOUT], capture_output=True, text=True, check=True).stdout.splitlines()
        seen = set()
        for line in lines:
            name, field, offset, size = line.split()
            structure = c.STRUCTURES[name]
            place = (0, ctypes.sizeof(structure)) if field == "-" else (getattr(structure, field).offset,
                                                                        getattr(structure, field).size)
            self.assertEqual(place, (int(offset), int(size)), line)
            seen.add((name, field))
        described = {(name, field) for name, structure in c.STRUCTURES.items() for field, _ in structure._fields_}
        self.assertEqual({(name, field) for name, field in described if field != "struct_size"},
                         {(name, field) for name, field in seen if field != "-"})

    def test_only_functions_of_the_header_are_shown(self):
        listed = subprocess.run([NM, "-D", "--defined-only", LIBRARY], capture_output=True, text=True,
                                check=True).stdout.splitlines()
        symbols = {line.split()[-1].split("@")[0] for line in listed if line.split()[-2] != "A"}
        header = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../include/orrery/orrery.h")
        with open(header, encoding="utf-8") as file:
            declared = {part.split("(")[0].split()[-1].lstrip("*") for part in file.read().split("\nORRERY_API ")[1:]}
        self.assertEqual(symbols, declared)
        self.assertGreaterEqual(symbols, set(c.FUNCTIONS))

    def test_versions_fit(self):
        self.assertEqual(orrery.orrery_abi_version(), 1)
        self.assertRegex(orrery.orrery_version().decode(), r"^\d+\.\d+\.\d+$")
        needed = orrery.orrery_machine(None, 0)
        text = ctypes.create_string_buffer(needed + 1)
        self.assertEqual(orrery.orrery_machine(text, len(text)), needed)
        self.assertIn(b"\ncores ", text.value)


def main():
    global LIBRARY, LAYOUT, NM, orrery
    if len(sys.argv) < 4:
        sys.exit(f"usage: {sys.argv[0]} LIBRARY LAYOUT_PROGRAM NM [unittest options]")
    LIBRARY, LAYOUT, NM = sys.argv[1:4]
    orrery = c.load(LIBRARY)
    unittest.main(module="__main__", argv=[sys.argv[0], *sys.argv[4:]])


if __name__ == "__main__":
    main()
