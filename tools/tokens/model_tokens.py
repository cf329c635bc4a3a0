"""What a model directory says of its tokens: tokenizer, chat template, tokens that end a turn."""

import datetime
import functools
import hashlib
import json
import os
import re

from chat_template import REQUIREMENTS, ChatTemplate, RefusedError
from json_lines import BadRecord, TokensError, whole_text

try:
    import tokenizers
except ImportError:
    tokenizers = None

# Stands where a user's or an assistant's text would. One word of plain letters, which no template changes.
PROBE = "eyasprobeword"
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def read_bytes(path, remedy):
    try:
        with open(path, "rb") as source:
            return source.read()
    except OSError as error:
        raise TokensError(f"cannot be read ({error.strerror})", path, remedy) from None


def read_json(path):
    """The object in a file of a model directory; {} where there is no such file."""
    if not os.path.exists(path):
        return {}
    try:
        value = json.loads(read_bytes(path, "Let it be readable"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise TokensError("is not a JSON object", path, "Fetch the model's file again")
    return value


def as_ids(value):
    """eos_token_id of a config: nothing, one id or several."""
    return [v for v in (value if isinstance(value, list) else [value]) if type(v) is int and v >= 0]


class NoTemplateError(TokensError):
    """The model has no chat template."""


class ModelTokens:
    """Reads `folder` once. The chat template is that of `chat_template` (a file), else chat_template.jinja, else
    tokenizer_config.json; `template_args` are variables for it; `date` is the day that it may tell."""

    def __init__(self, folder, chat_template=None, template_args=None, date=None):
        self.folder, self._date = folder, date or datetime.date.today()
        if tokenizers is None:
            raise TokensError("the package tokenizers is missing", "--model", REQUIREMENTS)
        self.path = os.path.join(folder, "tokenizer.json")
        content = read_bytes(
            self.path,
            "Name a model directory with a tokenizer.json; transformers makes one: "
            "AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
        )
        self.tokenizer_sha256 = hashlib.sha256(content).hexdigest()
        try:
            self.tokenizer = tokenizers.Tokenizer.from_buffer(content)
        except Exception as error:  # the package has no type of its own for it
            said = re.sub(r"\s+", " ", str(error))[:120]
            raise TokensError(
                f"is no tokenizer ({said})", self.path, "Fetch the model's file again"
            ) from None
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.config = read_json(os.path.join(folder, "tokenizer_config.json"))
        self._add_missing_tokens()
        self.vocab_size = self.tokenizer.get_vocab_size(with_added_tokens=True)
        self.special = {
            i: t.content for i, t in self.tokenizer.get_added_tokens_decoder().items() if t.special
        }
        self._spelled = re.compile(
            "|".join(re.escape(t) for t in sorted(self.special.values(), key=len, reverse=True))
        )
        model = read_json(os.path.join(folder, "config.json"))
        inner = model.get("text_config")  # where the model also sees pictures
        model = {**(inner if isinstance(inner, dict) else {}), **model}
        self.model_vocab_size = model.get("vocab_size") if type(model.get("vocab_size")) is int else None
        self._template_file, self._template_args = chat_template, dict(template_args or {})
        generation = read_json(os.path.join(folder, "generation_config.json"))
        eos = {
            *as_ids(model.get("eos_token_id")),
            *as_ids(generation.get("eos_token_id")),
            self._named_id("eos_token"),
        }
        self._eos = eos - {None}

    def _add_missing_tokens(self):
        """Tokens that tokenizer_config.json lists and tokenizer.json has not, as transformers adds them."""
        path = os.path.join(self.folder, "tokenizer_config.json")
        listed = self.config.get("added_tokens_decoder") or {}
        try:
            listed = sorted((int(i), token["content"], token) for i, token in listed.items())
            for _, content, _ in listed:
                content.encode("utf-8")  # neither a number nor half a surrogate pair
        except (AttributeError, KeyError, TypeError, ValueError):
            raise TokensError(
                "'added_tokens_decoder' is not {id: {\"content\": …}}", path, "Fetch the file again"
            ) from None
        for wanted, content, token in listed:
            if self.tokenizer.token_to_id(content) is None:
                flags = {
                    k: bool(token.get(k, False))
                    for k in ("single_word", "lstrip", "rstrip", "normalized", "special")
                }
                self.tokenizer.add_tokens([tokenizers.AddedToken(content, **flags)])
            found = self.tokenizer.token_to_id(content)
            if found != wanted:
                raise TokensError(
                    f"'{content}' is token {wanted} here and {found} in tokenizer.json",
                    path,
                    "Fetch both files again",
                )

    def _named(self, name):
        """The text of bos_token and the like, or None."""
        token = self.config.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        return token if isinstance(token, str) else None

    def _named_id(self, name):
        token = self._named(name)
        return None if token is None else self.tokenizer.token_to_id(token)

    def _template_source(self):
        """(text, where it is from)"""
        if self._template_file is not None:
            return read_bytes(self._template_file, "Name a file with a jinja template"), self._template_file
        beside = os.path.join(self.folder, "chat_template.jinja")
        if os.path.exists(beside):
            return read_bytes(beside, "Let it be readable"), beside
        source, name = self.config.get("chat_template"), os.path.join(self.folder, "tokenizer_config.json")
        if isinstance(source, list):  # several with names
            source = next(
                (t.get("template") for t in source if isinstance(t, dict) and t.get("name") == "default"),
                None,
            )
        if not isinstance(source, str):
            raise NoTemplateError(
                "has no chat template", name, "Give one with --chat-template FILE, or take an instruct model"
            )
        return source, name

    @functools.cached_property
    def template(self):
        source, name = self._template_source()
        if isinstance(source, bytes):
            try:
                source = source.decode("utf-8")
            except UnicodeDecodeError:
                raise TokensError("is not UTF-8", name, "Write the template as UTF-8") from None
        variables = {n: self._named(n) for n in NAMED_TOKENS if self._named(n) is not None}
        return ChatTemplate(source, name, {**variables, **self._template_args}, self._date)

    @functools.cached_property
    def end_of_turn(self):
        """The first special token behind an assistant's text as the template renders it; None where there is no
        template, or none that ends a turn so."""
        try:
            text, _ = self.template.render(
                [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": PROBE}]
            )
        except (NoTemplateError, RefusedError):
            return None
        try:
            behind = self._encoding(text[text.rfind(PROBE) + len(PROBE) :], self.template.name)
        except BadRecord as error:  # no line's fault
            raise TokensError(*error.args) from None
        return next((i for i in behind.ids if i in self.special or i in self._eos), None)

    @functools.cached_property
    def stop_ids(self):
        """Every token that ends what a model writes, ascending."""
        return sorted((self._eos | {self.end_of_turn}) - {None})

    def _encoding(self, text, where):
        text = whole_text(text, where)
        try:
            return self.tokenizer.encode(text, add_special_tokens=False)
        except Exception as error:  # the package has no type of its own for it
            said = re.sub(r"\s+", " ", str(error))[:120]
            raise BadRecord(
                f"the tokenizer fails ({said})",
                where,
                f"Leave this text out, or take a tokenizer that knows all of it ({self.path})",
            ) from None

    def encode(self, text, where):
        """ids and (begin, end) in characters of each token. Nothing is put around the text."""
        encoding = self._encoding(text, where)
        if self.model_vocab_size is not None and encoding.ids and max(encoding.ids) >= self.model_vocab_size:
            raise TokensError(
                f"token {max(encoding.ids)}, but the model has {self.model_vocab_size} (config.json)",
                where,
                f"Take the tokenizer that belongs to the model in {self.folder}",
            )
        return encoding.ids, encoding.offsets

    def spells_special_token(self, messages):
        return bool(self.special) and any(
            self._spelled.search(m["content"]) for m in messages if m.get("content")
        )

    def around_user_text(self, system):
        """The template's text before and behind what a user types, up to where the assistant begins."""
        messages = [] if system is None else [{"role": "system", "content": system}]
        try:
            text, _ = self.template.render(
                messages + [{"role": "user", "content": PROBE}], generation_prompt=True
            )
        except RefusedError as error:
            raise TokensError(
                f"the chat template fails on one user turn ({error})",
                self.template.name,
                "Give another with --chat-template FILE",
            ) from None
        if text.count(PROBE) != 1:
            raise TokensError(
                "the chat template does not show a user's text once",
                self.template.name,
                "Give another with --chat-template FILE",
            )
        before, _, behind = text.partition(PROBE)
        return before, behind

    def info(self):
        return {
            "eos_token_ids": self.stop_ids,
            "bos": self._named_id("bos_token"),
            "vocab_size": self.vocab_size,
            "model_vocab_size": self.model_vocab_size,
            "tokenizer_sha256": self.tokenizer_sha256,
            "end_of_turn": self.end_of_turn,
        }
