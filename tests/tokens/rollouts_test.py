"""info, self-prompt and decode with a model whose tokens are known by hand."""

import hashlib
import json
import os
import unittest

import tiny_model
from chats_test import WithModel, chatml
from tiny_model import BEGIN, EOT, HEADERS, IM_END, SIZE, read_lines, run, spell, write_json, write_lines


class Info(WithModel):
    def info(self, model):
        code, said, errors = run("info", "--model", model)
        self.assertEqual((code, errors), (0, ""))
        return json.loads(said)

    def test_what_it_says(self):
        model = self.model()
        with open(os.path.join(model, "tokenizer.json"), "rb") as source:
            digest = hashlib.sha256(source.read()).hexdigest()
        said = self.info(model)
        self.assertEqual(
            said,
            {
                "eos_token_ids": [IM_END],
                "bos": BEGIN,
                "vocab_size": SIZE,
                "model_vocab_size": SIZE,
                "tokenizer_sha256": digest,
                "end_of_turn": IM_END,
            },
        )

    def test_every_way_to_end_is_a_stop(self):
        model = self.model(HEADERS)  # ends turns with a token that no config names
        write_json(os.path.join(model, "generation_config.json"), {"eos_token_id": [BEGIN, IM_END]})
        said = self.info(model)
        self.assertEqual((said["eos_token_ids"], said["end_of_turn"]), ([BEGIN, IM_END, EOT], EOT))

    def test_an_end_that_is_no_special_token(self):
        template = "{% for m in messages %}{{ m.role + ' ' + m.content + '<end>' }}{% endfor %}"
        model = self.model(template, eos="<end>", added_tokens_decoder={str(SIZE): {"content": "<end>"}})
        said = self.info(model)
        self.assertEqual((said["eos_token_ids"], said["end_of_turn"]), ([SIZE], SIZE))

    def test_a_model_without_template(self):
        said = self.info(self.model(template=None))
        self.assertEqual((said["eos_token_ids"], said["end_of_turn"]), ([IM_END], None))


class SelfPrompt(WithModel):
    HEAD = "<|im_start|>user\n"

    def first(self, *more, template=tiny_model.CHATML):
        code, _, errors = run(
            "self-prompt", "--model", self.model(template), "--out", self.out, "--count", 9, *more
        )
        self.assertEqual(code, 0, errors)
        return read_lines(self.out)

    def test_prompt_ends_where_a_user_begins(self):
        self.assertEqual(self.first(), [{"input_ids": spell(self.HEAD), "repeat": 9, "id": "self-prompt"}])
        system = "<|im_start|>system\ns<|im_end|>\n"
        self.assertEqual(self.first("--system", "s")[0]["input_ids"], spell(system + self.HEAD))
        self.assertEqual(
            self.first(template=HEADERS)[0]["input_ids"], spell("<|begin|><|head|>user<|/head|>\n\n")
        )

    def test_a_token_that_would_begin_the_users_text_is_not_given(self):
        template = "{% for m in messages %}{{ '<|head|> ' + m.content }}{% endfor %}"
        self.assertEqual(self.first(template=template)[0]["input_ids"], spell("<|head|>"))

    def test_it_says_how_to_sample(self):
        model = self.model(HEADERS)  # ends turns with a token that no config names
        write_json(os.path.join(model, "generation_config.json"), {"eos_token_id": [IM_END, SIZE]})
        arguments = ("self-prompt", "--model", model, "--out", self.out, "--count", 9)
        code, said, _ = run(*arguments)
        first, then = said.splitlines()
        self.assertEqual(code, 0)
        self.assertIn(f"eyas rollout --temperature 1 --stop-ids {IM_END},{EOT} --model {model} ", then)
        self.assertIn(f"--prompts {self.out} ", then)
        self.assertIn(json.dumps("<|begin|><|head|>user<|/head|>\n\n"), first)
        self.assertEqual(
            json.loads(run(*arguments, "--json")[1]),
            {
                "prompts": 1,
                "repeat": 9,
                "stop_ids": [IM_END, EOT],
                "text": "<|begin|><|head|>user<|/head|>\n\n",
            },
        )

    def test_a_model_that_never_stops(self):
        template = "{% for m in messages %}{{ m.role + ': ' + m.content + ' ' }}{% endfor %}"
        arguments = ("self-prompt", "--model", self.model(template, eos="<none>"), "--out", self.out)
        self.fails(*arguments, "--count", 9, saying=("no token ends a turn", "generation_config.json"))
        source = write_lines(self.path("sampled.jsonl"), self.sampled("q<|im_end|>"))
        self.fails(*arguments, "--from", source, saying="no token ends a turn")

    def sampled(self, *texts, finish="stop", head=HEAD):
        ids = [(spell(head), spell(t)) for t in texts]
        return [
            {"id": "self-prompt", "input_ids": h + t, "prompt_tokens": len(h), "finish": finish}
            for h, t in ids
        ]

    def then(self, records, *more, model=None):
        source = write_lines(self.path("sampled.jsonl"), records)
        return run(
            "self-prompt", "--model", model or self.model(), "--from", source, "--out", self.out, *more
        )

    def test_what_was_written_becomes_a_prompt(self):
        code, said, _ = self.then(self.sampled("Why 🙂?<|im_end|>", "q<|im_end|>"))
        self.assertEqual(code, 0)
        tail = "<|im_end|>\n<|im_start|>assistant\n"
        want = [spell(self.HEAD + text + tail) for text in ("Why 🙂?", "q")]
        self.assertEqual(
            read_lines(self.out), [{"input_ids": w, "id": f"sampled:{i}"} for i, w in enumerate(want, 1)]
        )
        run("prompts", "--model", self.model(), "--prompts", self.lines("Why 🙂?", "q"), "--out", self.out)
        self.assertEqual([r["input_ids"] for r in read_lines(self.out)], want)

    def test_another_token_that_ends_gives_way_to_the_turns(self):
        model = self.model()
        write_json(os.path.join(model, "generation_config.json"), {"eos_token_id": BEGIN})
        self.then(self.sampled("q<|begin|>"), model=model)
        self.assertEqual(
            read_lines(self.out)[0]["input_ids"], spell(self.HEAD + "q<|im_end|>\n<|im_start|>assistant\n")
        )

    def test_what_is_left_out(self):
        records = [
            *self.sampled("q<|im_end|>", " q\n<|im_end|>"),  # the second says the same
            *self.sampled("<|im_end|>", " \n<|im_end|>", ""),
            *self.sampled("other", "another<|im_end|>", finish="length"),
            *self.sampled("other", "q<|im_start|>user\n<|im_end|>"),
        ]
        code, said, _ = self.then(records, "--json")
        self.assertEqual(code, 0)
        want = {"said before": 1, "empty": 2, "cut off": 4, "with special tokens inside": 1}
        self.assertEqual(json.loads(said)["left_out"], want)
        self.assertEqual(len(read_lines(self.out)), 1)

    def test_nothing_left_is_an_error(self):
        source = write_lines(self.path("sampled.jsonl"), self.sampled("", finish="length"))
        arguments = ("self-prompt", "--model", self.model(), "--from", source, "--out", self.out)
        self.fails(*arguments, saying=("no prompt", "1 cut off"))
        write_lines(source, [{"input_ids": [1]}])
        self.fails(*arguments, saying=("sampled.jsonl:1", "'prompt_tokens'"))
        write_lines(source, [{"input_ids": [1, 300, IM_END], "prompt_tokens": 1}])
        self.fails(*arguments, saying=("sampled.jsonl:1", "300 is no token"))

    def test_templates_that_do_not_show_the_user_once(self):
        for template in ("{{ 1 }}", "{{ messages[0].content }} {{ messages[0].content }}"):
            arguments = ("self-prompt", "--model", self.model(template), "--out", self.out, "--count", 1)
            self.fails(*arguments, saying="does not show a user's text once")
        arguments = (
            "self-prompt",
            "--model",
            self.model("{{ messages[0].content }}"),
            "--out",
            self.out,
            "--count",
            1,
        )
        self.fails(*arguments, saying="nothing stands before a user's text")


class WholeWay(WithModel):
    def test_sampled_answers_are_what_encode_would_make(self):
        model = self.model()
        run(
            "prompts", "--model", model, "--prompts", self.lines("q", "Was?"), "--out", self.path("ids.jsonl")
        )
        answers = ("a<|im_end|>", "b 🙂<|im_end|>")
        sampled = [
            {
                **r,
                "input_ids": r["input_ids"] + spell(a),
                "prompt_tokens": len(r["input_ids"]),
                "finish": "stop",
            }
            for r, a in zip(read_lines(self.path("ids.jsonl")), answers)
        ]
        source = write_lines(self.path("sampled.jsonl"), sampled)
        self.assertEqual(run("assemble", "--prompts", source, "--out", self.out)[0], 0)
        got = [{k: r[k] for k in ("input_ids", "loss_mask")} for r in read_lines(self.out)]
        self.assertEqual(got, [chatml("q", "a"), chatml("Was?", "b 🙂")])


class Decode(WithModel):
    def decode(self, *records, more=()):
        source = self.lines(*records)
        code, said, errors = run("decode", "--model", self.model(), "--in", source, *more)
        self.assertEqual((code, errors), (0, ""))
        return [json.loads(line) for line in said.splitlines()]

    def test_text_comes_back(self):
        text = "<|begin|> naïve\n\n🙂<|im_end|>\n"
        self.assertEqual(self.decode({"input_ids": spell(text), "id": 3}), [{"id": "3", "text": text}])
        self.assertEqual(self.decode({"input_ids": []}), [{"text": ""}])
        self.decode({"input_ids": spell(text)}, more=("--out", self.out))
        self.assertEqual(read_lines(self.out), [{"text": text}])

    def test_generated_only(self):
        sampled = {"input_ids": spell("qab"), "prompt_tokens": 1}
        masked = {"input_ids": spell("qab"), "loss_mask": [0, 1, 1]}
        want = [{"text": "ab"}, {"text": "ab"}]
        self.assertEqual(self.decode(sampled, masked, more=("--generated-only",)), want)

    def test_wrong_lines(self):
        source = self.lines({"input_ids": spell("q")}, {"input_ids": [SIZE]})
        arguments = ("decode", "--model", self.model(), "--in", source, "--out", self.out)
        self.fails(*arguments, saying=("in.jsonl:2", f"{SIZE} is no token"))
        self.lines({"input_ids": spell("q")})
        self.fails(*arguments, "--generated-only", saying=("in.jsonl:1", "no array 'loss_mask'"))
        for mask in ([1], [0, 1, 1]):
            self.lines({"input_ids": spell("qa"), "loss_mask": mask})
            saying = ("in.jsonl:1", f"2 input_ids but {len(mask)} loss_mask entries")
            self.fails(*arguments, "--generated-only", saying=saying)


del WithModel  # its own cases run in their file
if __name__ == "__main__":
    unittest.main()
