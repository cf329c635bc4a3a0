"""encode and prompts with a model whose tokens are known by hand (tiny_model.spell)."""

import os
import unittest

import tiny_model
from files_test import InFolder
from tiny_model import CHATML, HEADERS, chat, make_model, read_lines, run, spell, write_json


def conversation(*pieces, tail=True):
    """{input_ids, loss_mask} of (text, supervised) pieces."""
    ids, mask = [], []
    for text, supervised in pieces:
        own = spell(text)
        ids, mask = ids + own, mask + [int(supervised)] * len(own)
    return {"input_ids": ids, "loss_mask": mask}


def chatml(*contents, system=None, supervised=("assistant",)):
    pieces = []
    for m in chat(*contents, system=system):
        pieces += [
            (f"<|im_start|>{m['role']}\n", False),
            (m["content"] + "<|im_end|>", m["role"] in supervised),
            ("\n", False),
        ]
    return conversation(*pieces[:-1]) if pieces[-2][1] else conversation(*pieces)


class WithModel(InFolder):
    def model(self, template=CHATML, **more):
        return make_model(self.path("model"), template, **more)

    def encoded(self, model, records, *more):
        """The conversations that encode makes of chats, without ids."""
        records = [{"messages": r} if isinstance(r, list) else r for r in records]
        source = self.lines(*records)
        code, self.said, errors = run(
            "encode", "--model", model, "--conversations", source, "--out", self.out, *more
        )
        self.assertEqual(code, 0, errors)
        return [{k: v for k, v in r.items() if k != "id"} for r in read_lines(self.out)]


class Encode(WithModel):
    def test_answers_and_their_ends_are_supervised(self):
        chats = [("q", "a"), ("Was?", "Höhe 🙂", "", "e\u0301\n"), ("q", ""), ("q\n\n", "a\n\nb ")]
        got = self.encoded(self.model(), [chat(*c, system="s") for c in chats])
        self.assertEqual(got, [chatml(*c, system="s") for c in chats])

    def test_last_turn_is_a_users(self):
        pieces = chatml("q", "a", "r")
        self.assertEqual(self.encoded(self.model(), [chat("q", "a", "r")], "--keep-tail"), [pieces])
        self.assertEqual(self.encoded(self.model(), [chat("q", "a", "r")]), [chatml("q", "a")])

    def test_a_token_over_the_edge_belongs_to_the_answer(self):
        # The header's line end and the answer's first one are a single token.
        want = conversation(
            ("<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant", False), ("\n\nb<|im_end|>", True)
        )
        self.assertEqual(self.encoded(self.model(), [chat("q", "\nb")]), [want])

    def test_marks_of_the_template_give_the_same(self):
        chats = [chat("q", "a", "r", "b", system="s"), chat("q", "\nb")]
        got = self.encoded(self.model(tiny_model.CHATML_MARKED), chats)
        self.assertEqual(got, self.encoded(self.model(), chats))

    def test_marks_are_taken_as_they_are(self):
        template = CHATML.replace("m.content", "m.content[:1]").replace(
            "}}", "}}{% generation %}!{% endgeneration %}", 1
        )
        want = conversation(
            ("<|im_start|>user\nq<|im_end|>\n", False),
            ("!", True),
            ("<|im_start|>assistant\na<|im_end|>\n", False),
            ("!", True),
        )
        self.assertEqual(self.encoded(self.model(template), [chat("quo", "abc")]), [want])

    def test_headers_with_another_end_of_turn(self):
        text = "<|begin|><|head|>user<|/head|>\n\nq<|eot|><|head|>assistant<|/head|>\n\n"
        model = self.model(HEADERS, eos="<|eot|>")
        got = self.encoded(model, [chat("  q", " a "), chat("q", "<|eot|>b")])
        self.assertEqual(
            got,
            [
                conversation((text, False), ("a<|eot|>", True)),
                conversation((text, False), ("<|eot|>b<|eot|>", True)),
            ],
        )

    def test_reasoning_that_is_left_out_later(self):
        head = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
        want = conversation(
            (head, False),
            ("a<|im_end|>", True),
            ("\n" + head, False),
            ("<think>nothing at all was thought before this answer</think>b<|im_end|>", True),
        )
        self.assertEqual(self.encoded(self.model(tiny_model.REASONING), [chat("q", "a", "q", "b")]), [want])

    def test_last_and_all(self):
        chats = [chat("q", "a", "r", "b")]
        whole = self.encoded(self.model(), chats, "--keep-tail")[0]["input_ids"]
        last = self.encoded(self.model(), chats, "--mask", "last")[0]
        answer = len(spell("b<|im_end|>"))
        self.assertEqual(
            last, {"input_ids": whole[:-1], "loss_mask": [0] * (len(whole) - 1 - answer) + [1] * answer}
        )
        every = self.encoded(self.model(), chats, "--mask", "all")[0]
        self.assertEqual(every, {"input_ids": whole, "loss_mask": [1] * len(whole)})

    def test_shifted_marks_the_token_before(self):
        legacy = self.encoded(self.model(), [chat("q", "abc")])[0]
        shifted = self.encoded(self.model(), [chat("q", "abc")], "--shift", "shifted")[0]
        self.assertEqual(shifted["input_ids"], legacy["input_ids"])
        self.assertEqual(shifted["loss_mask"], legacy["loss_mask"][1:] + [0])

    def test_cut_and_unsupervised(self):
        short, long = chat("q", "a"), chat("q" * 100, "a")
        limit = len(chatml("q", "a")["input_ids"]) - 1
        want = {k: v[:limit] for k, v in chatml("q", "a").items()}
        self.assertEqual(self.encoded(self.model(), [short, long], "--max-len", limit), [want])
        self.assertIn("(left out: 1 without supervision)", self.said)
        both = self.encoded(self.model(), [short, long], "--max-len", limit, "--keep-unsupervised")
        self.assertEqual([sum(c["loss_mask"]) for c in both], [1, 0])
        source = self.lines({"messages": long})
        self.fails(
            "encode",
            "--model",
            self.model(),
            "--conversations",
            source,
            "--out",
            self.path("new"),
            "--max-len",
            limit,
            saying=("no token is supervised", "1 without supervision", source),
        )

    def test_system_for_those_without(self):
        got = self.encoded(self.model(), [chat("q", "a"), chat("q", "a", system="own")], "--system", "s")
        self.assertEqual(got, [chatml("q", "a", system="s"), chatml("q", "a", system="own")])

    def test_names_and_statistics(self):
        source = self.lines(
            {"id": "x", "messages": chat("q", "a")},
            {"messages": chat("q", "a")},
            {"id": 7, "messages": chat("q", "a")},
        )
        _, said, _ = run("encode", "--model", self.model(), "--conversations", source, "--out", self.out)
        self.assertEqual([r["id"] for r in read_lines(self.out)], ["x", "in:2", "7"])
        self.assertEqual(said, run("stats", self.out)[1])

    def test_template_beside_the_tokenizer_and_another(self):
        model = self.model(template=None)
        with open(os.path.join(model, "chat_template.jinja"), "w") as out:
            out.write(CHATML)
        self.assertEqual(self.encoded(model, [chat("q", "a")]), [chatml("q", "a")])
        other = self.path("other.jinja")
        with open(other, "w") as out:
            out.write(CHATML.replace("m.role +", "m.role + strftime_now('%d/') + mood +"))
        got = self.encoded(
            model,
            [chat("q", "a")],
            "--chat-template",
            other,
            "--mask",
            "all",
            "--date",
            "2026-02-03",
            "--template-args",
            '{"mood": "M"}',
        )
        self.assertEqual(
            got[0]["input_ids"],
            spell("<|im_start|>user03/M\nq<|im_end|>\n<|im_start|>assistant03/M\na<|im_end|>\n"),
        )

    def test_several_named_templates(self):
        named = [{"name": "tool_use", "template": "{{ 1 }}"}, {"name": "default", "template": CHATML}]
        self.assertEqual(self.encoded(self.model(named), [chat("q", "a")]), [chatml("q", "a")])

    def test_a_token_that_only_the_config_lists(self):
        model = self.model(added_tokens_decoder={str(tiny_model.SIZE): {"content": "<new>", "special": True}})
        write_json(os.path.join(model, "config.json"), {})
        self.assertIn(tiny_model.SIZE, self.encoded(model, [chat("<new>q", "a")])[0]["input_ids"])

    def test_spelled_special_tokens_are_told(self):
        source = self.lines({"messages": chat("say <|im_end|>", "a")})
        _, _, said = run("encode", "--model", self.model(), "--conversations", source, "--out", self.out)
        self.assertIn("note: 1 of the texts spell special tokens", said)

    def test_any_number_of_workers_writes_the_same(self):
        source = self.lines(
            *({"messages": chat("q" * (i % 9), "a" * (i % 7))} for i in range(200)), {"messages": 3}
        )
        arguments = ["encode", "--model", self.model(), "--conversations", source, "--skip-invalid"]
        outcomes = []
        for workers in (1, 2, 3):
            out = self.path(f"out{workers}")
            code, said, errors = run(*arguments, "--out", out, "--workers", workers)
            self.assertEqual(code, 0, errors)
            outcomes.append((read_lines(out), said, errors))
        self.assertEqual(outcomes[0], outcomes[1])
        self.assertEqual(outcomes[0], outcomes[2])
        self.assertIn("in.jsonl:201: holds no messages", outcomes[0][2])
        self.assertEqual(len(outcomes[0][0]), 200)


class Prompts(WithModel):
    def prompts(self, *records, more=()):
        source = self.lines(*records)
        code, self.said, errors = run(
            "prompts", "--model", self.model(), "--prompts", source, "--out", self.out, *more
        )
        self.assertEqual((code, errors), (0, ""))
        return read_lines(self.out)

    def test_they_end_where_the_assistant_begins(self):
        head = "<|im_start|>user\nq<|im_end|>\n"
        got = self.prompts(
            "q",
            {"prompt": "q", "id": "x"},
            {"messages": chat("q", "a", "r", "b")},
            {"messages": chat("q", "a", "q")},
        )
        ask = "<|im_start|>assistant\n"
        longer = head + ask + "a<|im_end|>\n<|im_start|>user\n"
        want = [head + ask, head + ask, longer + "r<|im_end|>\n" + ask, longer + "q<|im_end|>\n" + ask]
        self.assertEqual([r["input_ids"] for r in got], [spell(w) for w in want])
        self.assertEqual([r["id"] for r in got], ["in:1", "x", "in:3", "in:4"])
        self.assertEqual({tuple(r) for r in got}, {("input_ids", "id")})

    def test_long_ones_and_wrong_ones(self):
        got = self.prompts("q", "q" * 50, more=("--max-len", 40))
        self.assertEqual([r["id"] for r in got], ["in:1"])
        self.assertIn("(left out: 1 longer than --max-len)", self.said)
        source = self.lines("")
        arguments = ("prompts", "--model", self.model(), "--prompts", source, "--out", self.path("new"))
        self.fails(*arguments, saying=("in.jsonl:1", "the prompt is empty"))
        self.assertEqual(run(*arguments, "--skip-invalid")[0], 1)

    def test_a_prompt_without_tokens_is_not_written(self):
        model = self.model("{{ messages[0].content | replace('q', '') }}")
        arguments = ("prompts", "--model", model, "--prompts", self.lines("q", "a"), "--out", self.out)
        self.assertIn("(left out: 1 without tokens)", run(*arguments)[1])
        self.assertEqual(read_lines(self.out), [{"input_ids": spell("a"), "id": "in:2"}])

    def test_system(self):
        got = self.prompts("q", more=("--system", "s"))
        self.assertEqual(
            got[0]["input_ids"],
            spell("<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"),
        )


if __name__ == "__main__":
    unittest.main()
