"""What a machine with a GPU showed: tests, the sanitizer and the benches, kept in record.json for machines without one.

    bash tests/gpu/record.sh                        # builds and records; arguments go to this script
    python3 tests/gpu/record.py --only tests,compare    # renews two sections
    python3 tests/gpu/record.py --check             # one line: does the record belong to these sources?

The record carries a hash of the GPU sources. Sections that are not run are kept while the hash is the same, and dropped
when it is another. A section that fails is recorded as failed, the others run, and the exit code is 1; so it is when
the sources change while the sections run, and then nothing is written. What cannot run on the machine is recorded as
skipped, with the reason. --check ends with 0 whatever the line says, and with 2 on a record that is malformed.
Everything takes its device from the preset cuda's build; only the section compare needs PyTorch.
"""

import argparse
import ctypes
import datetime
import hashlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(SOURCE, "build", "cuda")
PROGRAM = os.path.join(BUILD, "orrery")
LIBRARY = os.path.join(BUILD, "src", "c_api", "liborrery.so")
RECORD = os.path.join(SOURCE, "tests", "gpu", "record.json")

HASHED = ["src/kernels/cuda", "src/schedule/fusion.cpp", "src/backend/cuda", "src/device", "src/link", "src/io/cuda_generate.cpp",
          "src/verify/shares_cuda.cpp", "tests/gpu", "tests/link", "tests/bench/compare_cuda.py"]
NOT_HASHED = "tests/gpu/record.json"

# Small tests of every kind of kernel, as patterns of Catch2: it separates names by commas, so none may be in them.
SANITIZED = ["peaked 16-bit softmax keeps its precision", "peaked 16-bit softmax keeps the precision of its gradients",
             "without key ranges every query sees every key in fp32", "fp32 gradients are added to what is there*",
             "rows are packed and unpacked at every alignment", "key ranges of a run of no keys are empty",
             "merge of two states has the larger maximum and both sums",
             "delta is the row sum of out times its gradient*"]

# racecheck takes for races what a warp's lanes wrote before one of them arrived, for all, at an mbarrier; the 16-bit
# backward kernels synchronise in that way. docs/testing.md says why these are none.
RACE_CHECKED = [name for name in SANITIZED if name != "peaked 16-bit softmax keeps the precision of its gradients"]

SANITIZER_ERROR = 9  # the exit code that compute-sanitizer is told to end with when it has found something

PROBLEM = ["--heads", "32", "--kv-heads", "8", "--head-dim", "128", "--dtype", "bf16", "--mask", "causal",
           "--device", "cuda"]
HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128
STATUSES = ("ok", "failed", "skipped")

BEGAN = time.monotonic()


class Failed(Exception):
    """The section has failed; `results` is what it has nevertheless."""

    def __init__(self, reason, **results):
        super().__init__(reason)
        self.results = results


class Skipped(Exception):
    """The section cannot run here."""


def say(text):
    print(f"[{time.monotonic() - BEGAN:4.0f} s] {text}", flush=True)


# Commands ---------------------------------------------------------------------------------------------------------


def environment():
    """The caller's, without what changes Orrery or reveals an outer MPI job; with what ranks on one device need."""
    kept = {name: value for name, value in os.environ.items()
            if name.startswith("OMPI_MCA_") or not name.startswith(("ORRERY_", "OMPI_", "PMIX_", "PMI_"))}
    kept.update({"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "NCCL_SOCKET_IFNAME": "lo",
                 "NCCL_IB_DISABLE": "1"})
    return kept


def end(process):
    """Ends a command with all that it started: launchers tell their ranks when asked politely."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            process.communicate(timeout=10)
            return
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def run(command, seconds):
    """The finished process, whatever its exit code."""
    process = subprocess.Popen([str(word) for word in command], cwd=SOURCE, env=environment(), text=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               errors="replace", start_new_session=True)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        end(process)
        raise Failed(f"{os.path.basename(str(command[0]))} was not done within {seconds} s") from None
    except BaseException:
        end(process)
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def tail(result, lines=8):
    return without_paths("\n".join((result.stdout + "\n" + result.stderr).strip().splitlines()[-lines:]))


def without_paths(text):
    """Where the tree lies on the machine is nobody's business."""
    return text.replace(SOURCE + os.sep, "")


def output_of(command, seconds):
    result = run(command, seconds)
    if result.returncode != 0:
        raise Failed(f"{os.path.basename(str(command[0]))} ended with code {result.returncode}: {tail(result)}")
    return result.stdout


def json_of(command, seconds):
    try:
        return json.loads(output_of(command, seconds))
    except json.JSONDecodeError as error:
        raise Failed(f"{os.path.basename(str(command[0]))} printed no JSON: {error}") from None


def from_cache(name):
    """The value of a CMake variable of the build; "" when there is none."""
    with open(os.path.join(BUILD, "CMakeCache.txt"), encoding="utf-8") as file:
        match = re.search(rf"^{name}:\w+=(.*)$", file.read(), re.MULTILINE)
    return match.group(1) if match else ""


# Sections: each returns a dictionary, whose "rows" are bench rows -----------------------------------------------------


def tests():
    listed = json_of(["ctest", "--preset", "cuda", "-L", "^gpu$", "--show-only=json-v1"], 60)
    wanted = [test["name"] for test in listed["tests"]]
    with tempfile.TemporaryDirectory(prefix="orrery-record-") as folder:
        report = os.path.join(folder, "tests.xml")
        result = run(["ctest", "--preset", "cuda", "-L", "^gpu$", "--no-tests=error", "--output-junit", report], 900)
        if not os.path.exists(report):
            raise Failed(f"ctest left no report: {tail(result)}")
        found = read_junit(report)
    outcomes = [found.get(name, {"name": name, "status": "missing", "seconds": 0.0}) for name in wanted]
    bad = [test["name"] for test in outcomes if test["status"] in ("failed", "missing")]
    if bad or not outcomes:
        raise Failed(f"of {len(outcomes)} tests, these failed or are missing: {', '.join(bad)}", tests=outcomes)
    return {"tests": outcomes}


def read_junit(path):
    """name -> {name, status, seconds}. A test without its executable says so where another says why it was skipped."""
    found = {}
    for case in xml.parse(path).getroot().iter("testcase"):
        skipped = case.find("skipped")
        if case.get("status") == "run":
            status = "passed"
        elif skipped is not None and skipped.get("message", "").startswith("SKIP_"):
            status = "skipped"
        elif case.get("status") == "fail":
            status = "failed"
        else:
            status = "missing"
        test = {"name": case.get("name"), "status": status, "seconds": round(float(case.get("time") or 0), 3)}
        if status == "failed":
            test["output"] = without_paths(case.findtext("system-out") or "")[-1500:]
        found[test["name"]] = test
    return found


def sanitizer():
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not os.path.exists(tool):
        raise Skipped("compute-sanitizer is not here")
    results, unable = {}, []
    for check, names in (("memcheck", SANITIZED), ("racecheck", RACE_CHECKED)):
        say(f"sanitizer: {check}")
        began = time.monotonic()
        result = run([tool, "--tool", check, "--error-exitcode", SANITIZER_ERROR,
                      os.path.join(BUILD, "tests/gpu/test_gpu_kernel"), ",".join(names)], 150)
        outcome = {**sanitizer_outcome(result, len(names)), "seconds": round(time.monotonic() - began, 1)}
        results[check] = outcome
        if outcome["status"] == "failed":
            raise Failed(f"{check}: {outcome['reason']}", **results)
        if outcome["status"] == "skipped":
            unable.append(f"{check}: {outcome['reason']}")
    if len(unable) == len(results):
        raise Skipped("; ".join(unable))
    return results


def sanitizer_outcome(result, count=len(SANITIZED)):
    """Errors fail. Warnings are counted: racecheck means by them hazards within a warp that may be meant."""
    text = result.stdout + result.stderr
    summary = re.search(r"(?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: \d+ hazards? displayed "
                        r"\((\d+) errors?(?:, (\d+) warnings?)?\))", text)
    passed = re.search(r"All tests passed \(\d+ assertions? in (\d+) test cases?\)", text)
    if summary and int(summary.group(1) or summary.group(2) or 0):
        return {"status": "failed", "reason": f"{summary.group(0)}: {said_by_sanitizer(text)}"}
    # It attaches like a debugger, which drivers and containers may forbid; then no test has begun.
    unable = re.search(r"^=+ *(.*(?:not supported|[Ii]nternal|[Uu]nable|terminated before|permission).*)$", text,
                       re.MULTILINE)
    if passed is None and "test cases" not in text and unable:
        return {"status": "skipped", "reason": without_paths(unable.group(1).strip())}
    if "Internal Sanitizer Error" in text:
        return {"status": "failed", "reason": f"not all was watched: {said_by_sanitizer(text)}"}
    if result.returncode not in (0, SANITIZER_ERROR) or summary is None or passed is None \
            or int(passed.group(1)) != count:
        return {"status": "failed", "reason": f"not all of {count} tests passed: {tail(result, 20)}"}
    outcome = {"status": "ok", "tests": count}
    if summary.group(3) is not None:
        outcome["warnings"] = int(summary.group(3))
    elif result.returncode != 0:
        return {"status": "failed", "reason": f"code {result.returncode}: {said_by_sanitizer(text)}"}
    return outcome


def said_by_sanitizer(text, lines=16):
    """Its first lines; behind them come backtraces, and more of the same."""
    said_lines = [line for line in text.splitlines() if line.startswith("=========") and line.strip("= ")]
    return without_paths("\n".join(said_lines[:lines]))


def compare():
    script = os.path.join(SOURCE, "tests", "bench", "compare_cuda.py")
    with tempfile.TemporaryDirectory(prefix="orrery-record-") as folder:
        report = os.path.join(folder, "rows.json")
        result = run([sys.executable, script, LIBRARY, "--json", report], 300)
        if not os.path.exists(report):
            raise Failed(f"compare_cuda.py ended with code {result.returncode}: {tail(result)}")
        with open(report, encoding="utf-8") as file:
            found = json.load(file)
    print(result.stdout, end="", flush=True)
    if result.returncode != 0:
        raise Failed(f"compare_cuda.py ended with code {result.returncode}", **found)
    return found


def bench(suite, seconds):
    return json_of([PROGRAM, "bench", "--suite", suite, "--device", "cuda", "--json", "-"], seconds)["rows"]


def kernel():
    return {"rows": [{"row": row["bench"]["row"], "problem": row["problem"], "verification": row["verification"],
                      "kernels": row["plan"]["kernels"],
                      "forward_tflops": row["bench"]["forward_flops"] / 1e12,
                      "backward_tflops": row["bench"]["backward_flops"] / 1e12} for row in bench("kernel", 120)]}


def overhead():
    return {"rows": [row["bench"] for row in bench("overhead", 60)]}


def one_run(arguments, seconds):
    return json_of([PROGRAM, "run", *PROBLEM, *arguments, "--json", "-"], seconds)


def figures(report):
    """What a row keeps of a report of `orrery run`."""
    return {name: report[name] for name in ("problem", "plan", "measured", "verification")}


def ranks():
    """Eight virtual ranks that share the device against one rank, in launches that take turns; with the device's best
    kernels and, unless these are the portable ones, with portable kernels."""
    device = json_of([PROGRAM, "info", "--json", "-"], 60)["cuda_devices"][0]
    kinds = ("best",) if device["kernels"] == "portable" else ("best", "portable")
    return {"rows": [eight_against_one(backward, kernels) for backward in (False, True) for kernels in kinds]}


def eight_against_one(backward, kernels, launches=2):
    passes = "forward and backward" if backward else "forward"
    seconds = {1: {"forward": [], "all": []}, 8: {"forward": [], "all": []}}
    kept = {}
    for launch in range(launches):
        for world_size in seconds:
            say(f"ranks: {world_size}, {passes}, {kernels} kernels, launch {launch + 1} of {launches}")
            shape = ["--layout", "zigzag", "--strategy", "ring"] if world_size > 1 else []
            report = one_run(["--ranks", world_size, "--seq-len", 65536, *shape, "--kernels", kernels, "--repeat", 6,
                              "--warmup", 1, "--verify", "none" if launch else "sample",
                              *(["--backward"] if backward else [])], 120)
            measured = report["measured"]
            forward = measured["forward_seconds"]["median"]
            seconds[world_size]["forward"].append(forward)
            seconds[world_size]["all"].append(forward + (measured["backward_seconds"]["median"] if backward else 0.0))
            if launch == 0:
                kept[str(world_size)] = figures(report)
    median = {size: statistics.median(by_pass["all"]) for size, by_pass in seconds.items()}
    say(f"ranks: {passes}, {kernels} kernels: eight take {median[8] / median[1]:.3f} times as long as one")
    return {"row": f"{passes}, {kernels} kernels", "seq_len": 65536, "kernels": kept["8"]["plan"]["kernels"],
            "one_rank_seconds": median[1], "eight_ranks_seconds": median[8], "eight_over_one": median[8] / median[1],
            "launches": seconds, "first_launch": kept}


def nccl():
    if from_cache("ORRERY_NCCL") != "ON":
        raise Skipped("this build has no NCCL")
    ranks_of_job = [from_cache("MPIEXEC_EXECUTABLE") or "mpirun", "--oversubscribe", "--bind-to", "none", "--mca",
                    "mpi_yield_when_idle", "1", "-n", "4"]
    report = json_of([*ranks_of_job, PROGRAM, "run", *PROBLEM, "--share-device", "--link", "nccl", "--strategy", "ring",
                      "--seq-len", 16384, "--backward", "--repeat", 5, "--warmup", 1, "--json", "-"], 120)
    if "nccl" not in report["machine"]["link"]:
        raise Failed(f"the link was {report['machine']['link']}")
    exposed = report["measured"]["exposed_comm_seconds"]
    return {"rows": [{"row": "4 processes on one device", "link": report["machine"]["link"],
                      "exposed_comm_seconds": exposed, **figures(report)}]}


def million():
    tokens, world_size = 1 << 20, 8
    report = one_run(["--ranks", world_size, "--seq-len", tokens, "--layout", "zigzag", "--strategy", "ring",
                      "--backward", "--verify", "sample", "--timeout", 600], 900)
    # query, out and their gradients; key, value and theirs; lse
    tensors = tokens * (4 * 2 * (HEADS + KV_HEADS) * HEAD_DIM + 4 * HEADS)
    workspace = world_size * report["plan"]["workspace_bytes"]
    peak = report["measured"]["peak_bytes"]
    return {"rows": [{"row": "a million tokens on 8 virtual ranks", "tensor_bytes": tensors,
                      "workspace_bytes": workspace, "peak_bytes": peak,
                      "peak_over_tensors_and_workspace": peak / (tensors + workspace), **figures(report)}]}


SECTIONS = {"tests": tests, "sanitizer": sanitizer, "compare": compare, "kernel": kernel, "overhead": overhead,
            "ranks": ranks, "nccl": nccl, "million": million}


def run_section(name):
    say(name)
    began = time.monotonic()
    try:
        section = {"status": "ok", **SECTIONS[name]()}
    except Skipped as reason:
        section = {"status": "skipped", "reason": str(reason)}
    except Failed as failure:
        section = {**failure.results, "status": "failed", "reason": str(failure)}
    except (OSError, KeyError, TypeError, ValueError, ZeroDivisionError, xml.ParseError) as error:
        section = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}  # output of another shape
    section["seconds"] = round(time.monotonic() - began, 1)
    say(f"{name}: {section['status']}" + (f": {section['reason']}" if "reason" in section else ""))
    return section


# The record -------------------------------------------------------------------------------------------------------


def hashed_files():
    """Paths from the root, sorted. Where there is no repository, as in an unpacked archive, all files count that are
    not Python's own."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *HASHED],
                            cwd=SOURCE, capture_output=True, text=True, check=False) if shutil.which("git") else None
    if listed and listed.returncode == 0:
        names = listed.stdout.split("\0")
    else:
        names = [os.path.relpath(os.path.join(folder, name), SOURCE) for root in HASHED
                 for folder, _, files in os.walk(os.path.join(SOURCE, root)) for name in files
                 if "__pycache__" not in folder]
        names += [name for name in HASHED if os.path.isfile(os.path.join(SOURCE, name))]
    return sorted({name for name in names
                   if name and name != NOT_HASHED and os.path.isfile(os.path.join(SOURCE, name))})


def hash_of_sources():
    whole = hashlib.sha256()
    for name in hashed_files():
        with open(os.path.join(SOURCE, name), "rb") as file:
            whole.update(f"{name}\0{hashlib.sha256(file.read()).hexdigest()}\n".encode())
    return whole.hexdigest()


class Malformed(Exception):
    """A record that is none."""


def read_record():
    """None where there is none."""
    try:
        with open(RECORD, encoding="utf-8") as file:
            record = json.load(file)
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise Malformed(str(error)) from None
    if not isinstance(record, dict):
        raise Malformed("it is not an object")
    for name, kind in (("date", str), ("device", str), ("hash", str), ("sections", dict)):
        if not isinstance(record.get(name), kind):
            raise Malformed(f"it has no {name}")
    for name, section in record["sections"].items():
        if not isinstance(section, dict) or section.get("status") not in STATUSES:
            raise Malformed(f"section {name} has no status")
        for entries in ("tests", "rows"):
            if not isinstance(section.get(entries, []), list):
                raise Malformed(f"section {name}: {entries} is not a list")
    return record


def check():
    try:
        record = read_record()
    except Malformed as error:
        print(f"GPU record: malformed: {error}")
        return 2
    if record is None:
        print("GPU record: there is none")
    elif record["hash"] != hash_of_sources():
        print(f"GPU record: STALE: the GPU sources changed since {record['date']}")
    else:
        sections = record["sections"]
        rows = sum(len(section.get("rows", [])) for section in sections.values())
        failed = [name for name, section in sections.items() if section["status"] == "failed"]
        print(f"GPU record: fresh, {record['device']}, {record['date']}, "
              f"{len(sections.get('tests', {}).get('tests', []))} tests, {rows} bench rows"
              + (f"; FAILED: {', '.join(failed)}" if failed else ""))
    return 0


def write_record(record):
    beside = RECORD + ".new"
    with open(beside, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
        file.write("\n")
    os.replace(beside, RECORD)


def nccl_version():
    try:
        number = ctypes.c_int()
        ctypes.CDLL(from_cache("NCCL_LIBRARY") or "libnccl.so.2").ncclGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return "none"
    return f"{number.value // 10000}.{number.value // 100 % 100}.{number.value % 100}"


def said(command):
    """The first line that a command prints, or none."""
    try:
        lines = output_of(command, 60).strip().splitlines()
    except (Failed, OSError):
        return "none"
    return lines[0].strip() if lines else "none"


def describe():
    info = json_of([PROGRAM, "info", "--json", "-"], 60)
    if not info["cuda_devices"]:
        raise Failed("this machine has no CUDA device that the program can use; nothing is recorded")
    return {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
            "device": info["cuda_devices"][0]["name"],
            "driver": said(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]),
            "cuda_driver": info["cuda_driver"], "cuda_runtime": info["cuda_runtime"], "nccl": nccl_version(),
            "pytorch": said([sys.executable, "-c", "import torch; print(torch.__version__)"])}


def make_record(names):
    sources = hash_of_sources()
    try:
        old = read_record()
    except Malformed as error:
        say(f"the record that was there is malformed, and replaced: {error}")
        old = None
    kept = dict(old["sections"]) if old and old["hash"] == sources else {}
    record = {**describe(), "hash": sources, "sections": kept}
    for name in names:
        kept[name] = run_section(name)
        if hash_of_sources() != sources:
            say(f"the GPU sources changed meanwhile: {name} is not recorded")
            return 1
        record["sections"] = {each: kept[each] for each in SECTIONS if each in kept}
        write_record(record)  # after every section: a run that is cut off keeps what it has seen
    failed = [name for name in names if kept[name]["status"] == "failed"]
    say(f"wrote {os.path.relpath(RECORD, SOURCE)}" + (f"; FAILED: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def names_of(text):
    names = text.split(",")
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    return [name for name in SECTIONS if name in names]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", type=names_of, metavar="SECTION,...", help=", ".join(SECTIONS))
    options.add_argument("--million", action="store_true", help="the section million too: minutes, and much memory")
    options.add_argument("--check", action="store_true", help="say whether the record belongs to these sources")
    given = options.parse_args()
    if given.check:
        sys.exit(check())
    names = given.only or [name for name in SECTIONS if name != "million"]
    if given.million and "million" not in names:
        names.append("million")
    try:
        sys.exit(make_record(names))
    except (Failed, OSError) as error:
        sys.exit(f"record: {error}")


if __name__ == "__main__":
    main()
