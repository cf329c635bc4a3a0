"""Against others, where they are: transformers' apply_chat_template, and the conversations of examples/smollm2, whose
tokens the model sampled itself."""

import os
import re
import unittest

from chats_test import WithModel
from tiny_model import CHATML, CHATML_MARKED, HEADERS, PROGRAM, REASONING, chat, read_lines, run, write_lines

try:
    import transformers
except ImportError:
    transformers = None

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(PROGRAM))))
SMOLLM2 = os.environ.get("EYAS_SMOLLM2", os.path.join(ROOT, "examples/smollm2/work/smollm2-135m-instruct"))
CHATS = [
    chat("q", "a"),
    chat("Was?", "Höhe 🙂👩‍👩‍👧", "\n\nr", "\nb\n", system="s"),
    chat("q", "", "e\u0301", "x = 1\n\ty"),
    chat(" q ", " a ", "r"),
]


class Transformers(WithModel):
    @unittest.skipUnless(transformers, "what transformers says of the same chats: it is not installed")
    def test_ids_and_prompts(self):
        for template in (CHATML, CHATML_MARKED, HEADERS, REASONING):
            model = self.model(template, tokenizer_class="PreTrainedTokenizerFast")
            peer = transformers.AutoTokenizer.from_pretrained(model)
            got = self.encoded(model, CHATS, "--keep-tail")
            self.assertEqual([c["input_ids"] for c in got], [peer.apply_chat_template(c) for c in CHATS])
            source = self.lines(*({"messages": c} for c in CHATS))
            self.assertEqual(run("prompts", "--model", model, "--prompts", source, "--out", self.out)[0], 0)
            cut = [c if c[-1]["role"] == "user" else c[:-1] for c in CHATS]
            want = [peer.apply_chat_template(c, add_generation_prompt=True) for c in cut]
            self.assertEqual([r["input_ids"] for r in read_lines(self.out)], want)

    @unittest.skipUnless(transformers, "transformers' masks of the same chats: it is not installed")
    def test_masks(self):
        peer = transformers.AutoTokenizer.from_pretrained(
            self.model(tokenizer_class="PreTrainedTokenizerFast")
        )
        told = {"chat_template": CHATML_MARKED, "return_dict": True, "return_assistant_tokens_mask": True}
        want = [peer.apply_chat_template(c, **told)["assistant_masks"] for c in CHATS]
        for template in (CHATML, CHATML_MARKED):
            got = self.encoded(self.model(template), CHATS, "--keep-tail")
            self.assertEqual([c["loss_mask"] for c in got], want)


class SmolLm2(WithModel):
    @unittest.skipUnless(
        os.path.isdir(SMOLLM2), "the model of examples/smollm2: it is not there (run.sh makes it)"
    )
    def test_text_becomes_the_tokens_that_it_came_from(self):
        """Of conversations in which the model sampled the tokens that its tokenizer would choose, all but one in
        a dozen, and that it ended itself."""
        data = os.path.join(ROOT, "examples/smollm2/data/heldout.jsonl")
        self.assertEqual(run("decode", "--model", SMOLLM2, "--in", data, "--out", self.path("text"))[0], 0)
        chats = []
        for text in (r["text"] for r in read_lines(self.path("text"))):
            turns = re.findall(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>\n?|\Z)", text, re.S)
            chats.append({"messages": [{"role": r, "content": c} for r, c in turns]})
        source = write_lines(self.path("chats"), chats)
        self.assertEqual(
            run("encode", "--model", SMOLLM2, "--conversations", source, "--out", self.out)[0], 0
        )
        same = 0
        for want, got in zip(read_lines(data), read_lines(self.out), strict=True):
            length = len(want["input_ids"])  # one that was cut off lacks the token that ends a turn
            same += all(want[k] == got[k][:length] for k in ("input_ids", "loss_mask"))
        self.assertEqual(same, 39)  # of 40


del WithModel  # its own cases run in their file
if __name__ == "__main__":
    unittest.main()
