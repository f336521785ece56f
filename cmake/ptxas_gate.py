#!/usr/bin/env python3
"""Runs a CUDA compiler, and fails where ptxas has made of a Hopper kernel what it should not be.

    ptxas_gate.py COMPILER ARGUMENTS...     as a CUDA_COMPILER_LAUNCHER

Messages C75xx say that products of a warpgroup are run one after the other, or that setmaxnreg is ignored: the kernel is
right and slow, and to ptxas that is information. Here it is an error. What ptxas says with -v of registers, spills and
barriers is kept beside the object, in OBJECT.ptxas, and not shown.
"""

import os
import re
import subprocess
import sys

REFUSED = re.compile(r"\bC75\d\d\b")
TOLD = re.compile(r"ptxas info\b|\s+\d+ bytes stack frame")


def main(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    lines = done.stdout.splitlines(keepends=True)
    refused = [line for line in lines if REFUSED.search(line)]
    told = [line for line in lines if TOLD.match(line)]
    sys.stderr.write("".join(line for line in lines if line in refused or line not in told))

    output = command[command.index("-o") + 1] if "-o" in command[:-1] else None
    if output is not None and told:
        with open(output + ".ptxas", "w", encoding="utf-8") as log:
            log.writelines(told)
    if done.returncode == 0 and refused:
        if output is not None and os.path.exists(output):
            os.remove(output)
        sys.stderr.write("error: ptxas says C75xx, which the kernels of this file must not meet\n")
        return 1
    return done.returncode if done.returncode >= 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
