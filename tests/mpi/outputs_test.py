"""Where results go: into what is no regular file, never over it; beside a regular file and then renamed; never over an input or
another output, however these are spelled. What cannot be written is refused before computing. Signals leave nothing behind."""

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time

import support
from support import alone, environment, f32, mpi, mpi_command, read_safetensors, write_safetensors

SMALL = ["run", "--seq-len", 16, "--heads", 2, "--head-dim", 4]
# Takes hours, so that what ends before that was refused before it was computed.
LONG = ["run", "--seq-len", 4000000, "--heads", 1, "--head-dim", 8, "--verify", "none", "--strategy", "ring"]


class Reader:
    """Reads a FIFO to its end while the program runs."""

    def __init__(self, path):
        self.content = b""
        self.thread = threading.Thread(target=self.read, args=[path], daemon=True)
        self.thread.start()

    def read(self, path):
        with open(path, "rb") as file:
            self.content = file.read()

    def result(self):
        self.thread.join(support.SECONDS)
        return self.content


class Outputs(support.ProgramTest):
    def mode(self, name):
        return os.lstat(self.path(name)).st_mode

    def safetensors(self, content):
        with open(self.path("copy"), "wb") as file:
            file.write(content)
        return read_safetensors(self.path("copy"))

    # Streams.

    def test_a_fifo_is_written_into(self):
        for run in (alone, lambda *a: mpi(2, *a)):
            for option, name, check in [("--json", "r", lambda c: self.assertIn("verification", json.loads(c))),
                                        ("--out", "o", lambda c: self.assertIn("lse", self.safetensors(c))),
                                        ("--trace", "t.svg", lambda c: self.assertTrue(c.startswith(b"<svg"))),
                                        ("--trace", "t.json", lambda c: json.loads(c))]:
                with self.subTest(option=option, name=name):
                    if not os.path.exists(self.path(name)):
                        os.mkfifo(self.path(name))
                    reader = Reader(self.path(name))
                    self.assert_good(run(*SMALL, option, self.path(name)))
                    check(reader.result())
                    self.assertTrue(stat.S_ISFIFO(self.mode(name)))

    def test_a_large_result_passes_through_a_fifo(self):
        sizes = ["run", "--seq-len", 3000, "--heads", 4, "--head-dim", 16, "--verify", "none", "--mask", "window:10", "--ranks", 3]
        os.mkfifo(self.path("fifo"))
        os.symlink("fifo", self.path("link"))
        reader = Reader(self.path("fifo"))
        self.assert_good(alone(*sizes, "--out", self.path("link")))
        self.assert_good(alone(*sizes, "--out", self.path("file")))
        with open(self.path("file"), "rb") as file:
            self.assertEqual(reader.result(), file.read())
        self.assertTrue(stat.S_ISLNK(self.mode("link")))
        self.assertEqual(self.files(), ["fifo", "file", "link"])

    def test_a_fifo_without_a_reader_is_refused_in_time_before_computing(self):
        os.mkfifo(self.path("fifo"))
        for option in ("--json", "--out"):
            began = time.monotonic()
            self.assert_refused(alone(*LONG, "--timeout", 1, option, self.path("fifo")), "nobody opened it to read within 0.5 s",
                                code=4)
            self.assertLess(time.monotonic() - began, 20)
        self.assertEqual(self.files(), ["fifo"])

    def test_a_reader_that_leaves_or_stalls(self):
        os.mkfifo(self.path("fifo"))
        keep = os.open(self.path("fifo"), os.O_RDONLY | os.O_NONBLOCK)  # reads nothing
        try:
            sizes = ["run", "--seq-len", 2000, "--heads", 4, "--head-dim", 16, "--verify", "none", "--mask", "window:10"]
            self.assert_refused(alone(*sizes, "--timeout", 2, "--out", self.path("fifo")), "took nothing", code=4)
        finally:
            os.close(keep)
        job = subprocess.Popen([support.PROGRAM, *map(str, sizes), "--out", self.path("fifo")], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=environment())
        os.close(os.open(self.path("fifo"), os.O_RDONLY))
        _, errors = job.communicate(timeout=support.SECONDS)
        self.assertEqual(job.returncode, 5, errors)
        self.assertIn("its reader is gone", errors)

    def test_standard_output_by_any_name_takes_the_place_of_the_text(self):
        os.symlink("/dev/stdout", self.path("link"))
        # Not /dev/stdout itself: a program at fault would replace it, as root for the whole machine.
        for name in ("-", self.path("link"), "/proc/self/fd/1", "/dev/fd/1"):
            for run in (alone, lambda *a: mpi(2, *a)):
                with self.subTest(name):
                    result = run(*SMALL, "--json", name)
                    self.assert_good(result)
                    self.assertIn("verification", json.loads(result.stdout))
        self.assertTrue(stat.S_ISLNK(self.mode("link")))
        self.assertIn("lse", self.safetensors(subprocess.run([support.PROGRAM, *map(str, SMALL), "--out", "-"], check=True,
                                                             stdout=subprocess.PIPE, env=environment()).stdout))
        self.assert_refused(alone(*SMALL, "--json", "-", "--out", self.path("link")), "--out and --json name the same file")

    def test_a_redirected_standard_output_keeps_its_file(self):
        for name in ("-", "/proc/self/fd/1", "report"):
            with self.subTest(name), open(self.path("report"), "w") as file:
                file.write("before\n")
                file.flush()
                self.assertEqual(0, subprocess.run([support.PROGRAM, *map(str, SMALL), "--json", name], stdout=file,
                                                   cwd=self.folder, env=environment()).returncode)
            with open(self.path("report")) as file:
                self.assertEqual(file.readline(), "before\n")
                self.assertIn("verification", json.load(file))
        self.assertEqual(self.files(), ["report"])

    def test_an_open_descriptor_is_written_into(self):
        with open(self.path("report"), "w") as file:
            self.assert_good(alone(*SMALL, "--json", f"/dev/fd/{file.fileno()}", pass_fds=[file.fileno()]))
            self.assertEqual(os.fstat(file.fileno()).st_ino, os.stat(self.path("report")).st_ino)
        with open(self.path("report")) as file:
            self.assertIn("verification", json.load(file))

    def test_a_character_device_is_written_into(self):
        try:
            os.mknod(self.path("null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
            os.close(os.open(self.path("null"), os.O_WRONLY))
        except OSError as error:
            print(f"SKIPPED: no device can be made here: {error}", file=sys.stderr)
            self.skipTest(f"no device can be made here: {error}")
        os.symlink("null", self.path("null.svg"))
        for run in (alone, lambda *a: mpi(2, *a)):
            self.assert_good(run(*SMALL, "--json", self.path("null"), "--out", self.path("null"), "--trace",
                                 self.path("null.svg")))
        for verb in (["info"], ["check", "--seq-len", 16], ["bench", "--seq-len", 16, "--repeat", 1]):
            self.assert_good(alone(*verb, "--json", self.path("null")))
        self.assertTrue(stat.S_ISCHR(self.mode("null")))
        self.assertTrue(stat.S_ISLNK(self.mode("null.svg")))
        self.assertEqual(self.files(), ["null", "null.svg"])

    def test_a_link_to_a_device_is_followed(self):
        os.symlink("/dev/null", self.path("link"))  # a program at fault would replace the link
        for option in ("--json", "--out"):
            self.assert_good(alone(*SMALL, option, self.path("link")))
            self.assertTrue(stat.S_ISLNK(self.mode("link")))

    # Links and identity.

    def test_a_link_to_a_file_is_followed_and_stays(self):
        os.mkdir(self.path("far"))
        os.symlink("far/report", self.path("link"))
        os.symlink("link", self.path("link2"))
        for _ in range(2):  # its target is missing, then there
            self.assert_good(alone(*SMALL, "--json", self.path("link2"), "--out", self.path("far/out")))
            self.assertTrue(stat.S_ISLNK(self.mode("link")) and stat.S_ISLNK(self.mode("link2")))
            self.assertTrue(stat.S_ISREG(self.mode("far/report")))
        self.assertEqual(sorted(os.listdir(self.path("far"))), ["out", "report"])
        os.symlink("loop", self.path("loop"))
        self.assert_refused(alone(*LONG, "--json", self.path("loop")), "loop")

    def test_an_output_is_no_input(self):
        write_safetensors(self.path("in"), {name: f32([8, 2, 4], float) for name in "qkv"})
        with open(self.path("in"), "rb") as file:
            before = file.read()
        for name, text in [("lengths", "4 4"), ("job.ini", "threads = 1\n")]:
            with open(self.path(name), "w") as file:
                file.write(text)
        os.symlink("in", self.path("link"))
        os.link(self.path("in"), self.path("hard"))
        os.mkdir(self.path("d"))
        os.symlink("in", self.path("link.json"))
        arguments = ["run", "--query", "in", "--key", "./in:k", "--value", "in", "--mask", "documents:@lengths", "--config",
                     "job.ini"]
        for name in ("in", "./in", "d/../in", "link", "hard", self.path("in"), "lengths", "d/../job.ini"):
            for option in ("--out", "--json"):
                with self.subTest(name, option=option):
                    self.assert_refused(alone(*arguments, option, name, cwd=self.folder), option, "would destroy the input")
        self.assert_refused(alone(*arguments, "--trace", "link.json", cwd=self.folder), "--trace", "would destroy the input")
        self.assert_refused(mpi(2, *arguments, "--out", "link", cwd=self.folder), "--out", "would destroy the input")
        with open(self.path("in"), "rb") as file:
            self.assertEqual(file.read(), before)

    def test_two_outputs_are_two_files(self):
        with open(self.path("old"), "w") as file:
            file.write("old")
        os.symlink("new", self.path("dangling"))
        os.symlink("old", self.path("link"))
        os.link(self.path("old"), self.path("hard"))
        os.mkdir(self.path("d"))
        before = self.files()
        for a, b in [("new", "./new"), ("new", "d/../new"), ("dangling", "new"), ("old", "link"), ("old", "hard"),
                     (self.path("new"), "new"), ("-", "/proc/self/fd/1")]:
            with self.subTest((a, b)):
                self.assert_refused(alone(*LONG, "--out", a, "--json", b, cwd=self.folder), "--out and --json")
        self.assertEqual(self.files(), before)

    # Refused before computing.

    def test_what_cannot_be_written_is_refused_before_computing(self):
        os.mkdir(self.path("folder"))
        for name, fragment in [("missing/x", "no directory"), ("folder", "is a directory"), ("x/", "not the name of a file"),
                               ("n" * 300, "name too long"), ("/proc/x", "/proc/x"), ("/sys/kernel/x", "/sys/kernel/x")]:
            for option in ("--out", "--json"):
                with self.subTest(name, option=option):
                    self.assert_refused(alone(*LONG, option, name, cwd=self.folder), fragment)
        self.assertEqual(self.files(), ["folder"])

    def test_too_little_space_is_refused_before_computing(self):
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        self.assert_refused(alone(*LONG, "--out", self.path("out"), preexec_fn=limit), "File too large", code=5)
        huge = ["run", "--seq-len", (1 << 31) - 1, "--heads", 4096, "--head-dim", 256, "--mask", "window:1"]
        self.assert_refused(alone(*huge, "--out", self.path("out")), "No space left", code=5)

    def test_every_verb_refuses_first(self):
        for verb in (["info"], ["check", "--world-size", 2], ["bench", "--suite", "kernel"], ["trace", *LONG[1:]]):
            with self.subTest(verb):
                self.assert_refused(alone(*verb, "--json", self.path("missing/x")), "no directory")

    def test_a_closed_standard_output_lends_its_number_to_no_file(self):
        os.mkfifo(self.path("fifo"))  # open while the text is printed
        reader = Reader(self.path("fifo"))
        result = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", support.PROGRAM, *map(str, SMALL), "--json",
                                 self.path("fifo")], stderr=subprocess.PIPE, text=True, env=environment())
        self.assertEqual(result.returncode, 5, result.stderr)
        self.assertIn("standard output", result.stderr)
        json.loads(reader.result())

    # Signals.

    def parts(self):
        return [name for name in self.files() if name.startswith(".orrery-")]

    def wait_for(self, condition):
        deadline = time.monotonic() + 60
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)

    def start_writing(self, command, preexec_fn=None):
        """A job whose file of results is half written: a stopped reader holds the report back, or a large file takes time."""
        os.mkfifo(self.path("fifo"))
        self.reader = os.open(self.path("fifo"), os.O_RDONLY | os.O_NONBLOCK)  # reads nothing, so the file waits for it
        self.addCleanup(os.close, self.reader)
        job = subprocess.Popen([*command, "--out", self.path("fifo")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True, env=environment({"TMPDIR": self.folder}), preexec_fn=preexec_fn)
        self.addCleanup(lambda: (job.kill(), job.communicate()))
        self.wait_for(lambda: self.parts() or job.poll() is not None)
        self.assertIsNone(job.poll())
        return job

    WRITES = ["run", "--seq-len", 20000, "--heads", 4, "--head-dim", 16, "--verify", "none", "--mask", "window:10"]

    def test_a_signal_while_writing_leaves_nothing(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number):
                job = self.start_writing([support.PROGRAM, *map(str, self.WRITES), "--ranks", "2"])
                job.send_signal(number)
                job.send_signal(signal.SIGTERM)  # one more changes nothing but, when it is first, the number
                job.wait(support.SECONDS)
                self.assertIn(job.returncode, (128 + number, 128 + signal.SIGTERM))
                self.assertEqual(self.files(), ["fifo"])
                os.remove(self.path("fifo"))

    def test_a_signal_to_a_rank_while_writing_leaves_nothing(self):
        job = self.start_writing(mpi_command(2, *self.WRITES))
        writer = int(self.parts()[0].split("-")[1])
        os.kill(writer, signal.SIGTERM)
        _, errors = job.communicate(timeout=support.SECONDS)
        self.assertEqual(job.returncode, 128 + signal.SIGTERM, errors)
        self.assertEqual(self.files(), ["fifo"])

    def test_a_signal_to_the_launcher_while_writing_leaves_nothing(self):
        command = mpi_command(2, *self.WRITES)
        grace = command.index("odls_base_sigkill_timeout") + 1
        command[grace] = "5"
        job = self.start_writing(command)
        job.send_signal(signal.SIGTERM)
        job.communicate(timeout=support.SECONDS)
        self.assertNotEqual(job.returncode, 0)
        self.wait_for(lambda: self.files() == ["fifo"])

    def test_a_signal_while_computing_ends_the_program(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number):
                job = subprocess.Popen([support.PROGRAM, *map(str, LONG), "--ranks", "2", "--out", self.path("out")],
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
                self.wait_for(lambda: sum(os.times()[2:4]) >= 0 and self.cpu_seconds(job.pid) > 0.5)
                job.send_signal(number)
                job.communicate(timeout=support.SECONDS)
                self.assertEqual(job.returncode, 128 + number)
                self.assertEqual(self.files(), [])

    @staticmethod
    def cpu_seconds(pid):
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def test_a_signal_that_was_ignored_stays_ignored(self):
        job = self.start_writing([support.PROGRAM, *map(str, self.WRITES)],
                                 preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        job.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        self.assertIsNone(job.poll())
        job.send_signal(signal.SIGINT)
        job.wait(support.SECONDS)
        self.assertEqual(job.returncode, 128 + signal.SIGINT)

    def test_a_killed_writer_leaves_a_file_that_tells_whose_it_is(self):
        job = self.start_writing([support.PROGRAM, *map(str, self.WRITES)])
        job.kill()
        job.wait(support.SECONDS)
        self.assertRegex(self.parts()[0], rf"^\.orrery-{job.pid}-[0-9a-f]{{8}}\.part$")


if __name__ == "__main__":
    support.main()
