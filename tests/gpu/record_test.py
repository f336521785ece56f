"""The record of the GPU machine: what --check says of a temporary tree, what its hash sees, how outcomes are read.

Run as `python3 record_test.py [unittest options]`.
"""

import fnmatch
import glob
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True


def load(path):
    spec = importlib.util.spec_from_file_location("record", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Tree(unittest.TestCase):
    """A tree with three sources and a copy of the script."""

    def setUp(self):
        self.root = tempfile.mkdtemp(prefix="orrery-record-test-")
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        for name in ("src/device/a.cpp", "src/kernels/cuda/k.cu", "src/core/b.cpp"):
            self.write(name, name)
        self.script = os.path.join(self.root, "tests/gpu/record.py")
        os.makedirs(os.path.dirname(self.script))
        shutil.copy(os.path.join(HERE, "record.py"), self.script)

    def write(self, name, text):
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def write_record(self, **fields):
        record = {"date": "2026-01-02", "device": "a device", "hash": load(self.script).hash_of_sources(), "sections": {
            "tests": {"status": "ok", "tests": [{"name": "t", "status": "passed", "seconds": 1.0}]},
            "kernel": {"status": "ok", "rows": [{}, {}]}}}
        self.write("tests/gpu/record.json", json.dumps({**record, **fields}))

    def check(self, code=0):
        result = subprocess.run([sys.executable, "-B", self.script, "--check"], capture_output=True, text=True,
                                timeout=60)
        self.assertEqual(result.returncode, code, result.stderr)
        return result.stdout.strip()

    def test_check_tells_fresh_from_stale_and_none(self):
        self.assertEqual(self.check(), "GPU record: there is none")
        self.write_record()
        fresh = "GPU record: fresh, a device, 2026-01-02, 1 tests, 2 bench rows"
        self.assertEqual(self.check(), fresh)
        self.write("src/core/b.cpp", "of no kernel")
        self.assertEqual(self.check(), fresh)
        self.write("src/device/a.cpp", "changed")
        self.assertEqual(self.check(), "GPU record: STALE: the GPU sources changed since 2026-01-02")

    def test_failed_sections_and_malformed_records_show(self):
        self.write_record(sections={"compare": {"status": "failed", "reason": "why"}})
        self.assertTrue(self.check().endswith("; FAILED: compare"))
        for text in ("{", "[]", "{}"):
            self.write("tests/gpu/record.json", text)
            self.check(code=2)
        self.write_record(sections={"tests": {}})
        self.assertIn("section tests has no status", self.check(code=2))

    def test_hash_sees_names_and_what_git_does_not_ignore(self):
        module = load(self.script)
        alone = module.hash_of_sources()
        git = ["git", "-c", "init.defaultBranch=main", "-C", self.root]
        if shutil.which("git") is None:
            self.skipTest("git is not here")
        subprocess.run([*git, "init", "-q"], check=True)
        self.assertEqual(module.hash_of_sources(), alone)  # untracked files count like files without a repository
        self.write(".gitignore", "*.log\n")
        self.write("src/device/run.log", "ignored")
        self.assertEqual(module.hash_of_sources(), alone)
        os.rename(os.path.join(self.root, "src/device/a.cpp"), os.path.join(self.root, "src/device/c.cpp"))
        self.assertNotEqual(module.hash_of_sources(), alone)


class Outcomes(unittest.TestCase):
    def setUp(self):
        self.record = load(os.path.join(HERE, "record.py"))

    def test_tests_that_did_not_run_are_told_apart(self):
        cases = ('<testcase name="a" time="0.5" status="run"/>'
                 '<testcase name="b" time="0" status="notrun"><skipped message="SKIP_RETURN_CODE=77"/></testcase>'
                 '<testcase name="c" time="0" status="notrun"><skipped message="Unable to find executable"/></testcase>'
                 '<testcase name="d" time="1" status="fail"><failure/><system-out>why</system-out></testcase>')
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
            file.write(f"<testsuite>{cases}</testsuite>")
            file.flush()
            found = self.record.read_junit(file.name)
        self.assertEqual([found[name]["status"] for name in "abcd"], ["passed", "skipped", "missing", "failed"])

    def test_sanitizer_that_finds_nothing_is_told_from_one_that_cannot_run(self):
        count = len(self.record.SANITIZED)

        def result(code, text):
            return self.record.sanitizer_outcome(subprocess.CompletedProcess([], code, text, ""))

        def outcome(code, text):
            return result(code, text)["status"]

        passed = f"All tests passed (9 assertions in {count} test cases)\n"
        self.assertEqual(outcome(0, passed + "========= ERROR SUMMARY: 0 errors\n"), "ok")
        self.assertEqual(outcome(9, passed + "========= ERROR SUMMARY: 2 errors\n"), "failed")
        self.assertEqual(outcome(0, passed.replace(str(count), "1") + "========= ERROR SUMMARY: 0 errors\n"), "failed")
        self.assertEqual(outcome(0, passed + "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors)\n"), "ok")
        race = ("========= Error: Race reported between Write access at kernel()+0xf0\n" + passed +
                "========= RACECHECK SUMMARY: 3 hazards displayed (2 errors, 1 warning)\n")
        self.assertEqual(outcome(9, race), "failed")
        self.assertIn("kernel()+0xf0", result(9, race)["reason"])
        self.assertEqual(result(9, passed + "========= RACECHECK SUMMARY: 1 hazard displayed (0 errors, 1 warning)\n"),
                         {"status": "ok", "tests": count, "warnings": 1})
        self.assertEqual(outcome(9, passed + "========= ERROR SUMMARY: 0 errors\n"), "failed")  # code for nothing
        self.assertEqual(outcome(0, passed), "failed")  # no summary
        self.assertEqual(outcome(0, "========= Internal Sanitizer Error: it did not track the launch\n" + passed +
                                 "========= ERROR SUMMARY: 0 errors\n"), "failed")
        self.assertEqual(outcome(1, "========= Target application terminated before first instrumented API call\n"),
                         "skipped")
        self.assertEqual(outcome(1, "========= Error: Device not supported\n"), "skipped")

    def test_sanitized_tests_exist(self):
        names = []
        for path in glob.glob(os.path.join(HERE, "kernel", "*.cpp")):
            with open(path, encoding="utf-8") as file:
                names += re.findall(r'TEST_CASE\("([^"]*)"', file.read())
        for pattern in self.record.SANITIZED:
            self.assertNotIn(",", pattern)
            self.assertEqual(len(fnmatch.filter(names, pattern)), 1, pattern)


if __name__ == "__main__":
    unittest.main()
