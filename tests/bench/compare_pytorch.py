"""The CPU kernel against PyTorch's scaled_dot_product_attention: one thread each, on the same core, alternating.

    python3 -m venv build/torch && build/torch/bin/pip install torch numpy      # from PyPI; nothing else here needs it
    taskset -c 1 build/torch/bin/python tests/bench/compare_pytorch.py build/release/orrery

Each row: fp32, one head, causal, on random normal data. Orrery's time is that of a whole pass (forward: clearing and dividing
the state included; backward: delta and the casts included), verified against float64 in the same run; PyTorch's forward runs
under no_grad, its backward is backward() alone. Medians over rounds in which the two take turns.
"""

import argparse
import json
import statistics
import subprocess
import time

import torch
import torch.nn.functional as functional


def torch_seconds(query, key, value, grad_out):
    with torch.no_grad():
        begin = time.perf_counter()
        functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        forward = time.perf_counter() - begin
    leaves = [t.detach().clone().requires_grad_() for t in (query, key, value)]
    out = functional.scaled_dot_product_attention(*leaves, is_causal=True)
    begin = time.perf_counter()
    out.backward(grad_out)
    return forward, time.perf_counter() - begin


def orrery_seconds(program, seq_len, head_dim):
    command = [program, "run", "--seq-len", seq_len, "--heads", 1, "--head-dim", head_dim, "--mask", "causal", "--backward",
               "--warmup", 1, "--repeat", 1, "--threads", 1, "--json", "-"]
    report = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)
    measured = report["measured"]
    return (measured["forward_seconds"]["median"], measured["backward_seconds"]["median"],
            report["verification"]["wrong"])


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("program", help="path of orrery")
    options.add_argument("--seq-len", type=int, default=8192)
    options.add_argument("--rounds", type=int, default=7)
    given = options.parse_args()
    torch.set_num_threads(1)
    print(f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}; {given.seq_len} tokens, causal, fp32, "
          f"1 thread, medians of {given.rounds}")
    for head_dim in (64, 128):
        tensors = [torch.randn(1, 1, given.seq_len, head_dim) for _ in range(4)]
        torch_seconds(*tensors)
        theirs, ours, wrong = [], [], 0
        for _ in range(given.rounds):
            theirs.append(torch_seconds(*tensors))
            *seconds, wrong_rows = orrery_seconds(given.program, given.seq_len, head_dim)
            ours.append(seconds)
            wrong += wrong_rows
        for which, name in enumerate(("forward", "backward")):
            a, b = (statistics.median(row[which] for row in rows) for rows in (theirs, ours))
            print(f"head_dim {head_dim:3} {name:8}  PyTorch {a:.4f} s  Orrery {b:.4f} s  {a / b:.2f} times as fast, "
                  f"{wrong} rows wrong")


if __name__ == "__main__":
    main()
