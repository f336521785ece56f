"""The tables of README.md, docs/performance.md and docs/lab/record.md that are made from measurements.

    python3 tests/docs/record_tables.py             # writes every table into its page
    python3 tests/docs/record_tables.py --check     # names each table that differs from its measurements; then code 1

A page holds a table between the lines `<!-- table NAME -->` and `<!-- end -->`. GPU figures come from
tests/gpu/record.json, which tests/gpu/record.sh writes. CPU figures come from tests/bench/cpu.json, which is kept by hand.
"""

import json
import os
import re
import sys

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGES = ["README.md", os.path.join("docs", "performance.md"), os.path.join("docs", "lab", "record.md")]
TABLE = re.compile(r"(<!-- table ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def load(*path):
    with open(os.path.join(SOURCE, *path), encoding="utf-8") as file:
        return json.load(file)


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


# Rows of the record's section `compare`; masks of one shape stand in one line, divided by slashes -----------------------


def compared(record):
    return record["sections"]["compare"]["rows"]


def tokens_of(row):
    return f"{row['seq_len']:,}" + (f" x {row['batch']}" if row["batch"] > 1 else "")


def shapes(record):
    """The rows of each shape."""
    groups = {}
    for row in compared(record):
        groups.setdefault((row["head_dim"], row["heads"], row["kv_heads"], tokens_of(row), row["peaked"]), []).append(row)
    return list(groups.values())


def shape(rows):
    row = rows[0]
    masks = " / ".join(row["mask"] for row in rows) + (", peaked" if row["peaked"] else "")
    return f"{row['head_dim']}, {row['heads']} / {row['kv_heads']}, {tokens_of(row)}, {masks}"


SHAPE = "head_dim, heads / KV heads, tokens, mask"


def rate(row, which, who):
    return f"{row[which][who]['tflops']:.0f}" if who in row[which] else "absent"


def times(row, which, who, ours="orrery"):
    if who not in row[which] or ours not in row[which]:
        return "absent"
    return f"{row[which][ours]['tflops'] / row[which][who]['tflops']:.2f}"


def rates(rows, which, who):
    return " / ".join(rate(row, which, who) for row in rows)


def beside(rows, which, who, ours="orrery"):
    """Another's rates, and in brackets how many times as fast Orrery is."""
    return rates(rows, which, who) + " (" + " / ".join(times(row, which, who, ours) for row in rows) + ")"


def forward(record):
    return table([SHAPE, "Orrery", "FlashAttention-3", "cuDNN"],
                 [[shape(rows), rates(rows, "forward", "orrery"), beside(rows, "forward", "flash3"),
                   beside(rows, "forward", "cudnn")] for rows in shapes(record)])


def backward(record):
    return table([SHAPE, "in order", "any order", "FlashAttention-3", "cuDNN"],
                 [[shape(rows), rates(rows, "backward_deterministic", "orrery"), rates(rows, "backward", "orrery"),
                   beside(rows, "backward", "flash3"), beside(rows, "backward", "cudnn")] for rows in shapes(record)])


def portable(record):
    return table([SHAPE, "forward", "FlashAttention-2", "backward", "FlashAttention-2"],
                 [[shape(rows), *(cell for which in ("forward", "backward") for cell in
                                  (rates(rows, which, "orrery_portable"), beside(rows, which, "flash", "orrery_portable")))]
                  for rows in shapes(record)])


# The other sections -----------------------------------------------------------------------------------------------


def machine(record):
    compare = record["sections"]["compare"]
    cudnn = int(compare["cudnn"])
    wrong = sum(1 for row in compared(record) if row["wrong"])
    worst = max(row["errors"]["orrery"][result] / row["errors"]["cudnn"][result]
                for row in compared(record) for result in ("out", "dq", "dk", "dv"))
    return (f"Measured on {record['date']} on one {record['device']}: driver {record['driver']}, CUDA "
            f"{record['cuda_runtime']}, PyTorch {compare['pytorch']},\ncuDNN {cudnn // 10000}.{cudnn // 100 % 100}. "
            f"Of {len(compared(record))} rows {wrong} are wrong. The largest error is {worst:.2f} times that of cuDNN.\n")


def other(record):
    """What the record's remaining sections say, a line each."""
    lines = [[f"eight virtual ranks and one rank on 65,536 tokens: {row['row']}",
              f"{row['eight_ranks_seconds'] * 1e3:.1f} and {row['one_rank_seconds'] * 1e3:.1f} ms: "
              f"{row['eight_over_one']:.3f} times as long"] for row in record["sections"]["ranks"]["rows"]]
    for row in record["sections"].get("million", {}).get("rows", []):
        measured = row["measured"]
        lines.append([row["row"] + ": forward, backward; memory", f"{measured['forward_seconds']['median']:.1f} s, "
                      f"{measured['backward_seconds']['median']:.1f} s; {row['peak_over_tensors_and_workspace']:.3f} times "
                      "what the plan says"])
    kernels = record["sections"]["kernel"]["rows"]
    lines.append(["kernel suite: " + "; ".join(row["row"].removeprefix("kernel ") for row in kernels),
                  "; ".join(f"{row['forward_tflops']:.0f}, {row['backward_tflops']:.0f}" for row in kernels)
                  + " TFLOP/s forward, backward"])
    for row in record["sections"]["overhead"]["rows"]:
        lines.append([row["row"], f"{row['seconds_per_step'] * 1e6:.2f} us" if "seconds_per_step" in row else
                      f"{row['seconds_per_rank'] * 1e3:.1f} ms"])
    return table(["row", "measured"], lines)


def cpu(measured):
    return table(["head_dim, pass", "PyTorch, s", "Orrery, s", "times as fast"],
                 [[f"{row['head_dim']}, {row['pass']}", f"{row['pytorch_seconds']:.3f}", f"{row['orrery_seconds']:.3f}",
                   f"{row['times_as_fast']:.2f}"] for row in measured["rows"]])


# README: a few rows that show both where Orrery leads and where it does not.
SHOWN = [(128, 32, 16384, "causal"), (128, 32, 65536, "causal"), (128, 16, 4096, "causal"), (64, 32, 16384, "causal"),
         (256, 32, 16384, "causal")]


def speed(record, measured):
    lines = []
    device = record["device"].removeprefix("NVIDIA ")
    for row in compared(record):
        if (row["head_dim"], row["heads"], row["seq_len"], row["mask"]) not in SHOWN or row["peaked"]:
            continue
        problem = f"{tokens_of(row)} tokens, {row['heads']} / {row['kv_heads']} heads of {row['head_dim']}"
        for which in ("forward", "backward"):
            lines.append([device, problem, which, f"{rate(row, which, 'orrery')} TFLOP/s",
                          f"FlashAttention-3 {beside([row], which, 'flash3')}, cuDNN {beside([row], which, 'cudnn')}"])
    for row in measured["rows"]:
        lines.append([measured["device"], f"8,192 tokens, 1 head of {row['head_dim']}, fp32", row["pass"],
                      f"{row['orrery_seconds']:.3f} s", f"PyTorch {row['pytorch_seconds']:.3f} s ({row['times_as_fast']:.2f})"])
    return table(["device", "problem", "pass", "Orrery", "others, and how many times as fast Orrery is"], lines)


MADE_OF_RECORD = {"machine": machine, "forward": forward, "backward": backward, "portable": portable, "other": other}


def make(name, record, measured):
    """The table's text; None where the record lacks a section that the table needs."""
    try:
        if name in MADE_OF_RECORD:
            return MADE_OF_RECORD[name](record)
        return {"cpu": lambda: cpu(measured), "speed": lambda: speed(record, measured)}[name]()
    except KeyError:
        return None


def main():
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(f"usage: {sys.argv[0]} [--check]")
    record, measured = load("tests", "gpu", "record.json"), load("tests", "bench", "cpu.json")
    faults, count = [], 0
    for page in PAGES:
        with open(os.path.join(SOURCE, page), encoding="utf-8") as file:
            text = file.read()
        for opening, name, old, closing in TABLE.findall(text):
            count += 1
            new = make(name, record, measured)
            if new is None:
                faults.append(f"{page}: nothing to make table {name} from: the record lacks a section")
            elif new != old and sys.argv[1:]:
                faults.append(f"{page}: table {name} differs from its measurements; run python3 tests/docs/record_tables.py")
            elif new != old:
                text = text.replace(opening + old + closing, opening + new + closing)
        if not sys.argv[1:]:
            with open(os.path.join(SOURCE, page), "w", encoding="utf-8") as file:
                file.write(text)
    for fault in faults:
        print("record_tables: " + fault)
    print(f"record_tables: {count} tables, {len(faults)} faults")
    sys.exit(1 if faults or count == 0 else 0)


if __name__ == "__main__":
    main()
