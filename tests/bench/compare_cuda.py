"""The CUDA kernels against PyTorch's FlashAttention-2 and cuDNN backends: one process, the same tensors, alternating.

    python3 tests/bench/compare_cuda.py build/cuda/src/c_api/liborrery.so

Sizes given replace those of the table. Every row has three passes: forward, backward, and backward with
deterministic=1, which PyTorch's does not promise. Orrery's are whole passes of one rank, called through liborrery.so on
PyTorch's current stream (forward: clearing and dividing the state included; backward: delta and the casts included);
PyTorch's forward is scaled_dot_product_attention with its graph kept, its backward torch.autograd.grad of that graph.

A time is that of the device, between two events around one call. Work that the device is given before them is still
under way while the host makes the call, so that what the host does counts for nobody. Medians over rounds in which all
take turns. A rate counts two operations a multiply-add, of admitted pairs: half of all under causal, the diagonal
neglected, and 2.5 times forward's for backward. A ratio above 1 says that Orrery is faster.

Results are compared with float64, on the device: out and lse on all rows, the gradients on sampled positions of every
head, by relative L2 error. A row is wrong when an error of Orrery's is above 1.1 times that of FlashAttention-2 plus
1e-6 (of cuDNN where PyTorch has no FlashAttention-2), or lse's above 1e-4; then the exit code is 3.
"""

import argparse
import contextlib
import ctypes
import json
import math
import os
import statistics
import sys
import warnings

import torch
import torch.nn.functional as functional
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "c_api"))
import orrery_ctypes as c  # noqa: E402

#        head_dim, heads, kv_heads, seq_len, batch, mask
TABLE = [(128, 16, 16, 16384, 1, "causal"), (128, 16, 16, 16384, 1, "full"),
         (128, 32, 8, 16384, 1, "causal"), (128, 32, 8, 16384, 1, "full"),
         (64, 32, 8, 16384, 1, "causal"), (64, 32, 8, 16384, 1, "full"),
         (128, 16, 16, 4096, 4, "causal")]
SIZES = ("head_dim", "heads", "kv_heads", "seq_len", "batch", "mask")
DTYPES = {"bf16": (torch.bfloat16, c.BF16), "fp16": (torch.float16, c.FP16)}
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
PASSES = ("forward", "backward", "backward_deterministic")
GRADIENTS = ("dq", "dk", "dv")
SAMPLES = 16  # positions whose gradients are compared, of every head
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
    """One rank, with an attention for either kind of backward. Both write to the same out and lse."""

    def __init__(self, library, row, inputs):
        self.library = library
        self.local = c.make(library.orrery_local_create, 1, None)
        self.context = c.make(library.orrery_local_context, self.local, 0)
        self.plan = ctypes.c_void_p()
        problem = c.Problem(batch=row["batch"], seq_len=row["seq_len"], heads=row["heads"], kv_heads=row["kv_heads"],
                            head_dim=row["head_dim"], dtype=DTYPES[row["dtype"]][1], mask=row["mask"].encode())
        self.call(library.orrery_plan_create, self.context, problem, c.PlanOptions(backward=1), ctypes.byref(self.plan))
        self.out = torch.empty_like(inputs.query)
        self.lse = torch.empty(row["batch"], row["heads"], row["seq_len"], device="cuda")
        self.attentions, self.gradients, self.kept = [], [], []
        for deterministic in (0, 1):
            self.attentions.append(self.attention(inputs, deterministic))
        self.forward()
        self.call(self.library.orrery_attention_forward, self.attentions[1])  # which its backward follows
        torch.cuda.synchronize()

    def call(self, function, *arguments):
        if function(*arguments) != c.OK:
            raise RuntimeError(self.library.orrery_last_error(self.context).decode())

    def attention(self, inputs, deterministic):
        options = c.AttentionOptions(device=c.Device(c.CUDA, torch.cuda.current_device()), use_stream=1,
                                     deterministic=deterministic, stream=torch.cuda.current_stream().cuda_stream)
        attention = ctypes.c_void_p()
        self.call(self.library.orrery_attention_create, self.context, self.plan, options, ctypes.byref(attention))
        gradients = [torch.empty_like(t) for t in (inputs.query, inputs.key, inputs.value)]
        lse = self.library.orrery_rows(self.lse.data_ptr(), *self.lse.shape)
        tensors = c.Tensors(query=view(inputs.query), key=view(inputs.key), value=view(inputs.value),
                            out=view(self.out), lse=lse, grad_out=view(inputs.grad_out),
                            grad_query=view(gradients[0]), grad_key=view(gradients[1]),
                            grad_value=view(gradients[2]))
        size = self.library.orrery_attention_workspace_bytes(attention)
        room = torch.empty(size + 256, dtype=torch.uint8, device="cuda")
        aligned = (room.data_ptr() + 255) // 256 * 256
        self.call(self.library.orrery_attention_bind, attention, tensors, aligned, size)
        self.gradients.append(dict(zip(GRADIENTS, gradients)))
        self.kept.append(room)
        return attention

    def forward(self):
        self.call(self.library.orrery_attention_forward, self.attentions[0])

    def backward(self):
        self.call(self.library.orrery_attention_backward, self.attentions[0])

    def backward_deterministic(self):
        self.call(self.library.orrery_attention_backward, self.attentions[1])

    def close(self):
        torch.cuda.synchronize()
        for attention in self.attentions:
            self.library.orrery_attention_destroy(attention)
        self.library.orrery_plan_destroy(self.plan)
        self.library.orrery_context_destroy(self.context)
        self.library.orrery_local_destroy(self.local)


def view(t):
    """A torch tensor [batch, tokens, heads, width] as the library's."""
    dtype = next(ours for theirs, ours in DTYPES.values() if theirs == t.dtype)
    return c.Tensor(t.data_ptr(), dtype, *t.shape, *t.stride()[:3])


class Torch:
    """One backend. Its leaves share the memory of the inputs."""

    def __init__(self, backend, row, inputs):
        self.backend = backend
        self.how = {"is_causal": row["mask"] == "causal", "enable_gqa": row["heads"] != row["kv_heads"]}
        self.leaves = [t.detach().requires_grad_() for t in (inputs.query, inputs.key, inputs.value)]
        self.grad_out = inputs.grad_out.transpose(1, 2)
        self.result = self.gradients = None
        self.forward()
        self.backward()
        torch.cuda.synchronize()

    def forward(self):
        with sdpa_kernel(self.backend):
            self.result = functional.scaled_dot_product_attention(*(t.transpose(1, 2) for t in self.leaves), **self.how)

    def backward(self):
        self.gradients = torch.autograd.grad(self.result, self.leaves, self.grad_out, retain_graph=True)

    def out(self):
        return self.result.detach().transpose(1, 2)


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


class Reference:
    """Attention by its definition in float64: out [batch, tokens, heads, head_dim] and lse [batch, heads, tokens] of
    all positions, gradients of `at`. Takes a chunk of queries at a time, so that a score lives for a moment only."""

    def __init__(self, row, inputs, at):
        self.at, self.causal = at, row["mask"] == "causal"
        self.scale = 1 / math.sqrt(row["head_dim"])
        self.kv_heads, self.group = row["kv_heads"], row["heads"] // row["kv_heads"]
        self.inputs = inputs
        self.key, self.value = (t.transpose(1, 2).double() for t in (inputs.key, inputs.value))  # [b, g, n, d]
        tokens = row["seq_len"]
        self.out = torch.empty(inputs.query.shape, dtype=torch.float64, device="cuda")
        self.lse = torch.empty(row["batch"], row["heads"], tokens, dtype=torch.float64, device="cuda")
        shape = (row["batch"], len(at))
        self.dq = torch.zeros(*shape, row["heads"], row["head_dim"], dtype=torch.float64, device="cuda")
        self.dk, self.dv = (torch.zeros(row["batch"], self.kv_heads, len(at), row["head_dim"], dtype=torch.float64,
                                        device="cuda") for _ in range(2))
        step = max(1, CHUNK_ELEMENTS // (row["batch"] * row["heads"] * tokens))
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
        query, grad_out = self.folded(self.inputs.query[:, begin:end]), self.folded(self.inputs.grad_out[:, begin:end])
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

    def errors(self, out, gradients):
        found = {"out": rel_l2(out, self.out)} if out is not None else {}
        for name in GRADIENTS:
            found[name] = rel_l2(gradients[name].detach()[:, self.at], getattr(self, name))
        return found


def rel_l2(got, expected):
    return (torch.linalg.vector_norm(got.double() - expected) / torch.linalg.vector_norm(expected)).item()


def forward_flops(row):
    pairs = row["batch"] * row["heads"] * row["seq_len"] ** 2 * (0.5 if row["mask"] == "causal" else 1.0)
    return 4 * pairs * row["head_dim"]


def measure(row, calls, rounds, warmup):
    """calls: (pass, who) -> function. The medians as {pass: {who: {seconds, tflops}}}."""
    taken = {key: [] for key in calls}
    for turn in range(-warmup, rounds):
        for key, call in calls.items():
            seconds = seconds_of(call)
            if turn >= 0:
                taken[key].append(seconds)
    result = {which: {} for which in PASSES}
    for (which, who), seconds in taken.items():
        median = statistics.median(seconds)
        flops = forward_flops(row) * (1.0 if which == "forward" else 2.5)
        result[which][who] = {"seconds": median, "tflops": flops / median / 1e12}
    for which in PASSES:
        opponents = result["backward" if which == "backward_deterministic" else which]
        result[which]["ratio"] = {name: opponents[name]["seconds"] / result[which]["orrery"]["seconds"]
                                  for name in BACKENDS if name in opponents}
    return result


def faults(errors):
    """The results of Orrery's that are further from float64 than they may be. NaN is above every limit."""
    theirs = next(errors[name] for name in BACKENDS if name in errors)
    wrong = []
    for who in ("orrery", "orrery_deterministic"):
        for name, error in errors[who].items():
            if name != "lse" and not error <= 1.1 * theirs[name] + 1e-6:
                wrong.append(f"{name} of {who}")
    if not errors["orrery"]["lse"] <= 1e-4:
        wrong.append("lse of orrery")
    return wrong


def compare(library, row, rounds, warmup):
    inputs = Inputs(row)
    opponents, absent = {}, {}
    for name, backend in BACKENDS.items():
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                opponents[name] = Torch(backend, row, inputs)
        except RuntimeError as error:
            absent[name] = " ".join([str(error).splitlines()[0], *(str(w.message).splitlines()[0] for w in said)])
    if not opponents:
        raise RuntimeError(f"PyTorch has neither backend: {absent}")
    with contextlib.closing(Orrery(library, row, inputs)) as ours:
        calls = {}
        for which in PASSES:
            calls[which, "orrery"] = getattr(ours, which)
            if which != "backward_deterministic":
                calls.update({(which, name): getattr(other, which) for name, other in opponents.items()})
        result = {**row, "rounds": rounds, "absent": absent, **measure(row, calls, rounds, warmup)}

        torch.cuda.synchronize()
        reference = Reference(row, inputs, sampled(row))
        errors = {"orrery": reference.errors(ours.out, ours.gradients[0]),
                  "orrery_deterministic": reference.errors(None, ours.gradients[1])}
        errors["orrery"]["lse"] = rel_l2(ours.lse, reference.lse)
        for name, other in opponents.items():
            errors[name] = reference.errors(other.out(), dict(zip(GRADIENTS, other.gradients)))
    result["errors"], result["wrong"] = errors, faults(errors)
    return result


def row_text(row):
    heads = f"{row['heads']}/{row['kv_heads']}"
    return (f"d{row['head_dim']} {heads} {row['seq_len']} x {row['batch']} {row['mask']} {row['dtype']}"
            f"{' peaked' if row['peaked'] else ''}")


def error_text(errors, which):
    if errors is None:
        return "-"
    names = [name for name in ("out", "lse") if name in errors] if which == "forward" else GRADIENTS
    return " ".join(f"{errors[name]:.1e}" for name in names)


def lines_of(result):
    """A line of the table for each pass."""
    errors = result["errors"]
    for which in PASSES:
        mine = errors["orrery_deterministic" if which == "backward_deterministic" else "orrery"]
        line = [row_text(result), which.replace("_", " "), f"{result[which]['orrery']['seconds'] * 1e3:.3f}",
                f"{result[which]['orrery']['tflops']:.1f}", error_text(mine, which)]
        for name in BACKENDS:
            theirs = result["backward" if which == "backward_deterministic" else which].get(name)
            line += [f"{theirs['tflops']:.1f}", f"{result[which]['ratio'][name]:.2f}"] if theirs else ["-", "-"]
            line.append(error_text(errors.get(name), which))
        yield line + [", ".join(result["wrong"]) or "none"]


def print_table(results):
    heading = ["row", "pass", "ms", "TFLOP/s", "error", "FA-2", "ratio", "error", "cuDNN", "ratio", "error", "wrong"]
    lines = [heading] + [line for result in results for line in lines_of(result)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heading))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())
    print("errors are relative L2 against float64: out and lse (Orrery's only) forward; dq, dk, dv backward")
    for result in results:
        for name, reason in result["absent"].items():
            print(f"{row_text(result)}: PyTorch's {name} is absent: {reason}")


def rows_of(given):
    rows = []
    for sizes in TABLE:
        row = {name: value if getattr(given, name) is None else getattr(given, name)
               for name, value in zip(SIZES, sizes)}
        if given.heads is not None and given.kv_heads is None:
            row["kv_heads"] = given.heads
        row.update(dtype=given.dtype, peaked=given.peaked, seed=given.seed)
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
    options.add_argument("--peaked", action="store_true", help="queries and keys times 8")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--rounds", type=int, default=20, help="timed calls of each, at least 20 for figures")
    options.add_argument("--warmup", type=int, default=3)
    options.add_argument("--json", metavar="FILE", help="write the rows")
    given = options.parse_args()
    if given.rounds < 1:
        options.error("--rounds is at least 1")
    library = c.load(os.path.abspath(given.library))
    if not torch.cuda.is_available():
        sys.exit("no CUDA device")
    print(f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}; "
          f"medians of {given.rounds}")
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
