"""A model directory whose tokens can be told by hand: one for each byte of a text, one for each special word, one for
two line ends, one for a space and a W. And a way to call the program."""

import contextlib
import io
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools", "tokens"))
PROGRAM = os.path.join(sys.path[0], "eyas_tokens.py")

import chat_shapes  # noqa: E402, F401
import eyas_tokens  # noqa: E402
import json_lines  # noqa: E402, F401

try:
    import jinja2  # noqa: F401
    import tokenizers
except ImportError:
    tokenizers = None

SPECIAL = ["<|begin|>", "<|im_start|>", "<|im_end|>", "<|head|>", "<|/head|>", "<|eot|>"]
BEGIN, IM_START, IM_END, HEAD, END_HEAD, EOT = range(6)
BYTE = 10  # id of byte 0
PAIRS = {"\n\n": BYTE + 256, " W": BYTE + 257}
SIZE = BYTE + 258

CHATML = """{% for m in messages %}
{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

CHATML_MARKED = """{% for m in messages %}
{{ '<|im_start|>' + m.role + '\n' }}
{%- if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}
{%- else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

HEADERS = """{{ bos_token }}{% for m in messages %}
{{ '<|head|>' + m.role + '<|/head|>\n\n' + m.content | trim + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\n\n' }}{% endif %}"""

# Leaves out the reasoning of all answers but the last.
REASONING = """{% for m in messages %}
{{ '<|im_start|>' + m.role + '\n' }}
{%- if m.role == 'assistant' and loop.last %}{{ '<think>nothing at all was thought before this answer</think>' }}{% endif %}{{ m.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

# Counts its messages in front, so no part of a chat begins as the whole does.
COUNTING = "{{ messages | length }}" + CHATML


def spell(text):
    """The tokens of a text, without the program or its libraries."""
    ids = []
    while text:
        word = next((w for w in [*SPECIAL, *PAIRS] if text.startswith(w)), None)
        if word is not None:
            ids.append(PAIRS[word] if word in PAIRS else SPECIAL.index(word))
        else:
            word = text[0]
            ids += [BYTE + b for b in word.encode()]
        text = text[len(word) :]
    return ids


def _letters():
    """The characters by which byte-level vocabularies write bytes: printable ones themselves, others from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def make_model(folder, template=CHATML, eos="<|im_end|>", **config):
    """Writes tokenizer.json, tokenizer_config.json and config.json; returns the folder."""
    letters = _letters()
    vocab = {letter: BYTE + b for b, letter in letters.items()}
    merges = [tuple(letters[ord(c)] for c in pair) for pair in PAIRS]
    vocab.update({a + b: i for (a, b), i in zip(merges, PAIRS.values())})
    vocab.update({w: i for i, w in enumerate(SPECIAL)})
    vocab.update({f"<unused{i}>": i for i in range(len(SPECIAL), BYTE)})
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([tokenizers.AddedToken(w, special=True, normalized=False) for w in SPECIAL])
    tokenizer.enable_truncation(3)  # as some published files have it; nothing may be cut by it
    os.makedirs(folder, exist_ok=True)
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    write_json(
        os.path.join(folder, "tokenizer_config.json"),
        {"bos_token": "<|begin|>", "eos_token": eos, "chat_template": template, **config},
    )
    own = {"vocab_size": SIZE, "eos_token_id": SPECIAL.index(eos)} if eos in SPECIAL else {}
    write_json(os.path.join(folder, "config.json"), own)
    return folder


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as out:
        json.dump(value, out)


def write_lines(path, records):
    """JSON lines; bytes and strings are written as they are."""
    with open(path, "wb") as out:
        for record in records:
            line = record if isinstance(record, bytes) else json.dumps(record).encode()
            out.write(line + b"\n")
    return path


def read_lines(path):
    with open(path, encoding="utf-8") as source:
        return [json.loads(line) for line in source]


def chat(*contents, system=None):
    """user, assistant, user, … with these contents."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]
    return ([{"role": "system", "content": system}] if system is not None else []) + messages


def run(*arguments):
    """(exit code, stdout, stderr) of the program in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = eyas_tokens.main([str(a) for a in arguments])
        except SystemExit as left:  # argparse
            code = left.code
    return code, out.getvalue(), err.getvalue()
