"""Which tokens of a chat are an assistant's: found in the rendered text, carried over to tokens by their offsets."""

from chat_template import RefusedError
from json_lines import BadRecord

MARKS = "Give a template with {% generation %} marks (--chat-template FILE), or --mask all; --skip-invalid leaves such lines out"


def render(template, messages, tools, where, generation_prompt=False):
    try:
        return template.render(messages, tools, generation_prompt)
    except RefusedError as error:
        raise BadRecord(
            f"the chat template refuses it ({error})",
            where,
            f"Bring the messages into the order that {template.name} wants, or give --skip-invalid",
        ) from None


def _rendered_before(template, text, messages, count, tools, where):
    """The length of the text up to where the assistant's turn, message `count`, begins."""
    try:
        before, _ = template.render(messages[:count], tools, generation_prompt=True)
    except RefusedError as error:
        raise BadRecord(
            f"the chat template refuses what comes before message {count + 1} ({error})", where, MARKS
        ) from None
    if not text.startswith(before):
        raise BadRecord(
            f"{template.name} renders what comes before message {count + 1} otherwise when an answer follows, "
            "so that its beginning cannot be told",
            where,
            MARKS,
        )
    return len(before)


def _rendered_through(template, text, messages, count, tools):
    """The length of the text through message `count`; None where the template renders it otherwise when more
    follows (as those do that leave out the reasoning of all answers but the last)."""
    try:
        through, _ = template.render(messages[: count + 1], tools)
    except RefusedError:
        return None
    return len(through) if text.startswith(through) else None


def answer_spans(template, text, marked, messages, tools, last_only, where):
    """(begin, end, ends) of each answer in characters. `ends` is "marked" where the template says so, "turn" where
    the end is that of the rendered turn, "token" where the first token that ends a turn is the end."""
    if template.has_generation_marks:
        spans = [(begin, end, "marked") for begin, end in marked]
        return spans[-1:] if last_only else spans
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    turns = turns[-1:] if last_only else turns
    begins = [_rendered_before(template, text, messages, i, tools, where) for i in turns]
    spans = []
    for place, i in enumerate(turns):
        end, kind = _rendered_through(template, text, messages, i, tools), "turn"
        if end is None:
            end, kind = begins[place + 1] if place + 1 < len(turns) else len(text), "token"
        spans.append((begins[place], end, kind))
    return spans


def token_range(offsets, begin, end):
    """The half-open range of tokens that hold a character of [begin, end)."""
    held = [i for i, (a, b) in enumerate(offsets) if b > begin and a < end and b > a]
    return (held[0], held[-1] + 1) if held else (0, 0)


def mark(mask, ids, offsets, span, stop_ids, where):
    """Sets the mask of one answer, through its end-of-turn token: what a template writes behind that (a line's
    end) is no word of the model's."""
    begin, end, kind = span
    first, last = token_range(offsets, begin, end)
    stops = [i for i in range(first, last) if ids[i] in stop_ids]
    if kind == "turn" and stops:
        last = stops[-1] + 1
    if kind == "token":
        if not stops:
            raise BadRecord(
                "the chat template changes an answer when more follows, and no token ends it", where, MARKS
            )
        last = stops[0] + 1
    mask[first:last] = [1] * (last - first)


def shifted(mask):
    """mask[t] becomes what mask[t + 1] was."""
    return mask[1:] + [0] * min(1, len(mask))


def encode_chat(model, messages, tools, options, where):
    """input_ids and loss_mask of a chat. options: mask (assistant, last, all), shift (legacy, shifted), max_len,
    keep_tail."""
    text, marked = render(model.template, messages, tools, where)
    ids, offsets = model.encode(text, where)
    mask = [0] * len(ids)
    if options.mask == "all":
        mask = [1] * len(ids)
    else:
        last_only = options.mask == "last"
        for span in answer_spans(model.template, text, marked, messages, tools, last_only, where):
            mark(mask, ids, offsets, span, model.stop_ids, where)
    if not options.keep_tail and 1 in mask:
        length = len(mask) - mask[::-1].index(1)
        ids, mask = ids[:length], mask[:length]
    if options.max_len is not None:
        ids, mask = ids[: options.max_len], mask[: options.max_len]
    return ids, shifted(mask) if options.shift == "shifted" else mask
