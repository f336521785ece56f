"""The CUDA kernels against PyTorch's FlashAttention-2 and cuDNN backends, and against FlashAttention-3 where Python has
it: one process, the same tensors, calls in random order.

    python3 tests/bench/compare_cuda.py build/cuda/src/c_api/liborrery.so

Sizes given replace those of the table. Every row has three passes: forward, backward, and backward with
deterministic=1, which the others' does not promise. The first two are measured with the device's best kernels and,
unless these are the portable ones, with portable kernels. Orrery's are whole passes of one rank, called through
liborrery.so on PyTorch's current stream (forward: clearing and dividing the state included; backward: delta and the
casts included); PyTorch's forward is scaled_dot_product_attention with its graph kept, its backward torch.autograd.grad
of that graph. FlashAttention-3 is called through the operators flash_attn_3::fwd and bwd that its library registers
with PyTorch, from a package flash_attn_3 or from xformers, whose wheels up to 0.0.34 carry it (that one needs
libcudart.so.12 on LD_LIBRARY_PATH, as the wheel nvidia-cuda-runtime-cu12 has it; neither needs what pip would install
beside it).

A time is that of the device, between two events around one call. Work that the device is given before them is still
under way while the host makes the call, so that what the host does counts for nobody. Medians over as many rounds as
--rounds says. In each all are called once, in another order every time: near its power limit a device is slower after
whoever heats it, and nobody is to have the same one before him always. Above 16,384 tokens, where a call takes long,
FlashAttention-2 and portable kernels take part in every fourth round only. A rate counts two operations a multiply-add,
of admitted pairs: half of all under causal, the diagonal neglected, and 2.5 times forward's for backward. A ratio above
1 says that Orrery is faster.

After the measurements Orrery's passes run once more each, into tensors full of NaN, and all results are compared with
float64, on the device: out and lse on all rows, the gradients on sampled positions of every head. Above 16,384 tokens
only the first and the last KV head are compared, with the heads that read them, for float64 takes long. Errors are
relative L2, that of lse is the largest absolute one. A row is wrong, and the exit code 3, when

- an error of out or of a gradient, by kernels made for the device, is above 1.05 times that of cuDNN plus 1e-6;
- by portable kernels, above 1.1 times that of FlashAttention-2 plus 1e-6;
- an lse is off by more than 1e-4, or by more than its millionth part where that is more: fp32 has few digits left.

Without cuDNN all kernels are judged like portable ones, and these without FlashAttention-2 by 1.1 times cuDNN's error.
"""

import argparse
import contextlib
import ctypes
import functools
import importlib.util
import json
import math
import os
import random
import statistics
import sys
import warnings

import torch
import torch.nn.functional as functional
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "c_api"))
import orrery_ctypes as c  # noqa: E402

#        head_dim, heads, kv_heads, seq_len, batch, mask, peaked
TABLE = [(128, 16, 16, 16384, 1, "causal", False), (128, 16, 16, 16384, 1, "full", False),
         (128, 32, 8, 16384, 1, "causal", False), (128, 32, 8, 16384, 1, "full", False),
         (128, 32, 8, 65536, 1, "causal", False), (128, 32, 8, 65536, 1, "full", False),
         (64, 32, 8, 16384, 1, "causal", False), (64, 32, 8, 16384, 1, "full", False),
         (128, 16, 16, 4096, 4, "causal", False),
         (192, 32, 8, 16384, 1, "causal", False), (256, 32, 8, 16384, 1, "causal", False),
         (128, 32, 8, 16384, 1, "causal", True)]
SIZES = ("head_dim", "heads", "kv_heads", "seq_len", "batch", "mask")
LONG = 16384  # in rows of more tokens the slow are called more seldom, and fewer heads are compared
SLOW, SELDOM, LONG_WARMUP = ("orrery_portable", "flash"), 4, 1
DTYPES = {"bf16": (torch.bfloat16, c.BF16), "fp16": (torch.float16, c.FP16)}
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
OPPONENTS = {"flash": "FA-2", "cudnn": "cuDNN", "flash3": "FA-3"}
FLASH3_MODULES = ("flash_attn_3._C", "xformers.flash_attn_3._C")
PASSES = ("forward", "backward", "backward_deterministic")
GRADIENTS = ("dq", "dk", "dv")
SAMPLES = 64  # positions whose gradients are compared, of every head
CHUNK_ELEMENTS = 1 << 26  # of a float64 matrix of scores: 512 MiB
HEAD_START_CYCLES = 4_000_000  # of the device: about 2 ms, longer than the host needs for any call here


class Inputs:
    """[batch, tokens, heads, head_dim], which Orrery takes as it is and PyTorch by transposed views."""

    def __init__(self, row):
        generator = torch.Generator(device="cuda").manual_seed(row["seed"])
        dtype = DTYPES[row["dtype"]][0]

        def normal(heads, factor=1.0):
            shape = (row["batch"], row["seq_len"], heads, row["head_dim"])
            return (torch.randn(shape, generator=generator, device="cuda") * factor).to(dtype)

        factor = 8.0 if row["peaked"] else 1.0
        self.query, self.grad_out = normal(row["heads"], factor), normal(row["heads"])
        self.key, self.value = normal(row["kv_heads"], factor), normal(row["kv_heads"])


class Orrery:
    """One rank, with an attention for each kind of kernels and of backward. All write to the same tensors."""

    KINDS = {"orrery": {"deterministic": 0}, "orrery_deterministic": {"deterministic": 1},
             "orrery_portable": {"deterministic": 0, "portable_kernels": 1}}

    def __init__(self, library, row, inputs):
        self.library = library
        self.local = c.make(library.orrery_local_create, 1, None)
        self.context = c.make(library.orrery_local_context, self.local, 0)
        self.plan = ctypes.c_void_p()
        self.attentions, self.kernels, self.rooms = {}, {}, {}
        problem = c.Problem(batch=row["batch"], seq_len=row["seq_len"], heads=row["heads"], kv_heads=row["kv_heads"],
                            head_dim=row["head_dim"], dtype=DTYPES[row["dtype"]][1], mask=row["mask"].encode())
        self.call(library.orrery_plan_create, self.context, problem, c.PlanOptions(backward=1), ctypes.byref(self.plan))
        self.out = torch.empty_like(inputs.query)
        self.lse = torch.empty(row["batch"], row["heads"], row["seq_len"], device="cuda")
        self.gradients = dict(zip(GRADIENTS, (torch.empty_like(t) for t in (inputs.query, inputs.key, inputs.value))))
        for kind, options in self.KINDS.items():
            self.add(kind, inputs, options)
            if kind == "orrery_portable" and self.kernels[kind] == self.kernels["orrery"]:
                self.destroy(kind)  # the best are the portable ones
            else:
                self.forward(kind)  # which its backward follows
        torch.cuda.synchronize()

    def call(self, function, *arguments):
        if function(*arguments) != c.OK:
            raise RuntimeError(self.library.orrery_last_error(self.context).decode())

    def add(self, kind, inputs, more):
        options = c.AttentionOptions(device=c.Device(c.CUDA, torch.cuda.current_device()), use_stream=1,
                                     stream=torch.cuda.current_stream().cuda_stream, **more)
        attention = ctypes.c_void_p()
        self.call(self.library.orrery_attention_create, self.context, self.plan, options, ctypes.byref(attention))
        self.attentions[kind] = attention
        self.kernels[kind] = {name: self.library.orrery_attention_kernels(attention, which).decode()
                              for name, which in (("forward", c.FORWARD), ("backward", c.BACKWARD))}
        lse = self.library.orrery_rows(self.lse.data_ptr(), *self.lse.shape)
        dq, dk, dv = (view(self.gradients[name]) for name in GRADIENTS)
        tensors = c.Tensors(query=view(inputs.query), key=view(inputs.key), value=view(inputs.value),
                            out=view(self.out), lse=lse, grad_out=view(inputs.grad_out), grad_query=dq, grad_key=dk,
                            grad_value=dv)
        size = self.library.orrery_attention_workspace_bytes(attention)
        room = torch.empty(size + 256, dtype=torch.uint8, device="cuda")
        aligned = (room.data_ptr() + 255) // 256 * 256
        self.call(self.library.orrery_attention_bind, attention, tensors, aligned, size)
        self.rooms[kind] = room

    def forward(self, kind):
        self.call(self.library.orrery_attention_forward, self.attentions[kind])

    def backward(self, kind):
        self.call(self.library.orrery_attention_backward, self.attentions[kind])

    def spoil(self):
        for t in (self.out, self.lse, *self.gradients.values()):
            t.fill_(math.nan)

    def destroy(self, kind):
        torch.cuda.synchronize()
        self.library.orrery_attention_destroy(self.attentions.pop(kind))
        del self.rooms[kind]

    def close(self):
        for kind in list(self.attentions):
            self.destroy(kind)
        self.library.orrery_plan_destroy(self.plan)
        self.library.orrery_context_destroy(self.context)
        self.library.orrery_local_destroy(self.local)


def view(t):
    """A torch tensor [batch, tokens, heads, width] as the library's."""
    dtype = next(ours for theirs, ours in DTYPES.values() if theirs == t.dtype)
    return c.Tensor(t.data_ptr(), dtype, *t.shape, *t.stride()[:3])


class Backend:
    """A backend of PyTorch's scaled_dot_product_attention under torch.autograd. Its leaves share the inputs' memory."""

    def __init__(self, attend, inputs):
        self.attend = attend
        self.leaves = [t.detach().requires_grad_() for t in (inputs.query, inputs.key, inputs.value)]
        self.grad_out = inputs.grad_out
        self.result = self.gradients = None
        self.forward()
        self.backward()
        torch.cuda.synchronize()

    def forward(self):
        self.result = self.attend(*self.leaves)

    def backward(self):
        self.gradients = torch.autograd.grad(self.result, self.leaves, self.grad_out, retain_graph=True)


def backend_of_torch(backend, row):
    how = {"is_causal": row["mask"] == "causal", "enable_gqa": row["heads"] != row["kv_heads"]}

    def attend(*tensors):
        with sdpa_kernel(backend):
            return functional.scaled_dot_product_attention(*(t.transpose(1, 2) for t in tensors), **how).transpose(1, 2)
    return attend


class Flash3:
    """FlashAttention-3, called as its own Python interface calls it. An ImportError says why it is not here."""

    def __init__(self, row, inputs):
        load_flash3()
        self.tensors, self.grad_out = (inputs.query, inputs.key, inputs.value), inputs.grad_out
        self.how = {"is_causal": row["mask"] == "causal"}
        self.result = self.lse = self.gradients = None
        self.forward()
        self.backward()
        torch.cuda.synchronize()

    def forward(self):
        self.result, self.lse, *_ = torch.ops.flash_attn_3.fwd(*self.tensors, num_splits=1, **self.how)

    def backward(self):
        self.gradients = torch.ops.flash_attn_3.bwd(self.grad_out, *self.tensors, self.result, self.lse,
                                                    *(torch.empty_like(t) for t in self.tensors), **self.how)[:3]


@functools.cache
def load_flash3():
    missing = []
    for name in FLASH3_MODULES:
        try:
            torch.ops.load_library(importlib.util.find_spec(name).origin)
            return
        except (ImportError, OSError, AttributeError) as error:  # AttributeError: the package has no such module
            missing.append(f"{name}: {error}")
    raise ImportError("; ".join(missing))


def opponents_of(row, inputs):
    """name -> Backend or Flash3 of those who are here, name -> why not of the others."""
    found, absent = {}, {}
    for name in OPPONENTS:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                if name in BACKENDS:
                    found[name] = Backend(backend_of_torch(BACKENDS[name], row), inputs)
                else:
                    found[name] = Flash3(row, inputs)
            except (RuntimeError, ImportError, AttributeError) as error:  # the last: a library without these operators
                absent[name] = " ".join([*str(error).splitlines()[:1], *(str(w.message).splitlines()[0] for w in said)])
    if not any(name in found for name in BACKENDS):
        raise RuntimeError(f"PyTorch has neither backend: {absent}")
    return found, absent


def seconds_of(call):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(HEAD_START_CYCLES)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def sampled(row):
    """Positions of the sequence: both ends and some between."""
    generator = torch.Generator().manual_seed(row["seed"] + 1)
    between = torch.randint(row["seq_len"], (SAMPLES - 2,), generator=generator).tolist()
    return torch.tensor(sorted({0, row["seq_len"] - 1, *between}), device="cuda")


def heads_compared(row):
    """KV heads, and the query heads that read them."""
    kv_heads = range(row["kv_heads"]) if row["seq_len"] <= LONG else sorted({0, row["kv_heads"] - 1})
    group = row["heads"] // row["kv_heads"]
    heads = [g * group + h for g in kv_heads for h in range(group)]
    return torch.tensor(list(kv_heads), device="cuda"), torch.tensor(heads, device="cuda")


class Reference:
    """Attention by its definition in float64, of the heads compared: out [batch, tokens, heads, head_dim] and lse
    [batch, heads, tokens] of all positions, gradients of `at`. Takes a chunk of queries at a time, so that a score
    lives for a moment only."""

    def __init__(self, row, inputs, at):
        self.at, self.causal = at, row["mask"] == "causal"
        self.scale = 1 / math.sqrt(row["head_dim"])
        self.kv, self.heads = heads_compared(row)
        self.kv_heads, self.group = len(self.kv), row["heads"] // row["kv_heads"]
        self.query, self.grad_out = (t[:, :, self.heads] for t in (inputs.query, inputs.grad_out))
        self.key, self.value = (t[:, :, self.kv].transpose(1, 2).double() for t in (inputs.key, inputs.value))
        tokens, heads = row["seq_len"], len(self.heads)  # keys and values: [b, g, n, d]
        self.out = torch.empty(self.query.shape, dtype=torch.float64, device="cuda")
        self.lse = torch.empty(row["batch"], heads, tokens, dtype=torch.float64, device="cuda")
        shape = (row["batch"], len(at))
        self.dq = torch.zeros(*shape, heads, row["head_dim"], dtype=torch.float64, device="cuda")
        self.dk, self.dv = (torch.zeros(row["batch"], self.kv_heads, len(at), row["head_dim"], dtype=torch.float64,
                                        device="cuda") for _ in range(2))
        step = max(1, CHUNK_ELEMENTS // (row["batch"] * heads * tokens))
        for begin in range(0, tokens, step):
            self.take(begin, min(begin + step, tokens), tokens)
        self.dk, self.dv = self.dk.transpose(1, 2), self.dv.transpose(1, 2)

    def folded(self, t):
        """[b, i, h, d] as [b, kv head, (head of its group, i), d]: heads of a group share keys, like more queries."""
        b, i, _, d = t.shape
        t = t.double().reshape(b, i, self.kv_heads, self.group, d)
        return t.permute(0, 2, 3, 1, 4).reshape(b, self.kv_heads, self.group * i, d)

    def unfolded(self, t):
        b, _, rows, d = t.shape
        t = t.reshape(b, self.kv_heads, self.group, rows // self.group, d).permute(0, 3, 1, 2, 4)
        return t.reshape(b, rows // self.group, self.kv_heads * self.group, d)

    def take(self, begin, end, tokens):
        keys = end if self.causal else tokens
        query, grad_out = self.folded(self.query[:, begin:end]), self.folded(self.grad_out[:, begin:end])
        key, value = self.key[:, :, :keys], self.value[:, :, :keys]
        position = torch.arange(begin, end, device="cuda").repeat(self.group)
        p = query @ key.transpose(-1, -2)
        p *= self.scale
        if self.causal:
            p.masked_fill_(torch.arange(keys, device="cuda") > position[:, None], -math.inf)
        lse = p.logsumexp(-1, keepdim=True)
        p -= lse
        p.exp_()
        out = p @ value
        delta = (grad_out * out).sum(-1, keepdim=True)
        self.out[:, begin:end] = self.unfolded(out)
        self.lse[:, :, begin:end] = self.unfolded(lse).squeeze(-1).transpose(1, 2)

        seen = self.at < keys
        columns = self.at[seen]
        p_at = p[..., columns]
        ds_at = p_at * (grad_out @ value[:, :, columns].transpose(-1, -2) - delta) * self.scale
        self.dv[:, :, seen] += p_at.transpose(-1, -2) @ grad_out
        self.dk[:, :, seen] += ds_at.transpose(-1, -2) @ query

        mine = (self.at >= begin) & (self.at < end)
        rows = torch.isin(position, self.at[mine])  # in the order of self.at within every head
        if rows.any():
            ds = p[:, :, rows] * (grad_out[:, :, rows] @ value.transpose(-1, -2) - delta[:, :, rows]) * self.scale
            self.dq[:, mine] = self.unfolded(ds @ key)

    def errors(self, out, lse, gradients):
        """What was kept of a pass, with float64. lse: None where nobody gives it."""
        found = {"out": rel_l2(out.detach()[:, :, self.heads], self.out)}
        if lse is not None:
            off = (lse[:, self.heads].double() - self.lse).abs()
            found["lse"] = off.max().item()
            found["lse_over_limit"] = (off / (self.lse.abs() * 1e-6).clamp(min=1e-4)).max().item()
        for name in GRADIENTS:
            heads = self.heads if name == "dq" else self.kv
            found[name] = rel_l2(gradients[name].detach()[:, self.at][:, :, heads], getattr(self, name))
        return found


def rel_l2(got, expected):
    return (torch.linalg.vector_norm(got.double() - expected) / torch.linalg.vector_norm(expected)).item()


def forward_flops(row):
    pairs = row["batch"] * row["heads"] * row["seq_len"] ** 2 * (0.5 if row["mask"] == "causal" else 1.0)
    return 4 * pairs * row["head_dim"]


def measure(row, calls, rounds, warmup):
    """calls: (pass, who) -> function. The medians as {pass: {who: {seconds, tflops}, ratio: {opponent: ...}}}."""
    taken = {key: [] for key in calls}
    order, shuffled = list(calls), random.Random(row["seed"])
    for turn in range(-warmup, rounds):
        shuffled.shuffle(order)
        for key in order:
            if row["seq_len"] > LONG and key[1] in SLOW and turn >= 0 and turn % SELDOM:
                continue
            seconds = seconds_of(calls[key])
            if turn >= 0:
                taken[key].append(seconds)
    result = {which: {} for which in PASSES}
    for (which, who), seconds in taken.items():
        median = statistics.median(seconds)
        flops = forward_flops(row) * (1.0 if which == "forward" else 2.5)
        result[which][who] = {"seconds": median, "tflops": flops / median / 1e12, "calls": len(seconds)}
    for which in PASSES:
        others = result["backward" if which == "backward_deterministic" else which]
        for who, ratio in (("orrery", "ratio"), ("orrery_portable", "ratio_portable")):
            if who in result[which]:
                result[which][ratio] = {name: others[name]["seconds"] / result[which][who]["seconds"]
                                        for name in OPPONENTS if name in others}
    return result


def limit(errors, kernels, name):
    """The most by which these kernels may be off in `name`."""
    flash, cudnn = errors.get("flash"), errors.get("cudnn")
    if kernels != "portable" and cudnn:
        return 1.05 * cudnn[name] + 1e-6
    return 1.1 * (flash or cudnn)[name] + 1e-6


def faults(errors, kernels):
    """The results of Orrery's that are further from float64 than they may be. NaN is above every limit."""
    wrong = []
    for who in kernels:
        for name in ("out", *GRADIENTS):
            of_pass = kernels[who]["forward" if name == "out" else "backward"]
            if not errors[who][name] <= limit(errors, of_pass, name):
                wrong.append(f"{name} of {who}")
        if not errors[who]["lse_over_limit"] <= 1:
            wrong.append(f"lse of {who}")
    return wrong


def compare(library, row, rounds, warmup):
    if row["seq_len"] > LONG:
        warmup = min(warmup, LONG_WARMUP)
    inputs = Inputs(row)
    opponents, absent = opponents_of(row, inputs)
    with contextlib.closing(Orrery(library, row, inputs)) as ours:
        calls = {}
        for which in ("forward", "backward"):
            for who in ours.attentions:
                if who != "orrery_deterministic":
                    calls[which, who] = functools.partial(getattr(ours, which), who)
            calls.update({(which, name): getattr(other, which) for name, other in opponents.items()})
        calls["backward_deterministic", "orrery"] = functools.partial(ours.backward, "orrery_deterministic")
        kernels = {who: ours.kernels[who] for who in ours.attentions}
        result = {**row, "rounds": rounds, "absent": absent, "kernels": kernels, **measure(row, calls, rounds, warmup)}

        torch.cuda.synchronize()
        reference = Reference(row, inputs, sampled(row))
        errors = {name: reference.errors(other.result, None, dict(zip(GRADIENTS, other.gradients)))
                  for name, other in opponents.items()}
        for who in ours.attentions:
            ours.spoil()
            ours.forward(who)
            ours.backward(who)
            errors[who] = reference.errors(ours.out, ours.lse, ours.gradients)
    result["errors"], result["wrong"] = errors, faults(errors, kernels)
    return result


def row_text(row):
    heads = f"{row['heads']}/{row['kv_heads']}"
    return (f"d{row['head_dim']} {heads} {row['seq_len']} x {row['batch']} {row['mask']} {row['dtype']}"
            f"{' peaked' if row['peaked'] else ''}")


def error_text(errors, which):
    names = [name for name in ("out", "lse") if name in errors] if which == "forward" else GRADIENTS
    return " ".join(f"{errors[name]:.1e}" for name in names)


def rate_text(result, which, who, ratio):
    """Rate, ratio and errors of who is not Orrery's best."""
    times = result["backward" if which == "backward_deterministic" and who in OPPONENTS else which].get(who)
    if times is None:
        return ["-"] * 3
    return [f"{times['tflops']:.1f}", f"{ratio:.2f}", error_text(result["errors"][who], which)]


def lines_of(result, others):
    """A line of the table for each pass."""
    for which in PASSES:
        deterministic = which == "backward_deterministic"
        mine, best = ("orrery_deterministic" if deterministic else "orrery"), result[which]["orrery"]
        line = [row_text(result), which.replace("_", " "),
                result["kernels"][mine]["forward" if which == "forward" else "backward"],
                f"{best['seconds'] * 1e3:.3f}", f"{best['tflops']:.1f}", error_text(result["errors"][mine], which)]
        for who in others:
            if who == "orrery_portable":
                ratio = next(iter(result[which].get("ratio_portable", {}).values()), math.nan)  # FlashAttention-2's
            else:
                ratio = result[which]["ratio"].get(who)
            line += rate_text(result, which, who, ratio)
        yield line + [", ".join(result["wrong"]) or "none"]


def print_table(results):
    there = [who for who in ("orrery_portable", *OPPONENTS) if any(who in result["errors"] for result in results)]
    heading = ["row", "pass", "kernels", "ms", "TFLOP/s", "error"]
    for who in there:
        heading += [OPPONENTS.get(who, "portable"), "ratio" if who in OPPONENTS else "to FA-2", "error"]
    heading.append("wrong")
    lines = [heading] + [line for result in results for line in lines_of(result, there)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heading))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())
    print("errors against float64: relative L2 of out, largest of lse (Orrery's only); relative L2 of dq, dk, dv")
    absent = {}
    for result in results:
        for name, reason in result["absent"].items():
            absent.setdefault((name, reason), []).append(row_text(result))
    for (name, reason), rows in absent.items():
        where = "" if len(rows) == len(results) else f" of {', '.join(rows)}"
        print(f"{OPPONENTS[name]} is absent{where}: {reason}")


def rows_of(given):
    rows = []
    for sizes in TABLE:
        row = {name: value if getattr(given, name) is None else getattr(given, name)
               for name, value in zip(SIZES, sizes[:-1])}
        if given.heads is not None and given.kv_heads is None:
            row["kv_heads"] = given.heads
        row.update(dtype=given.dtype, peaked=given.peaked or sizes[-1], seed=given.seed)
        if row not in rows:
            rows.append(row)
    return rows


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("library", nargs="?", default="build/cuda/src/c_api/liborrery.so", help="path of liborrery.so")
    for name in SIZES[:-1]:
        options.add_argument("--" + name.replace("_", "-"), type=int)
    options.add_argument("--mask", choices=("causal", "full"))
    options.add_argument("--dtype", choices=tuple(DTYPES), default="bf16")
    options.add_argument("--peaked", action="store_true", help="queries and keys times 8, in every row")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--rounds", type=int, default=20,
                         help="timed calls of each, at least 20 for figures")
    options.add_argument("--warmup", type=int, default=3)
    options.add_argument("--json", metavar="FILE", help="write the rows")
    given = options.parse_args()
    if given.rounds < 1:
        options.error("--rounds is at least 1")
    library = c.load(os.path.abspath(given.library))
    if not torch.cuda.is_available():
        sys.exit("no CUDA device")
    print(f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}; "
          f"medians of {given.rounds}, of the slow every {SELDOM}th above {LONG} tokens")
    results = []
    for row in rows_of(given):
        print(f"  {row_text(row)}", file=sys.stderr, flush=True)
        results.append(compare(library, row, given.rounds, given.warmup))
        torch.cuda.empty_cache()
    print_table(results)
    if given.json:
        document = {"pytorch": torch.__version__, "cudnn": torch.backends.cudnn.version(),
                    "device": torch.cuda.get_device_name(), "rows": results}
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
    sys.exit(3 if any(result["wrong"] for result in results) else 0)


if __name__ == "__main__":
    main()
