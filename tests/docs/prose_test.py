"""The pages read easily: no sentence has more than 30 words, and none goes on after a semicolon with a pronoun.

Code blocks, tables and headings are left out. An item of a list is a paragraph of its own. What stands in backticks is
one word, and a link is its text. Run as `python3 prose_test.py SOURCE_FOLDER`.
"""

import os
import re
import sys

from docs_test import FENCE, pages

MOST_WORDS = 30
WORD = re.compile(r"[A-Za-z0-9]")
SENTENCE_END = re.compile(r"(?<=[.!?:])[)\"'*`]*\s+(?=[(\[\"'*`]*[A-Z0-9`])")
PRONOUN = re.compile(r";\s+(it|they|those|these|this|that one|the former|the latter)\b", re.IGNORECASE)


def paragraphs(text):
    """Prose, a paragraph or an item of a list at a time."""
    text = re.sub(r"<!-- table .*?<!-- end -->", "\n", FENCE.sub("\n", text), flags=re.DOTALL)
    lines = []
    for line in text.splitlines() + [""]:
        is_item = re.match(r"\s*([-*]|\d+\.)\s", line)
        if not line.strip() or is_item or line.startswith(("#", "|", "<!--", "![")):
            if lines:
                yield " ".join(lines)
            lines = []
        if line.strip() and not line.startswith(("#", "|", "<!--", "![")):
            lines.append(re.sub(r"^\s*([-*]|\d+\.)\s", "", line).strip())


def sentences(paragraph):
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", paragraph)
    return SENTENCE_END.split(re.sub(r"`[^`]*`", "`code`", plain))


def faults(text):
    for paragraph in paragraphs(text):
        for sentence in sentences(paragraph):
            words = sum(1 for word in sentence.split() if WORD.search(word))
            if words > MOST_WORDS:
                yield f"{words} words: {sentence}"
            found = PRONOUN.search(sentence)
            if found:
                yield f"'{found.group(1)}' after a semicolon: {sentence}"


def check_itself():
    """What must be found, and what must not."""
    long = " ".join(["word"] * 31) + "."
    for bad in (long, f"Short. {long}", f"- An item.\n- {long}", "It runs; it ends.", f"One `a b c` {long}"):
        assert list(faults(bad)), bad
    for good in ("A list:\n- " + "word " * 30, f"```\n{long}\n```", f"| {long} |", f"# {long}", "It runs; ranks end."):
        assert not list(faults(good)), good


def main():
    check_itself()
    source = sys.argv[1]
    count = 0
    for page in pages(source):
        with open(page, encoding="utf-8") as file:
            for fault in faults(file.read()):
                count += 1
                print(f"prose: {os.path.relpath(page, source)}: {fault}")
    print(f"prose: {count} faults")
    sys.exit(1 if count else 0)


if __name__ == "__main__":
    main()
