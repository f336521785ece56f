"""Installs a build of Orrery into an empty folder, builds project/ with find_package(orrery), for C++ and
for C, and runs it.
The installed package must name no folder of the source or build tree.

Run as `python3 consumer_test.py BUILD_FOLDER SOURCE_FOLDER CMAKE COMPILER [compiler flag...]`.
"""

import os
import shutil
import subprocess
import sys
import tempfile

SECONDS = 240  # no command takes longer


def run(*command):
    print("$ " + " ".join(command), flush=True)
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS)
    if result.returncode != 0:
        print(result.stdout)
        sys.exit(f"consumer: {command[0]} ended with code {result.returncode}")
    return result.stdout


def package_files(prefix):
    for folder, _, names in os.walk(prefix):
        for name in names:
            if name.endswith(".cmake"):
                yield os.path.join(folder, name)


def main():
    if len(sys.argv) < 5:
        sys.exit(f"usage: {sys.argv[0]} BUILD_FOLDER SOURCE_FOLDER CMAKE COMPILER [compiler flag...]")
    build, source, cmake, compiler, *flags = sys.argv[1:]
    here = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory(prefix="orrery-consumer-") as work:
        first, prefix = os.path.join(work, "first"), os.path.join(work, "moved")
        run(cmake, "--install", build, "--prefix", first)
        shutil.move(first, prefix)  # a package may be moved after it was installed
        files = list(package_files(prefix))
        if not files:
            sys.exit("consumer: no package was installed")
        for path in files:
            with open(path, encoding="utf-8") as file:
                text = file.read()
            for folder in (build, source, first):
                if folder in text:
                    sys.exit(f"consumer: {os.path.relpath(path, prefix)} names {folder}")
        project = os.path.join(work, "build")
        run(cmake, "-S", os.path.join(here, "project"), "-B", project, "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_PREFIX_PATH={prefix}", f"-DCMAKE_CXX_COMPILER={compiler}", "-DCMAKE_CXX_FLAGS=" + " ".join(flags),
            "-DCMAKE_C_FLAGS=" + " ".join(flags))
        run(cmake, "--build", project)
        for name in ("consumer", "consumer_c"):
            print(run(os.path.join(project, name)), end="")


if __name__ == "__main__":
    main()
