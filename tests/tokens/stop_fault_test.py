"""The program as a process of its own: stopped half way, a worker that is killed, a reader that goes away."""

import json
import os
import signal
import subprocess
import sys
import time
import unittest

from chats_test import WithModel
from tiny_model import PROGRAM, chat, read_lines, spell, write_lines


class Stopped(WithModel):
    def setUp(self):
        super().setUp()
        self.model()
        self.pipe = self.path("in.jsonl")

    def begin(self, workers):
        """encode, reading from a pipe, with 400 lines given and more expected."""
        if os.path.exists(self.pipe):
            os.unlink(self.pipe)
        os.mkfifo(self.pipe)
        arguments = [
            sys.executable,
            PROGRAM,
            "encode",
            "--model",
            self.path("model"),
            "--conversations",
            self.pipe,
            "--out",
            self.out,
            "--workers",
            str(workers),
        ]
        process = subprocess.Popen(
            arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.addCleanup(process.kill)
        source = open(self.pipe, "w")
        self.addCleanup(source.close)
        line = json.dumps({"messages": chat("q", "a")}) + "\n"
        source.write(400 * line)
        source.flush()
        return process, source

    def temporary(self):
        return [n for n in os.listdir(self.folder) if n.endswith(".tmp")]

    def until(self, condition):
        deadline = time.monotonic() + 120
        while not condition():
            self.assertLess(time.monotonic(), deadline, "nothing happened")
            time.sleep(0.01)

    def children(self, process):
        """Its workers: processes of its session that run the worker's main function."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/stat") as stat, open(f"/proc/{name}/cmdline") as line:
                    fields = stat.read().rpartition(")")[2].split()
                    if int(fields[3]) == process.pid and "spawn_main" in line.read():
                        found.append(int(name))
            except (FileNotFoundError, ProcessLookupError):
                pass
        return found

    def ends(self, process, saying):
        out, said = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 1, said)
        self.assertNotIn("Traceback", said)
        self.assertIn(saying, said)
        self.assertEqual(out, "")
        self.assertEqual(sorted(os.listdir(self.folder)), ["in.jsonl", "model"])
        self.until(lambda: not self.children(process))

    def test_ctrl_c_leaves_nothing(self):
        for workers in (1, 2):
            for number in (signal.SIGINT, signal.SIGTERM):
                with self.subTest(workers=workers, signal=number.name):
                    process, source = self.begin(workers)
                    self.until(lambda: self.temporary() and (workers == 1 or self.children(process)))
                    if number == signal.SIGINT:
                        os.killpg(process.pid, number)  # as a terminal does
                    else:
                        process.send_signal(number)
                    self.ends(process, "stopped: nothing was written")
                    source.close()

    def test_a_worker_that_is_killed(self):
        process, source = self.begin(2)
        self.until(lambda: len(self.children(process)) == 2)
        killed = self.children(process)[0]
        os.kill(killed, signal.SIGKILL)
        self.until(lambda: killed not in self.children(process))
        source.close()
        self.ends(process, "a worker process ended")


class StandardOutput(WithModel):
    def decode(self, lines, **options):
        source = write_lines(self.path("in.jsonl"), [{"input_ids": spell("text" * 50)}] * lines)
        arguments = [sys.executable, PROGRAM, "decode", "--model", self.model(), "--in", source]
        return subprocess.Popen(
            arguments, **{"stdout": subprocess.PIPE, **options}, stderr=subprocess.PIPE, text=True
        )

    def test_a_full_disk(self):
        for lines in (1, 2000):  # found out at the end, and on the way
            with open("/dev/full", "w") as full:
                process = self.decode(lines, stdout=full)
                said = process.communicate(timeout=120)[1]
            self.assertEqual(process.returncode, 1)
            want = "error: standard output: cannot be written (No space left on device). Send it to a place with room\n"
            self.assertEqual(said, want)

    def test_closed(self):
        for lines in (1, 2000):
            process = self.decode(lines, stdout=None, preexec_fn=lambda: os.close(1))
            said = process.communicate(timeout=120)[1]
            want = "error: standard output: cannot be written (Bad file descriptor). Send it to a place with room\n"
            self.assertEqual((process.returncode, said), (1, want))

    def test_stopped_when_something_was_printed(self):
        process = self.decode(20000)
        self.assertIn("text", process.stdout.readline())
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.communicate(timeout=120)[1], "stopped\n")
        self.assertEqual(process.returncode, 1)

    def test_decode_into_a_closed_pipe(self):
        process = self.decode(2000)
        self.assertIn("text", process.stdout.readline())
        process.stdout.close()
        self.assertEqual((process.wait(timeout=120), process.stderr.read()), (1, ""))
        process.stderr.close()


class Progress(WithModel):
    def test_output_does_not_hold_what_stderr_says(self):
        source = self.lines({"messages": chat("q", "a")})
        arguments = [
            sys.executable,
            PROGRAM,
            "encode",
            "--model",
            self.model(),
            "--conversations",
            source,
            "--out",
            self.out,
        ]
        done = subprocess.run(arguments, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(len(read_lines(self.out)), 1)


del WithModel  # its own cases run in their file
if __name__ == "__main__":
    unittest.main()
