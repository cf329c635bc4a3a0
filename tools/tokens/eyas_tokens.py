#!/usr/bin/env python3
"""From text to token ids and back: what lies between a user's prompts and eyas rollout, capture and train.

  info         the tokens that end a turn, the vocabulary, the tokenizer's hash
  encode       chats -> conversations {"input_ids", "loss_mask", "id"}, which eyas capture takes
  prompts      prompts -> {"input_ids", "id"}, which eyas rollout takes
  self-prompt  lets the model write the prompts, too
  assemble     eyas rollout's output -> conversations
  decode       ids -> text
  stats        what a file of conversations holds

Needs the packages in requirements.txt beside it; assemble and stats need none. Exit codes: 0 done, 1 error or
stopped, 2 wrong usage. Files appear complete or not at all.
"""

import argparse
import datetime
import json
import os
import signal
import sys

import chat_shapes
import from_text
import look
import rollouts
from json_lines import StoppedInTime, TokensError, say

LOSS_MASK = """The loss mask is 1 on an assistant's tokens, its end-of-turn token included. Answers are taken from the
template's own {% generation %} marks, as they are, where it has them; else by rendering the chat up to each answer,
which must be how the whole chat begins. What comes behind the last answer's end is left out (--keep-tail).

--shift says what an entry of the mask is about:
  legacy   mask[t] is 1 where token t is the assistant's. eyas and SpecForge train with this one: nothing is shifted
           in files (docs/formats.md, docs/numerics.md).
  shifted  mask[t] is 1 where token t + 1 is. For other programs; eyas would train on other rows than meant."""


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("give a number from 1")
    return value


def json_object(text):
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("give a JSON object, such as '{\"enable_thinking\": false}'")
    return value


def add_model(parser):
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="a Hugging Face directory with tokenizer.json"
    )
    parser.add_argument("--chat-template", metavar="FILE", help="a jinja template instead of the model's")
    parser.add_argument(
        "--template-args", type=json_object, default={}, metavar="JSON", help="variables for the template"
    )
    parser.add_argument(
        "--date",
        type=datetime.date.fromisoformat,
        default=datetime.date.today(),
        metavar="YYYY-MM-DD",
        help="the day that templates tell (strftime_now); today. Output depends on it where they do",
    )


def add_texts(parser):
    parser.add_argument("--system", metavar="TEXT", help="system message for chats without one")
    parser.add_argument(
        "--skip-invalid", action="store_true", help="leave out and count lines that cannot be used"
    )
    parser.add_argument(
        "--workers", type=positive, default=1, metavar="N", help="processes; the output is the same (1)"
    )


def add_ids(parser):
    parser.add_argument(
        "--ids",
        choices=("given", "line"),
        default="given",
        help="each line's id, or FILE:LINE for all (given)",
    )


def add_conversations(parser):
    parser.add_argument("--max-len", type=positive, metavar="N", help="cut conversations to N tokens")
    parser.add_argument(
        "--shift",
        choices=("legacy", "shifted"),
        default="legacy",
        help="what mask[t] is about (legacy: eyas)",
    )
    parser.add_argument(
        "--keep-unsupervised", action="store_true", help="keep conversations without a supervised token"
    )


def sub(parsers, name, run, what, more=None, figures=True):
    parser = parsers.add_parser(
        name,
        help=what,
        description=what + ".",
        epilog=more,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    if figures:
        parser.add_argument("--json", action="store_true", help="print figures as one JSON object")
    return parser


def make_parser():
    parser = argparse.ArgumentParser(
        prog="eyas_tokens.py",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")

    p = sub(parsers, "info", look.info, "Tokens that end a turn, vocabulary, hash of the tokenizer, as JSON")
    add_model(p)

    p = sub(parsers, "encode", from_text.encode, "Chats to conversations of token ids", LOSS_MASK)
    add_model(p)
    p.add_argument("--conversations", required=True, metavar="FILE", help=chat_shapes.SHAPES + ", one a line")
    p.add_argument("--out", required=True, metavar="FILE")
    p.add_argument(
        "--mask",
        choices=("assistant", "last", "all"),
        default="assistant",
        help="supervise all answers, the last one, or every token (assistant)",
    )
    p.add_argument("--keep-tail", action="store_true", help="keep the tokens behind the last supervised one")
    for add in (add_conversations, add_texts, add_ids):
        add(p)

    p = sub(parsers, "prompts", from_text.prompts, "Prompts to token ids that end where the assistant begins")
    add_model(p)
    p.add_argument(
        "--prompts",
        required=True,
        metavar="FILE",
        help='"text", {"prompt": "text"} or chats, one a line; chats are cut before their last answer',
    )
    p.add_argument("--out", required=True, metavar="FILE")
    p.add_argument("--max-len", type=positive, metavar="N", help="leave out prompts of more than N tokens")
    add_texts(p)
    add_ids(p)

    p = sub(
        parsers,
        "self-prompt",
        rollouts.self_prompt,
        "Lets the model write prompts (Magpie, arXiv 2406.08464): first the template up to a user's text, to be\n"
        "sampled from; then, with --from, what was sampled, as prompts",
    )
    add_model(p)
    p.add_argument("--out", required=True, metavar="FILE")
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--count", type=positive, metavar="N", help='how many to sample: "repeat" in the line written'
    )
    what.add_argument(
        "--from",
        dest="source",
        metavar="FILE",
        help="what eyas rollout sampled; repeated, empty and cut off ones are left out",
    )
    p.add_argument("--system", metavar="TEXT", help="system message, with --count")

    p = sub(
        parsers,
        "assemble",
        rollouts.assemble,
        "Output of eyas rollout to conversations",
        LOSS_MASK.split("\n\n")[1],
    )
    p.add_argument(
        "--prompts",
        required=True,
        metavar="FILE",
        help='{"id", "input_ids", "prompt_tokens", "finish"}, one a line',
    )
    p.add_argument("--out", required=True, metavar="FILE")
    p.add_argument(
        "--drop-unfinished", action="store_true", help='leave out answers whose finish is "length"'
    )
    add_conversations(p)
    add_ids(p)

    p = sub(
        parsers,
        "decode",
        look.decode,
        'Token ids to text, special tokens included: {"id", "text"}, one a line',
        figures=False,
    )
    add_model(p)
    p.add_argument("--in", dest="input", required=True, metavar="FILE", help='lines with "input_ids"')
    p.add_argument("--out", metavar="FILE", help="default: standard output")
    p.add_argument(
        "--generated-only",
        action="store_true",
        help="only what comes after prompt_tokens, or where loss_mask is 1",
    )

    p = sub(
        parsers,
        "stats",
        look.stats,
        "Conversations, tokens, supervision, lengths; an error where nothing is supervised",
    )
    p.add_argument("file", metavar="FILE")
    return parser


def stopped(*_):
    raise KeyboardInterrupt


def open_standard_output():
    """UTF-8, as JSON is, whatever the locale. Where it is closed, one that takes nothing: Python has none then, and its
    number would go to the next file that is opened."""
    if sys.stdout is not None:
        sys.stdout.reconfigure(encoding="utf-8")
        return
    nowhere = os.open(os.devnull, os.O_RDONLY)
    if nowhere != 1:
        os.dup2(nowhere, 1)
        os.close(nowhere)
    sys.stdout = open(1, "w", encoding="utf-8")


def drop_unwritten():
    """Lets go of what standard output does not take, which Python would try, and complain of, once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments=None):
    options = make_parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, stopped)
    try:
        options.run(options)
        say(end="", flush=True)
    except TokensError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except StoppedInTime:
        print("stopped: nothing was written", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 1
    except MemoryError:
        print("error: memory: not enough. Give shorter lines or fewer workers", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read our output has enough
        return 1
    finally:
        drop_unwritten()
    return 0


if __name__ == "__main__":
    open_standard_output()
    sys.exit(main())
