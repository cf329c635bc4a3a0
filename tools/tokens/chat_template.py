"""Renders a model's chat template as its authors meant it: jinja2 in a sandbox, with the settings, filters and
globals that templates of Hugging Face models rely on."""

import datetime
import json
import re
import secrets

from json_lines import TokensError

try:
    import jinja2
    import jinja2.ext
    import jinja2.sandbox
except ImportError:
    jinja2 = None

REQUIREMENTS = (
    "Install tools/tokens/requirements.txt (bash tools/tokens/setup.sh makes an environment with it)"
)


class RefusedError(Exception):
    """The template itself would not have these messages (raise_exception, or an expression that fails)."""


def _generation_extension(begin, end):
    """{% generation %}…{% endgeneration %}: what is in it is put between the two marks."""

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            self.environment.has_generation_marks = True
            return jinja2.nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

        def _marked(self, caller):
            return begin + caller() + end

    return Generation


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


class ChatTemplate:
    """A compiled template. `name` says where it comes from, for messages of errors. `variables` are what it may
    use besides the messages: bos_token and the like. `date` is the day that strftime_now tells, so that all
    lines and all processes have one."""

    def __init__(self, source, name, variables, date):
        if jinja2 is None:
            raise TokensError("the package jinja2 is missing", "chat template", REQUIREMENTS)
        self.name, self.variables = name, variables
        # No text holds marks that nobody could guess.
        token = secrets.token_hex(16)
        self._begin, self._end = f"\ue000{token}<", f"\ue000{token}>"
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_generation_extension(self._begin, self._end), jinja2.ext.loopcontrols],
        )
        environment.has_generation_marks = False
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        day = datetime.datetime.combine(date, datetime.time())
        environment.globals["strftime_now"] = day.strftime
        try:
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            said = re.sub(r"\s+", " ", str(error))[:160]
            raise TokensError(
                f"the chat template does not compile ({said})", name, "Give another with --chat-template FILE"
            ) from None
        self.has_generation_marks = environment.has_generation_marks

    def render(self, messages, tools=None, generation_prompt=False):
        """The text, and the (begin, end) of what lies in {% generation %} blocks. RefusedError where the template
        fails on these messages."""
        try:
            text = self._template.render(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=generation_prompt,
                **self.variables,
            )
        except Exception as error:  # a template is a foreign program: whatever it raises is its answer
            said = re.sub(r"\s+", " ", str(error)).strip()[:160]
            raise RefusedError(said or type(error).__name__) from None
        return self._without_marks(text)

    def _without_marks(self, marked):
        pieces, spans, length, begun = [], [], 0, 0
        for piece in re.split(f"({re.escape(self._begin)}|{re.escape(self._end)})", marked):
            if piece == self._begin:
                begun = length
            elif piece == self._end:
                spans.append((begun, length))
            else:
                pieces.append(piece)
                length += len(piece)
        return "".join(pieces), spans
