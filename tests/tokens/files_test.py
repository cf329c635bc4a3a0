"""What needs no package: assemble, stats, shapes of chats, lines that are wrong, output that is whole or absent."""

import json
import os
import stat
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

from tiny_model import PROGRAM, chat, chat_shapes, json_lines, read_lines, run, write_lines

BadRecord = json_lines.BadRecord


class InFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.out = self.path("out.jsonl")

    def path(self, name):
        return os.path.join(self.folder, name)

    def lines(self, *records):
        return write_lines(self.path("in.jsonl"), records)

    def fails(self, *arguments, saying):
        """The program ends with 1, one line that says all of `saying`, and no output or remains."""
        before = sorted(os.listdir(self.folder))
        code, _, said = run(*arguments)
        self.assertEqual(code, 1, said)
        self.assertEqual(said.count("\n"), 1, said)
        self.assertTrue(said.startswith("error: "), said)
        for part in saying if isinstance(saying, tuple) else (saying,):
            self.assertIn(part, said)
        self.assertEqual(sorted(os.listdir(self.folder)), before)


class Assemble(InFolder):
    ROLLOUT = {"id": "a", "input_ids": [5, 6, 7, 8, 9], "prompt_tokens": 3, "finish": "stop"}

    def test_mask_begins_behind_the_prompt(self):
        source = self.lines(self.ROLLOUT, {**self.ROLLOUT, "id": "b", "finish": "length"})
        code, said, _ = run("assemble", "--prompts", source, "--out", self.out)
        self.assertEqual(code, 0)
        want = [{"input_ids": [5, 6, 7, 8, 9], "loss_mask": [0, 0, 0, 1, 1], "id": i} for i in "ab"]
        self.assertEqual(read_lines(self.out), want)
        self.assertIn("4 of them supervised (40.0 %)", said)

    def test_other_convention_moves_the_mask_by_one(self):
        run("assemble", "--prompts", self.lines(self.ROLLOUT), "--out", self.out, "--shift", "shifted")
        self.assertEqual(read_lines(self.out)[0]["loss_mask"], [0, 0, 1, 1, 0])

    def test_unfinished_and_unsupervised(self):
        source = self.lines(
            self.ROLLOUT,
            {**self.ROLLOUT, "id": "b", "finish": "length"},
            {**self.ROLLOUT, "id": "c", "prompt_tokens": 5},
        )
        _, said, _ = run("assemble", "--prompts", source, "--out", self.out, "--drop-unfinished", "--json")
        self.assertEqual([r["id"] for r in read_lines(self.out)], ["a"])
        self.assertEqual(json.loads(said)["left_out"], {"unfinished": 1, "without supervision": 1})
        run("assemble", "--prompts", source, "--out", self.out, "--keep-unsupervised")
        self.assertEqual([r["id"] for r in read_lines(self.out)], ["a", "b", "c"])

    def test_a_conversation_without_tokens_is_never_written(self):
        empty = {"id": "b", "input_ids": [], "prompt_tokens": 0, "finish": "stop"}
        source = self.lines(self.ROLLOUT, empty)
        for more in ((), ("--keep-unsupervised",)):
            _, said, _ = run("assemble", "--prompts", source, "--out", self.out, "--json", *more)
            self.assertEqual([r["id"] for r in read_lines(self.out)], ["a"])
            self.assertEqual(json.loads(said)["left_out"], {"without tokens": 1})

    def test_cut_before_the_answer_supervises_nothing(self):
        source = self.lines(self.ROLLOUT)
        self.fails(
            "assemble",
            "--prompts",
            source,
            "--out",
            self.out,
            "--max-len",
            3,
            saying=("no token is supervised", source),
        )
        run("assemble", "--prompts", source, "--out", self.out, "--max-len", 4)
        self.assertEqual(
            read_lines(self.out)[0], {"input_ids": [5, 6, 7, 8], "loss_mask": [0, 0, 0, 1], "id": "a"}
        )

    def test_lines_that_are_wrong(self):
        good = self.ROLLOUT
        for bad, saying in [
            (b"{", "is not JSON"),
            (b"[" * 100000, "is not JSON"),
            (b'{"input_ids": "\xff"}', "UTF-8"),
            (b"[1]", "is not a JSON object"),
            ({**good, "input_ids": None}, "no array 'input_ids'"),
            ({**good, "input_ids": [1, -1]}, "holds -1"),
            ({**good, "input_ids": [1, True]}, "holds true"),
            ({**good, "input_ids": [1, 2.0]}, "holds 2.0"),
            ({**good, "input_ids": [1 << 40]}, "holds 1099511627776"),
            ({**good, "prompt_tokens": 6}, "'prompt_tokens'"),
            ({**good, "prompt_tokens": -1}, "'prompt_tokens'"),
            ({**good, "finish": "tired"}, "'finish'"),
            ({**good, "id": []}, "'id'"),
            (good, "the id 'a' of line 1"),
        ]:
            with self.subTest(saying):
                source = self.lines(good, b"", bad)
                self.fails(
                    "assemble", "--prompts", source, "--out", self.out, saying=(saying, "in.jsonl:3: ")
                )

    def test_output_that_cannot_be(self):
        source = self.lines(self.ROLLOUT)
        self.fails(
            "assemble", "--prompts", source, "--out", self.path("none/out"), saying="cannot be written"
        )
        self.fails("assemble", "--prompts", source, "--out", source, saying="is the input, too")
        for name in (self.folder, self.path("none/"), ""):
            self.fails("assemble", "--prompts", source, "--out", name, saying="is a directory")
        self.fails("assemble", "--prompts", self.path("absent"), "--out", self.out, saying="cannot be read")

    def test_output_that_is_no_regular_file(self):
        source, pipe = self.lines(self.ROLLOUT), self.path("pipe")
        os.mkfifo(pipe)
        os.symlink("pipe", self.path("link"))
        os.symlink("circle", self.path("circle"))
        for name in ("pipe", "link", "circle"):
            self.fails(
                "assemble", "--prompts", source, "--out", self.path(name), saying=(name, "is no regular file")
            )
        self.assertTrue(stat.S_ISFIFO(os.stat(pipe).st_mode))

    def test_output_behind_a_link(self):
        source = self.lines(self.ROLLOUT)
        os.mkdir(self.path("far"))
        os.symlink("far/file", self.path("link"))
        for _ in ("of nothing yet", "of a file"):
            self.assertEqual(run("assemble", "--prompts", source, "--out", self.path("link"))[0], 0)
            self.assertTrue(os.path.islink(self.path("link")))
            self.assertEqual(len(read_lines(self.path("far/file"))), 1)
            self.assertEqual(os.listdir(self.path("far")), ["file"])

    def test_an_error_leaves_the_old_file(self):
        source = self.lines(self.ROLLOUT)
        run("assemble", "--prompts", source, "--out", self.out)
        before = read_lines(self.out)
        self.fails(
            "assemble", "--prompts", self.lines(self.ROLLOUT, b"x"), "--out", self.out, saying="in.jsonl:2"
        )
        self.assertEqual(read_lines(self.out), before)

    def test_a_name_that_does_not_come_from_the_line(self):
        run(
            "assemble",
            "--prompts",
            self.lines(self.ROLLOUT, self.ROLLOUT),
            "--out",
            self.out,
            "--ids",
            "line",
        )
        self.assertEqual([r["id"] for r in read_lines(self.out)], ["in:1", "in:2"])


class Stopped(InFolder):
    """An interrupt where `place` of the program is reached."""

    def stopped_at(self, place):
        source = self.lines(Assemble.ROLLOUT)
        with unittest.mock.patch(place, side_effect=KeyboardInterrupt):
            code, _, said = run("assemble", "--prompts", source, "--out", self.out)
        self.assertEqual(code, 1)
        return said

    def test_before_the_file_appears(self):
        self.assertEqual(self.stopped_at("rollouts.keep"), "stopped: nothing was written\n")
        self.assertFalse(os.path.exists(self.out))

    def test_behind_that(self):
        self.assertEqual(self.stopped_at("rollouts.report"), "stopped\n")
        self.assertEqual(len(read_lines(self.out)), 1)


class Stats(InFolder):
    def test_figures(self):
        masks = [[0, 1], [1, 1, 1], [0, 0, 0, 0]]
        source = self.lines(*({"input_ids": [7] * len(m), "loss_mask": m} for m in masks))
        code, said, _ = run("stats", source, "--json")
        self.assertEqual(code, 0)
        self.assertEqual(
            json.loads(said),
            {
                "conversations": 3,
                "tokens": 9,
                "supervised_tokens": 4,
                "without_supervision": 1,
                "left_out": {},
                "lengths": {"min": 2, "median": 3, "max": 4, "histogram": [[2, 3, 2], [4, 7, 1]]},
            },
        )
        text = run("stats", source)[1]
        self.assertIn("9, 4 of them supervised (44.4 %)", text)
        self.assertIn("without supervision  1 (33.3 %)", text)
        self.assertIn("2 to 3        " + 40 * "#" + " 2", text)
        self.assertIn("4 to 7        " + 20 * "#" + 20 * " " + " 1", text)

    def test_nothing_supervised_is_an_error(self):
        self.fails("stats", self.lines({"input_ids": [1], "loss_mask": [0]}), saying="no token is supervised")
        self.fails("stats", self.lines(b""), saying="no token is supervised")

    def test_lines_that_are_wrong(self):
        self.fails(
            "stats",
            self.lines({"input_ids": [1, 2], "loss_mask": [1]}),
            saying=("in.jsonl:1", "2 input_ids but 1"),
        )
        self.fails("stats", self.lines({"input_ids": [1], "loss_mask": [2]}), saying="'loss_mask' holds 2")
        self.fails("stats", self.lines({"input_ids": [1]}), saying="no array 'loss_mask'")


class Usage(unittest.TestCase):
    def test_wrong_usage_is_2(self):
        for arguments in [
            (),
            ("nothing",),
            ("encode",),
            ("stats",),
            ("stats", "a", "--no-such"),
            ("decode", "--model", "m", "--in", "f", "--json"),
            ("assemble", "--prompts", "a", "--out", "b", "--max-len", "0"),
            ("self-prompt", "--model", "m", "--out", "o"),
            ("self-prompt", "--model", "m", "--out", "o", "--count", "1", "--from", "f"),
        ]:
            self.assertEqual(run(*arguments)[0], 2, arguments)

    def test_help_says_what_eyas_trains_with(self):
        code, said, _ = run("encode", "--help")
        self.assertEqual(code, 0)
        self.assertIn("eyas and SpecForge train with this one", said)


class Shapes(unittest.TestCase):
    WANT = chat("q", "a", system="s")

    def test_all_become_one(self):
        turns = [("system", "s"), ("human", "q"), ("gpt", "a")]
        for record in [
            {"messages": self.WANT},
            {"conversations": self.WANT},
            {"conversations": [{"from": f, "value": v} for f, v in turns]},
            {"system": "s", "conversations": self.WANT[1:]},
            {"system": "other", "conversations": self.WANT},
            self.WANT,
            {"messages": [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in self.WANT]},
        ]:
            self.assertEqual(chat_shapes.to_messages(record, "x"), self.WANT)

    def test_what_is_none(self):
        for record in [
            {},
            {"messages": []},
            {"messages": "q"},
            {"messages": ["q"]},
            3,
            None,
            [],
            {"messages": [{"role": "robot", "content": "q"}]},
            {"messages": [{"role": 1, "content": "q"}]},
            {"messages": [{"role": "user"}]},
            {"messages": [{"role": "user", "content": 3}]},
            {"messages": [{"role": "user", "content": "\ud800"}]},
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
        ]:
            with self.assertRaises(BadRecord, msg=repr(record)):
                chat_shapes.to_messages(record, "x")

    def test_prompts(self):
        for record, want in [
            ("q", chat("q")),
            ({"prompt": "q"}, chat("q")),
            ({"prompt": chat("q")}, chat("q")),
            ({"system": "s", "prompt": "q"}, chat("q", system="s")),
            ({"system": "s", "prompt": chat("q", "a")}, chat("q", system="s")),
            ({"system": "other", "prompt": chat("q", system="s")}, chat("q", system="s")),
            ({"system": "s", "messages": chat("q", "a")}, chat("q", system="s")),
            ({"system": "", "prompt": "q"}, chat("q")),
            ({"messages": chat("q", "a")}, chat("q")),
            ({"messages": chat("q", "a", "r")}, chat("q", "a", "r")),
            ({"messages": chat("q", "a", "r", "b", system="s")}, chat("q", "a", "r", system="s")),
        ]:
            self.assertEqual(chat_shapes.to_prompt(record, "x"), want)
        for record in [
            "",
            " ",
            {"prompt": 1},
            {"prompt": {"prompt": "q"}},
            {"system": 1, "prompt": "q"},
            {"messages": chat("q", "a")[1:]},
            {"messages": chat(system="s")},
            {},
        ]:
            with self.assertRaises(BadRecord, msg=repr(record)):
                chat_shapes.to_prompt(record, "x")


class StandardOutput(InFolder):
    def ends(self, arguments, reason, **output):
        """The program ends with 1 and the one line that tells `reason`."""
        process = subprocess.run(
            [sys.executable, PROGRAM, *arguments], stderr=subprocess.PIPE, text=True, timeout=120, **output
        )
        want = f"error: standard output: cannot be written ({reason}). Send it to a place with room\n"
        self.assertEqual((process.returncode, process.stderr), (1, want))

    def test_full_or_closed(self):
        source = self.lines(Assemble.ROLLOUT)
        conversations = self.path("conversations.jsonl")
        run("assemble", "--prompts", source, "--out", conversations)
        before = read_lines(conversations)
        for arguments in (
            ["stats", conversations],
            ["stats", "--json", conversations],
            ["assemble", "--prompts", source, "--out", self.out],
        ):
            with open("/dev/full", "w") as full:
                self.ends(arguments, "No space left on device", stdout=full)
            for closed in ((1,), (0, 1)):
                self.ends(
                    arguments, "Bad file descriptor", preexec_fn=lambda: [os.close(number) for number in closed]
                )
        self.assertEqual(read_lines(self.out), before)  # what the figures are of is there


if __name__ == "__main__":
    unittest.main()
