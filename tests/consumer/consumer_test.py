"""Installs a build of Orrery into an empty folder, builds project/ and only_c/ with find_package(orrery) and with pkg-config, and
runs what they build. The installed package must name no folder of the source or build tree.

Run as `python3 consumer_test.py BUILD_FOLDER SOURCE_FOLDER CMAKE COMPILER C_COMPILER [compiler flag...]`.
"""

import os
import shutil
import subprocess
import sys
import tempfile

SECONDS = 240  # no command takes longer
HERE = os.path.dirname(os.path.abspath(__file__))


def run(*command, refused_with=None, environment=None):
    """Its output. It must succeed, or fail and say `refused_with`."""
    print("$ " + " ".join(command), flush=True)
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS,
                            env=os.environ | (environment or {}))
    said = refused_with is None or refused_with in " ".join(result.stdout.split())
    if (result.returncode == 0) != (refused_with is None) or not said:
        print(result.stdout)
        sys.exit(f"consumer: {command[0]} ended with code {result.returncode}, and should " +
                 ("succeed" if refused_with is None else f"say '{refused_with}'"))
    return result.stdout


def package_files(prefix):
    for folder, _, names in os.walk(prefix):
        for name in names:
            if name.endswith((".cmake", ".pc")):
                yield os.path.join(folder, name)


class Consumer:
    def __init__(self, prefix, work, cmake, compiler, c_compiler, flags):
        self.prefix, self.work, self.cmake, self.flags = prefix, work, cmake, flags
        self.compiler, self.c_compiler = compiler, c_compiler
        self.projects = 0

    def configure(self, project, *options, refused_with=None):
        self.projects += 1
        folder = os.path.join(self.work, f"build-{self.projects}")
        flags = " ".join(self.flags)
        run(self.cmake, "-S", os.path.join(HERE, project), "-B", folder, "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_PREFIX_PATH={self.prefix}", f"-DCMAKE_CXX_COMPILER={self.compiler}", f"-DCMAKE_CXX_FLAGS={flags}",
            f"-DCMAKE_C_COMPILER={self.c_compiler}", f"-DCMAKE_C_FLAGS={flags}", "--no-warn-unused-cli", *options,
            refused_with=refused_with)
        return folder

    def build(self, project, programs, *options):
        folder = self.configure(project, *options)
        run(self.cmake, "--build", folder)
        for name in programs:
            print(run(os.path.join(folder, name)), end="")

    def by_pkg_config(self, package, compiler, source, *options):
        found = [os.path.dirname(path) for path in package_files(self.prefix) if path.endswith(f"/{package}.pc")]
        words = run("pkg-config", "--cflags", "--libs", package, environment={"PKG_CONFIG_PATH": found[0]}).split()
        program = os.path.join(self.work, package)
        run(compiler, *self.flags, *options, os.path.join(HERE, "project", source), "-o", program, *words)
        libraries = os.path.dirname(found[0])
        print(run(program, environment={"LD_LIBRARY_PATH": libraries}), end="")


def main():
    if len(sys.argv) < 6:
        sys.exit(f"usage: {sys.argv[0]} BUILD_FOLDER SOURCE_FOLDER CMAKE COMPILER C_COMPILER [compiler flag...]")
    build, source, cmake, compiler, c_compiler, *flags = sys.argv[1:]
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

        consumer = Consumer(prefix, work, cmake, compiler, c_compiler, flags)
        consumer.build("project", ["consumer", "consumer_c"])
        # C needs neither C++ nor what the C++ library links.
        bare = ["-DCMAKE_DISABLE_FIND_PACKAGE_HWY=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_MPI=ON"]
        consumer.build("only_c", ["consumer_c"], *bare)
        consumer.configure("only_c", *bare, "-DCOMPONENTS=COMPONENTS;c")
        consumer.configure("only_c", *bare, "-DMORE_LANGUAGES=CXX")
        consumer.configure("only_c", "-DCOMPONENTS=COMPONENTS;cxx", refused_with="component cxx needs the language CXX")
        consumer.configure("only_c", "-DCOMPONENTS=COMPONENTS;c;fortran", refused_with="no component fortran")
        if shutil.which("pkg-config") is None:
            print("skipped: pkg-config is not here")
            return
        consumer.by_pkg_config("orrery", compiler, "main.cpp", "-std=c++20")
        consumer.by_pkg_config("orrery-c", c_compiler, "main.c", "-pthread")


if __name__ == "__main__":
    main()
