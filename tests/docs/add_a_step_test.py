"""docs/add-a-step.md, followed literally: its blocks go into a copy of the tree, at most five files of which they touch. What
they touch is built, and the test that they add is run with those that hold of every operation. With nvcc beside it, its kernel
for CUDA devices is compiled too.

Run as `python3 add_a_step_test.py SOURCE_FOLDER CXX [NVCC]`.
"""

import concurrent.futures
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

PAGE = "docs/add-a-step.md"
MOST_FILES = 5
PLACED = re.compile(r"^Put this into `([\w./-]+)`, (after|before|in place of) `([^\n]+)`\.\n\n```cpp\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEW = re.compile(r"^A new file, \*\*([\w./-]+)\*\*\.\n\n```cpp\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What a program is built, proved and computed with; none of it needs a library but Highway and Catch2.
SOURCES = ["src/core/*.cpp", "src/problem/*.cpp", "src/schedule/*.cpp", "src/strategy/*.cpp", "src/plan/*.cpp", "src/executor/*.cpp",
           "src/backend/coverage/*.cpp", "src/kernels/host/rowwise.cpp", "tests/operations/*.cpp", "tests/support/catch_main.cpp"]


def follow(page, root):
    """Does what the page says; the files that it touched."""
    touched = set()
    for name, where, anchor, block in PLACED.findall(page):
        path = os.path.join(root, name)
        text = open(path).read()
        lines = [line for line in text.splitlines(keepends=True) if line.strip() == anchor]
        assert len(lines) == 1, f"{name} has {len(lines)} lines `{anchor}`"
        line = lines[0]
        put = {"after": line + block, "before": block + line, "in place of": block}[where]
        open(path, "w").write(text.replace(line, put))
        touched.add(name)
    for name, block in NEW.findall(page):
        assert not os.path.exists(os.path.join(root, name)), f"{name} exists"
        open(os.path.join(root, name), "w").write(block)
        touched.add(name)
    blocks = len(re.findall(r"^```cpp$", page, re.MULTILINE))
    assert blocks == len(PLACED.findall(page)) + len(NEW.findall(page)), "a block stands in no place"
    return touched


def run(command, root):
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def main():
    source, cxx = sys.argv[1], [word for word in sys.argv[2].split(";") if word]
    page = open(os.path.join(source, PAGE)).read()
    with tempfile.TemporaryDirectory() as root:
        for folder in ("include", "src", "tests/operations", "tests/support"):
            shutil.copytree(os.path.join(source, folder), os.path.join(root, folder))
        touched = follow(page, root)
        print(f"{PAGE}: {len(touched)} files: {', '.join(sorted(touched))}")
        assert len(touched) <= MOST_FILES, "too many"

        flags = ["-std=c++20", "-O0", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-Iinclude", "-Isrc", "-Itests"]
        sources = sorted(path for pattern in SOURCES for path in glob.glob(pattern, root_dir=root))
        objects = [path.replace("/", "_") + ".o" for path in sources]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda pair: run(cxx + flags + ["-c", pair[0], "-o", pair[1]], root), zip(sources, objects)))
        run(cxx + objects + ["-pthread", "-lhwy", "-o", "test"], root)
        print(run(["./test"], root).strip().splitlines()[-1])

        if len(sys.argv) > 3:
            run([sys.argv[3], "-std=c++20", "-arch=sm_80", "-Iinclude", "-Isrc", "-c", "src/kernels/cuda/rowwise.cu", "-o", "rowwise.o"], root)
            print("src/kernels/cuda/rowwise.cu compiles")


if __name__ == "__main__":
    main()
