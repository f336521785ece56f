#!/usr/bin/env python3
"""What the compiler has made of the Hopper kernels, against what is recorded. Needs no GPU.

    python3 tests/gpu/hopper_gate.py              # what build/cuda holds
    python3 tests/gpu/hopper_gate.py --renew      # records it
    python3 tests/gpu/hopper_gate.py PATH...      # objects, or folders of them

Of each kernel: registers, bytes of stack and of spills, and barriers, as ptxas said and cmake/ptxas_gate.py kept; where
cuobjdump is at hand, from the machine code: the products of a warpgroup (HGMMA), accesses to local memory, and powers
(MUFU.EX2) behind a wait that leaves products under way and before the next wait, which is what those products hide.
Numbers belong to one release of the compiler; under another, a kernel that had no stack and no spills must have none,
and one that had powers hidden must have some.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TABLE = os.path.join(ROOT, "tests/gpu/hopper_kernels.json")
BUILT = os.path.join(ROOT, "build/cuda/src/kernels/cuda/CMakeFiles/orrery_kernels_cuda_sm90.dir")
SAID, COUNTED = ("registers", "barriers", "stack", "spill_stores", "spill_loads"), ("hgmma", "local", "hidden_powers")
NEVER_MORE, NEVER_NONE = ("stack", "spill_stores", "spill_loads"), ("hidden_powers",)  # under any compiler


def base_name(symbol):
    """The last name of a mangled one: what the kernel is called."""
    found, at = symbol, 3 if symbol.startswith("_ZN") else 2
    while number := re.match(r"\d+", symbol[at:]):
        begin = at + number.end()
        at = begin + int(number.group())
        found = symbol[begin:at]
    return found


def read_log(text):
    """What ptxas said of each kernel, by its mangled name."""
    kernels = {}
    for part in re.split(r"(?=ptxas info\s*: Compiling entry function)", text)[1:]:
        name = re.search(r"function '([^']+)'", part).group(1)
        stack = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)
        registers, barriers = re.search(r"Used (\d+) registers", part), re.search(r"used (\d+) barriers", part)
        if not stack or not registers:
            raise ValueError(f"ptxas did not say all of {name}")
        numbers = (registers.group(1), barriers.group(1) if barriers else 0, *stack.groups())
        kernels[name] = dict(zip(SAID, map(int, numbers)))
    return kernels


def read_code(text):
    """What is COUNTED of each kernel, in what cuobjdump writes."""
    kernels = {}
    for part in re.split(r"(?=\bFunction : )", text)[1:]:
        name = re.match(r"Function : (\S+)", part).group(1)
        waits = re.split(r"\bWARPGROUP\.DEPBAR\.LE gsb0, 0x(\w+)", part)  # text, groups left, text, groups left, ...
        hidden = [text for left, text in zip(waits[1::2], waits[2::2]) if left != "0"]
        counts = (len(re.findall(r"\bHGMMA\.", part)), len(re.findall(r"\b(?:LDL|STL)\b", part)),
                  sum(text.count("MUFU.EX2") for text in hidden))
        kernels[name] = dict(zip(COUNTED, counts))
    return kernels


def objects_in(paths):
    objects = []
    for path in paths:
        if os.path.isdir(path):
            for folder, _, names in os.walk(path):
                objects += [os.path.join(folder, name[: -len(".ptxas")]) for name in names if name.endswith(".ptxas")]
        elif path.endswith(".cu.o"):
            objects.append(path)
    return sorted(objects)


def read_objects(objects, cuobjdump):
    """The numbers of all kernels, as INSTANCE/KERNEL."""
    found = {}
    for path in objects:
        log = path + ".ptxas"
        if not os.path.exists(log):
            raise ValueError(f"{log} is not there: was the object built without cmake/ptxas_gate.py?")
        with open(log, encoding="utf-8") as file:
            kernels = read_log(file.read())
        if cuobjdump:
            code = subprocess.run([cuobjdump, "-sass", path], stdout=subprocess.PIPE, text=True, check=True)
            for name, numbers in read_code(code.stdout).items():
                kernels.setdefault(name, {}).update(numbers)
        for name, numbers in sorted(kernels.items()):
            key = f"{os.path.basename(path)[: -len('.cu.o')]}/{base_name(name)}"
            while key in found:
                key += "'"
            found[key] = numbers
    return found


def compare(table, found, compiler):
    """What differs, in sentences."""
    same_compiler = table["compiler"] == compiler
    recorded, wrong = table["kernels"], []
    wrong += [f"{name} is recorded, and was not built" for name in sorted(recorded.keys() - found.keys())]
    wrong += [f"{name} was built, and is not recorded" for name in sorted(found.keys() - recorded.keys())]
    for name in sorted(found.keys() & recorded.keys()):
        for what, number in found[name].items():
            before = recorded[name].get(what)
            if same_compiler and before is not None and number != before:
                wrong.append(f"{name}: {what} {number}, recorded is {before}")
            elif not same_compiler and what in NEVER_MORE and before == 0 and number > 0:
                wrong.append(f"{name}: {what} {number}, recorded is 0 (with {table['compiler']})")
            elif not same_compiler and what in NEVER_NONE and before and number == 0:
                wrong.append(f"{name}: {what} 0, recorded is {before} (with {table['compiler']})")
    return wrong


def write_table(path, compiler, found):
    with open(path, "w", encoding="utf-8") as file:
        lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(found[name])}" for name in sorted(found))
        file.write(f'{{\n  "compiler": {json.dumps(compiler)},\n  "kernels": {{\n{lines}\n  }}\n}}\n')


def release_of(nvcc):
    said = subprocess.run([nvcc, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return "nvcc " + re.search(r"\bV(\d+\.\d+\.\d+)", said).group(1)


def main():
    parser = argparse.ArgumentParser(description="Compares the built Hopper kernels with the recorded ones.")
    parser.add_argument("paths", nargs="*", default=[BUILT], help="objects, or folders of them")
    parser.add_argument("--nvcc", default=shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc", help="the compiler")
    parser.add_argument("--table", default=TABLE)
    parser.add_argument("--renew", action="store_true", help="writes the table")
    options = parser.parse_args()

    compiler = release_of(options.nvcc)
    places = os.pathsep.join([os.path.dirname(options.nvcc), os.environ.get("PATH", "")])
    cuobjdump = shutil.which("cuobjdump", path=places)
    if cuobjdump is None:
        print("no cuobjdump is here: products are not counted")
        if options.renew:
            sys.exit("the table is not renewed without their counts")
    objects = objects_in(options.paths)
    if not objects:
        sys.exit("no objects of Hopper kernels in " + ", ".join(options.paths))
    found = read_objects(objects, cuobjdump)
    if options.renew:
        write_table(options.table, compiler, found)
        print(f"recorded {len(found)} kernels of {compiler}")
        return
    with open(options.table, encoding="utf-8") as file:
        table = json.load(file)
    wrong = compare(table, found, compiler)
    for sentence in wrong:
        print(sentence)
    if wrong:
        sys.exit("if it is meant: python3 tests/gpu/hopper_gate.py --renew")
    other = f"spill no more than with {table['compiler']}, and hide powers where they did"
    strength = "are as recorded" if table["compiler"] == compiler else other
    print(f"{len(found)} kernels {strength} ({compiler})")


if __name__ == "__main__":
    main()
