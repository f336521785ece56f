"""The pages, held against the tree: links lead somewhere, files that are named exist, commands of `orrery` run, the program
printed in docs/schedule.md is the one that is printed, the table of strategies lists what the program lists, and a file of the
tree that a page shows is that file.

Commands are the lines of ``` blocks. What starts `build/release/orrery` alone is run; under mpirun, and in long benches, its
options are parsed only. Run as `python3 docs_test.py SOURCE_FOLDER PROGRAM`.
"""

import glob
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile

SECONDS = 120  # no command takes longer
PROGRAM_IN_DOCS = "build/release/orrery"
LONG = ["--suite"]

SHOWN = {"docs/c-api.md": ["tests/consumer/project/main.c"], "docs/transports.md": ["tests/c_api/sockets.c"]}  # page -> files that it shows, whole

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)]*)?\)")
# `src/...`, `tests/...` and the like; a name without an ending stands for a folder, or for a pair of .hpp and .cpp.
NAMED = re.compile(r"`((?:src|tests|launch|include|docs|cmake|\.ci)/[\w./-]+)`")


def pages(source):
    return sorted(glob.glob(os.path.join(source, "*.md")) + glob.glob(os.path.join(source, "docs", "**", "*.md"), recursive=True)
                  + glob.glob(os.path.join(source, "tests", "**", "*.md"), recursive=True))


def anchors(text):
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_ends(source, page, text):
    for target, anchor in LINK.findall(FENCE.sub("", text)):
        path = os.path.join(os.path.dirname(page), target) if target else page
        if "://" in target:
            continue
        if not os.path.exists(path):
            yield f"links to {target}, which is not there"
        elif anchor:
            with open(path, encoding="utf-8") as file:
                if anchor not in anchors(file.read()):
                    yield f"links to {target}{anchor}, and there is no such heading"
    for name in NAMED.findall(text):
        if not glob.glob(os.path.join(source, name.rstrip("/"))) and not glob.glob(os.path.join(source, name + ".*")):
            yield f"names {name}, which is not there"


def other_than_shown(source, page, text):
    blocks = [block for _, block in FENCE.findall(text)]
    for name in SHOWN.get(os.path.relpath(page, source), []):
        with open(os.path.join(source, name), encoding="utf-8") as file:
            if file.read() not in blocks:
                yield f"does not show {name} as it is"


def commands(text):
    for language, block in FENCE.findall(text):
        if language in ("", "sh", "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                yield line


def run_program(program, arguments, folder):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ORRERY_")}
    return subprocess.run([program, *arguments], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=SECONDS)


def without_times(text):
    return re.sub(r" in [\d.]+ \w+$", " in TIME", text.strip(), flags=re.MULTILINE)


def faults_of_command(source, program, folder, line):
    words = shlex.split(line, comments=True)
    if words[:1] == ["bash"] and not os.path.isfile(os.path.join(source, words[1])):
        yield f"runs {words[1]}, which is not there"
    for i, word in enumerate(words):
        if word.startswith("--preset"):
            with open(os.path.join(source, "CMakePresets.json"), encoding="utf-8") as file:
                if f'"name": "{words[i + 1]}"' not in file.read():
                    yield f"uses a preset {words[i + 1]}, which is not there"
    if PROGRAM_IN_DOCS not in words:
        return
    at = words.index(PROGRAM_IN_DOCS)
    arguments = words[at + 1:]
    alone = at == 0 and not any(word in arguments for word in LONG)
    result = run_program(program, arguments if alone else arguments + ["--help"], folder)
    if result.returncode != 0:
        yield f"'{line.strip()}' ends with code {result.returncode}: {result.stderr.strip()}"


def faults_of_strategies(source, program, folder):
    """The table of docs/strategies.md has a row for every option, and for every strategy without, in the order of the registry."""
    info = json.loads(run_program(program, ["info", "--json", "-"], folder).stdout)
    rows = []
    for name in info["strategies"]:
        options = [o for o in info["strategy_options"] if o["strategy"] == name]
        rows += ["| `{}` | `{}` | {} | {} |".format(name, o["option"].replace("|", "\\|"), o["standard"], o["meaning"])
                 for o in options] or [f"| `{name}` | | | |"]
    with open(os.path.join(source, "docs/strategies.md"), encoding="utf-8") as file:
        text = file.read()
    if "\n".join(["| --- | --- | --- | --- |", *rows, ""]) not in text:
        yield "docs/strategies.md does not have the table of strategies and options:\n" + "\n".join(rows)
    yield from (f"docs/strategies.md has no section {name}" for name in info["strategies"] if f"\n## {name}\n" not in text)


def main():
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} SOURCE_FOLDER PROGRAM")
    source, program = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    faults, seen = [], set()
    with tempfile.TemporaryDirectory(prefix="orrery-docs-") as folder:
        os.mkdir(os.path.join(folder, "build"))
        subprocess.run([os.path.join(source, "tests/data/unpack.sh"), os.path.join(source, "build/data")], check=True)
        os.symlink(os.path.join(source, "build/data"), os.path.join(folder, "build/data"))
        faults += faults_of_strategies(source, program, folder)
        for page in pages(source):
            name = os.path.relpath(page, source)
            with open(page, encoding="utf-8") as file:
                text = file.read()
            faults += [f"{name} {fault}" for fault in dead_ends(source, page, text)]
            faults += [f"{name} {fault}" for fault in other_than_shown(source, page, text)]
            for line in commands(text):
                if line in seen:
                    continue
                seen.add(line)
                faults += [f"{name} {fault}" for fault in faults_of_command(source, program, folder, line)]
                if "--print" in line and PROGRAM_IN_DOCS in line:
                    words = shlex.split(line)
                    printed = without_times(run_program(program, words[1:], folder).stdout)
                    blocks = [without_times(block) for _, block in FENCE.findall(text)]
                    if name == os.path.join("docs", "schedule.md") and printed not in blocks:
                        faults.append(f"{name} shows something else than '{line}' prints:\n{printed}")
    for fault in faults:
        print("docs: " + fault)
    print(f"docs: {len(pages(source))} pages, {len(faults)} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
