"""Chats, templates and directories that encode refuses: one line, no output, whatever the number of processes."""

import os
import unittest

import tiny_model
from chats_test import WithModel
from tiny_model import BYTE, CHATML, chat, tokenizers, write_json


class Refused(WithModel):
    def refuses(self, model, record, saying, *more):
        for workers in ("1", "2"):
            source = self.lines({"messages": chat("q", "a")}, record)
            self.fails(
                "encode",
                "--model",
                model,
                "--conversations",
                source,
                "--out",
                self.out,
                "--workers",
                workers,
                *more,
                saying=saying,
            )

    def test_template_whose_beginnings_change(self):
        model = self.model(tiny_model.COUNTING)
        self.refuses(
            model,
            {},
            (
                "tokenizer_config.json renders what comes before message 2 otherwise",
                "--chat-template",
                "in.jsonl:1",
            ),
        )
        self.assertEqual(len(self.encoded(model, [chat("q", "a")], "--mask", "all")), 1)

    def test_template_that_raises(self):
        model = self.model(
            "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
        )
        self.refuses(
            model, {"messages": chat("q", "a", system="s")}, ("refuses it (no system)", "in.jsonl:2")
        )

    def test_template_that_would_reach_out_of_its_sandbox(self):
        model = self.model("{{ ''.__class__.__mro__[1].__subclasses__() }}")
        self.refuses(model, {}, "unsafe")
        self.refuses(self.model("{{ messages.append(1) }}"), {}, "'append'")

    def test_chat_that_begins_with_an_answer(self):
        model = self.model(
            "{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}" + CHATML
        )
        self.refuses(model, {"messages": chat("q", "a")[1:]}, ("refuses it (user first)", "in.jsonl:2"))

    def test_lines_that_are_wrong(self):
        model = self.model()
        self.refuses(model, b"{", "in.jsonl:2: is not JSON")
        self.refuses(
            model,
            {"messages": [{"role": "robot", "content": "q"}]},
            "in.jsonl:2: a message's role is 'robot'",
        )
        self.refuses(model, {"messages": chat("q", "a"), "tools": "x"}, "in.jsonl:2: 'tools'")
        half = "in.jsonl:2: holds half a surrogate pair"
        self.refuses(model, {"messages": chat("q", "\ud800")}, half)
        self.refuses(model, {"messages": chat("q", "a"), "id": "\ud800"}, half)
        model = self.model(CHATML.replace("m.role +", "m.role + m.mood | string +"))
        self.refuses(model, {"messages": [{**m, "mood": "\ud800"} for m in chat("q", "a")]}, half)

    def words_model(self, end):
        """Knows q, a and <|im_end|>, and fails on anything else; the template writes `end` behind each text."""
        model = self.model("{% for m in messages %}{{ m.content + ' " + end + " ' }}{% endfor %}")
        words = {"q": 10, "a": 11, "<|im_end|>": tiny_model.IM_END}
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        tokenizer.save(os.path.join(model, "tokenizer.json"))
        return model

    def test_a_tokenizer_that_fails_on_a_text(self):
        model = self.words_model("<|im_end|>")
        known, unknown = ({"messages": chat("q", a)} for a in ("a", "unheard"))
        self.refuses(model, unknown, ("in.jsonl:2: the tokenizer fails", "Leave this text out"))
        got = self.encoded(model, [known, unknown, known], "--skip-invalid", "--ids", "line")
        ids = [10, tiny_model.IM_END, 11, tiny_model.IM_END]
        self.assertEqual(got, 2 * [{"input_ids": ids, "loss_mask": [0, 0, 1, 1]}])
        self.assertIn("1 invalid", self.said)

    def test_a_tokenizer_that_fails_on_the_template(self):
        model = self.words_model("<end>")
        self.fails("info", "--model", model, saying="tokenizer_config.json: the tokenizer fails")

    def test_directories_that_are_no_model(self):
        source = self.lines({"messages": chat("q", "a")})
        encode = ("encode", "--conversations", source, "--out", self.out, "--model")
        self.fails(*encode, self.path("none"), saying=("none/tokenizer.json", "transformers makes one"))
        self.fails(
            *encode, self.model(template=None), saying=("has no chat template", "--chat-template FILE")
        )
        self.fails(*encode, self.model(template="{% if %}"), saying="does not compile")
        self.fails(
            *encode,
            self.model(added_tokens_decoder={"9": {"content": "<|eot|>"}}),
            saying="'<|eot|>' is token 9",
        )
        for listed in ({"x": 1}, {"0": {"content": 5}}, {"0": {"content": "\ud800"}}):
            self.fails(*encode, self.model(added_tokens_decoder=listed), saying="'added_tokens_decoder'")
        write_json(os.path.join(self.model(), "config.json"), {"vocab_size": BYTE + 97})
        self.fails(*encode, self.path("model"), saying=("the model has 107", "in.jsonl:1"))
        for name in ("tokenizer_config.json", "tokenizer.json"):
            write_json(os.path.join(self.model(), name), [])
            self.fails(*encode, self.path("model"), saying=name)


del WithModel  # its own cases run in their file
if __name__ == "__main__":
    unittest.main()
