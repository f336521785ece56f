"""Code that a page shows, as a file to compile: the block behind the line that begins with the file's name in bold.

Run as `python3 page_code.py PAGE NAME FILE`. With `--behind OTHER` the block is put behind what OTHER holds.
"""

import re
import sys


def code_of(page, name):
    with open(page, encoding="utf-8") as file:
        blocks = re.findall(r"^\*\*" + re.escape(name) + r"\*\*[^\n]*\n\n```\w*\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)
    if len(blocks) != 1:
        sys.exit(f"{page} shows {name} {len(blocks)} times, not once")
    return blocks[0]


def main():
    arguments = sys.argv[1:]
    before = ""
    if "--behind" in arguments:
        at = arguments.index("--behind")
        with open(arguments[at + 1], encoding="utf-8") as file:
            before = file.read()
        del arguments[at:at + 2]
    if len(arguments) != 3:
        sys.exit(f"usage: {sys.argv[0]} PAGE NAME FILE [--behind OTHER]")
    page, name, path = arguments
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + code_of(page, name))


if __name__ == "__main__":
    main()
