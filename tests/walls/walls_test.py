"""The walls of the house: which file may include which (docs/design/0001-house.md), read off the #include lines.

Every file of src/ and every public header belongs to a room; a room may include itself and the rooms it names, and theirs.
Headers from outside have rooms too: only src/link speaks MPI. Public headers include the standard library and each other,
orrery.h only what C has; the program includes public headers only. Text is made by what ignores the locale of a host program. The test
ends by planting violations of each kind and finding them.

Run as `python3 walls_test.py SOURCE_FOLDER`.
"""

import os
import re
import shutil
import sys
import tempfile

# Room -> the rooms it may include beside itself. A room names only rooms above it, so nothing can go round in a circle.
ROOMS = {
    "core": [],
    "problem": ["core"],
    "schedule": ["problem"],
    "strategy": ["schedule"],
    "executor": ["schedule"],
    "backend/clock": ["executor"],
    "plan": ["strategy", "backend/clock"],  # choosing needs a price
    "device": ["core"],
    "kernels": ["core", "device"],
    "link": ["core", "problem", "device", "kernels"],
    "backend/coverage": ["executor", "plan"],  # check() takes a plan
    "backend/trace": ["executor"],
    "backend/memory": ["executor", "kernels", "link"],
    "backend/host": ["backend/memory"],
    "backend/cuda": ["backend/memory"],
    "io": ["core", "problem", "link", "kernels"],
    "machine": ["core", "kernels", "device"],
    # The front door: what a user calls, over all of them.
    "attention": ["plan", "backend/coverage", "backend/trace", "backend/host", "backend/cuda", "link"],
    "verify": ["attention", "io"],
    "everything": ["attention", "verify", "io", "machine"],  # orrery/orrery.hpp
    "c_api": ["everything"],
}

# Public headers, by the room whose names they declare.
HEADERS = {
    "core": ["error", "file", "operations", "region", "tensor", "version"],
    "device": ["device"],
    "problem": ["mask", "problem", "layout", "topology", "costs"],
    "schedule": ["ports", "schedule"],
    "strategy": ["strategy"],
    "plan": ["plan"],
    "executor": ["trace", "backend", "executor"],
    "link": ["conformance", "launcher", "transport", "world"],
    "backend/coverage": ["check"],
    "io": ["io", "generate", "output_file"],
    "machine": ["env", "machine"],
    "attention": ["attention"],
    "verify": ["verify"],
    "everything": ["orrery"],
}
C_HEADER = "orrery/orrery.h"  # a header of C: it includes what a C compiler has, and no more
ROOM_OF_HEADER = {f"orrery/{name}.hpp": room for room, names in HEADERS.items() for name in names} | {C_HEADER: "c_api"}

# Libraries from outside: the pattern of their headers, and where these may be included.
OUTSIDE = [
    (r"mpi(-ext)?\.h", ["src/link/mpi/"]),
    (r"nccl\.h", ["src/link/nccl/"]),
    (r"(cuda|cooperative_groups|nvtx3/).*", ["src/device/", "src/kernels/cuda/", "src/backend/cuda/", "src/link/"]),
    (r"hwy/.*", ["src/kernels/host/"]),
    (r"nlohmann/.*", ["src/io/", "src/backend/trace/", "launch/"]),
    (r"boost/.*", ["launch/"]),
    (r"std(def|int)\.h", [f"include/{C_HEADER}"]),
    (r"(sys|linux)/.*|(unistd|sched|fcntl|poll|pthread)\.h", ["src/", "launch/"]),
]
STANDARD = re.compile(r"[a-z_]+")  # <vector>, <cstdint>: no dot, no folder

# What follows the locale of the host program: streams, and formats and parsers of real numbers.
LOCALE = re.compile(r'\bstd::o?stringstream\b|"[^"\n]*%[-+ #0-9.*]*[aefgAEFG][^"\n]*"|\bstrto(d|f|ld)\b|\bsto(d|f|ld)\b')
TEXT_STREAM = "include/orrery/error.hpp"

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
ROOM_DEPENDS = re.compile(r"orrery_room\((\w+)(.*?)\)\s*$", re.DOTALL | re.MULTILINE)
ROOM_OF_TARGET = {"coverage": "backend/coverage", "trace": "backend/trace", "host": "backend/host", "cuda": "backend/cuda",
                  "clock": "backend/clock", "memory": "backend/memory", "kernels_host": "kernels", "kernels_cuda": "kernels",
                  "kernels_cuda_sm90": "kernels"}


def reachable(room):
    found, open_rooms = {room}, [room]
    while open_rooms:
        for other in ROOMS[open_rooms.pop()]:
            if other not in found:
                found.add(other)
                open_rooms.append(other)
    return found


REACHABLE = {room: reachable(room) for room in ROOMS}


def room_of(path):
    """The room of src/ROOM/... or src/backend/ROOM/..., of a public header, or None."""
    if path.startswith("include/"):
        return ROOM_OF_HEADER.get(path[len("include/"):])
    parts = path.split("/")
    if parts[0] != "src" or len(parts) < 3:
        return None
    name = "/".join(parts[1:3]) if parts[1] == "backend" else parts[1]
    return name if name in ROOMS else None


def judge_outside(path, header):
    """An include in angle brackets."""
    if path == f"include/{C_HEADER}" and not re.fullmatch(r"std(def|int)\.h", header):
        return f"<{header}> is not for a header of C"
    for pattern, places in OUTSIDE:
        if re.fullmatch(pattern, header):
            return None if path.startswith(tuple(places)) else f"<{header}> belongs into {' or '.join(places)}"
    return None if STANDARD.fullmatch(header) else f"<{header}> is neither of the standard library nor of a known one"


def judge(root, path, header):
    """An include in quotes: what is wrong with it, or None."""
    if path == f"include/{C_HEADER}":
        return f'"{header}" is not for a header of C'
    if path.startswith("include/"):
        if not header.startswith("orrery/"):
            return f'"{header}" is no public header'
    elif path.startswith("launch/"):
        if not header.startswith(("orrery/", "launch/")):
            return f'"{header}" is not public; the program is a user like any other'
        if header.startswith("launch/"):
            return None
    if re.fullmatch(OUTSIDE[3][0], header):  # Highway asks for quotes around its foreach_target
        return judge_outside(path, header)
    beside = os.path.normpath(os.path.join(os.path.dirname(path), header))
    for target in (beside, f"src/{header}", f"include/{header}"):
        if os.path.isfile(os.path.join(root, target)):
            break
    else:
        return f'"{header}" is no file of the house'
    mine, theirs = room_of(path), room_of(target)
    if theirs is None:
        return f"{target} is in no room"
    if mine is not None and theirs not in REACHABLE[mine]:
        return f"{mine} may not include {theirs} ({header})"
    return None


def sources(root):
    for top in ("include", "src", "launch"):
        for folder, _, names in os.walk(os.path.join(root, top)):
            for name in sorted(names):
                if name.endswith((".hpp", ".cpp", ".h", ".cuh", ".cu")):
                    yield os.path.relpath(os.path.join(folder, name), root)


def violations(root):
    found = []
    for path in sources(root):
        with open(os.path.join(root, path), encoding="utf-8") as file:
            text = file.read()
        if not path.startswith("launch/") and room_of(path) is None:
            found.append(f"{path}: is in no room")
        for mark, header in INCLUDE.findall(text):
            outside = mark == "<" and not header.startswith("orrery/")
            fault = judge_outside(path, header) if outside else judge(root, path, header)
            if fault:
                found.append(f"{path}: {fault}")
        if path != TEXT_STREAM:
            found += [f"{path}: {match.group()} follows the locale; TextStream, concat and to_chars do not"
                      for match in LOCALE.finditer(text)]
    # The link graph obeys the same walls.
    for folder, _, names in os.walk(os.path.join(root, "src")):
        if "CMakeLists.txt" not in names:
            continue
        path = os.path.relpath(os.path.join(folder, "CMakeLists.txt"), root)
        with open(os.path.join(root, path), encoding="utf-8") as file:
            for target, body in ROOM_DEPENDS.findall(file.read()):
                room = ROOM_OF_TARGET.get(target, target)
                depends = re.search(r"DEPENDS([\w\s]*?)(LINKS|SOURCES|$)", body)
                for other in (depends.group(1).split() if depends else []):
                    other = ROOM_OF_TARGET.get(other, other)
                    if room not in ROOMS or other not in REACHABLE[room]:
                        found.append(f"{path}: {room} may not depend on {other}")
    return found


# File, line to plant, and a part of what must then be said.
PLANTED = [
    ("src/core/dtype.cpp", '#include "problem/progression.hpp"', "core may not include problem"),
    ("src/strategy/ring.cpp", '#include "orrery/plan.hpp"', "strategy may not include plan"),
    ("src/strategy/ring.cpp", '#include "executor/hazards.hpp"', "strategy may not include executor"),
    ("src/executor/executor.cpp", '#include "backend/memory/arena.hpp"', "executor may not include backend/memory"),
    ("src/executor/executor.cpp", '#  include <orrery/attention.hpp>', "executor may not include attention"),
    ("src/backend/coverage/judge.cpp", '#include "link/link.hpp"', "backend/coverage may not include link"),
    ("src/kernels/host/reference.cpp", '#include "link/link.hpp"', "kernels may not include link"),
    ("src/attention/attention.cpp", "#include <mpi.h>", "<mpi.h> belongs into src/link/mpi/"),
    ("src/link/inprocess/hub.cpp", "#include <mpi.h>", "<mpi.h> belongs into src/link/mpi/"),
    ("src/backend/memory/arena.cpp", '#include "hwy/highway.h"', "<hwy/highway.h> belongs into src/kernels/host/"),
    ("include/orrery/world.hpp", "#include <unistd.h>", "<unistd.h> belongs into src/"),
    ("include/orrery/mask.hpp", "#include <boost/any.hpp>", "<boost/any.hpp> belongs into launch/"),
    ("include/orrery/plan.hpp", '#include "strategy/emit.hpp"', "is no public header"),
    ("include/orrery/mask.hpp", '#include "orrery/schedule.hpp"', "problem may not include schedule"),
    ("include/orrery/orrery.h", "#include <vector>", "<vector> is not for a header of C"),
    ("include/orrery/orrery.h", '#include "orrery/plan.hpp"', "is not for a header of C"),
    ("include/orrery/plan.hpp", "#include <stdint.h>", "<stdint.h> belongs into include/orrery/orrery.h"),
    ("src/attention/attention.cpp", '#include "orrery/orrery.h"', "attention may not include c_api"),
    ("src/link/world.cpp", '#include "c_api/calls.hpp"', "link may not include c_api"),
    ("launch/main.cpp", '#include "plan/plan.hpp"', "is not public"),
    ("launch/main.cpp", "#include <curl/curl.h>", "neither of the standard library"),
    ("src/core/dtype.cpp", "std::ostringstream text;", "std::ostringstream follows the locale"),
    ("launch/text.cpp", 'snprintf(text, size, "%.*f", 2, value);', "follows the locale"),
    ("src/io/file.cpp", "double x = std::stod(text);", "stod follows the locale"),
    ("src/problem/CMakeLists.txt", "orrery_room(problem SOURCES a.cpp DEPENDS link)", "problem may not depend on link"),
]


def main():
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} SOURCE_FOLDER")
    root = os.path.abspath(sys.argv[1])
    if not any(True for _ in sources(root)):
        sys.exit(f"walls: no sources in {root}")
    found = violations(root)
    missed = []
    with tempfile.TemporaryDirectory(prefix="orrery-walls-") as copy:
        for top in ("include", "src", "launch"):
            shutil.copytree(os.path.join(root, top), os.path.join(copy, top))
        for path, line, expected in PLANTED:
            with open(os.path.join(copy, path), encoding="utf-8") as file:
                original = file.read()
            with open(os.path.join(copy, path), "w", encoding="utf-8") as file:
                file.write(line + "\n" + original)
            if not any(path in v and expected in v for v in violations(copy)):
                missed.append(f"{path}: nothing was said of {line}")
            with open(os.path.join(copy, path), "w", encoding="utf-8") as file:
                file.write(original)
    for line in found + missed:
        print("walls: " + line)
    print(f"walls: {sum(1 for _ in sources(root))} files, {len(found)} violations; "
          f"{len(PLANTED) - len(missed)} of {len(PLANTED)} planted violations found")
    sys.exit(1 if found or missed else 0)


if __name__ == "__main__":
    main()
