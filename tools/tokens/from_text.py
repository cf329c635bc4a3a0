"""encode and prompts: from chats in text to token ids. Each command takes the parsed options and raises TokensError,
or is done."""

import contextlib
import sys

import chat_shapes
from in_order import map_in_order
from json_lines import BadRecord, Ids, Output, TokensError, numbered_lines, own_id, parse
from shared import keep, open_model, report, report_prompts, require_prompts
from supervision import encode_chat, render
from totals import Totals

SHOWN_REFUSALS = 5


def begin(options):
    """What a process needs for its lines."""
    return open_model(options), options


def refusal_or(work, number, line, where):
    """(number, id, result), or the TokensError instead of the result."""
    try:
        record = parse(line, where)
        own = own_id(record, where) if isinstance(record, dict) else None
        return number, own, work(record)
    except TokensError as error:
        return number, None, error


def tools_of(record, where):
    tools = record.get("tools") if isinstance(record, dict) else None
    if tools is not None and not isinstance(tools, list):
        raise BadRecord(
            "'tools' is not an array", where, "Write the descriptions of tools as an array, or leave it out"
        )
    return tools


def encode_line(state, number, line):
    model, options = state
    where = f"{options.conversations}:{number}"

    def work(record):
        messages = chat_shapes.with_system(chat_shapes.to_messages(record, where), options.system)
        ids, mask = encode_chat(model, messages, tools_of(record, where), options, where)
        return ids, mask, model.spells_special_token(messages)

    return refusal_or(work, number, line, where)


def prompt_line(state, number, line):
    model, options = state
    where = f"{options.prompts}:{number}"

    def work(record):
        messages = chat_shapes.with_system(chat_shapes.to_prompt(record, where), options.system)
        text, _ = render(model.template, messages, tools_of(record, where), where, generation_prompt=True)
        return model.encode(text, where)[0], model.spells_special_token(messages)

    return refusal_or(work, number, line, where)


def results(path, options, work, totals):
    """(id, result) of each line of `path`, in order; what --skip-invalid leaves out is counted and told."""
    ids = Ids(path, options.ids == "line")
    state = begin(options)
    state[0].template  # a missing template is told once, before any line

    told = 0
    with contextlib.closing(
        map_in_order(numbered_lines(path), state, begin, (options,), work, options.workers)
    ) as done:
        for number, own, result in done:
            if isinstance(result, TokensError):
                if not (options.skip_invalid and isinstance(result, BadRecord)):
                    raise result
                totals.leave_out("invalid")
                told += 1
                if told <= SHOWN_REFUSALS:
                    print(f"left out: {result}", file=sys.stderr)
                continue
            yield ids.take(own, number, f"{path}:{number}"), result


def warn_of_spelled(count, options):
    if count:
        print(f"note: {count} of the texts spell special tokens, which become these tokens", file=sys.stderr)


def encode(options):
    totals, spelled = Totals(), 0
    with Output(options.out, [options.conversations]) as out:
        for name, (ids, mask, spells) in results(options.conversations, options, encode_line, totals):
            if keep(totals, mask, options):
                spelled += spells
                out.write({"input_ids": ids, "loss_mask": mask, "id": name})
        totals.require_supervision(options.conversations)
    warn_of_spelled(spelled, options)
    report(totals, options)


def prompts(options):
    totals, spelled, written, tokens = Totals(), 0, 0, 0
    with Output(options.out, [options.prompts]) as out:
        for name, (ids, spells) in results(options.prompts, options, prompt_line, totals):
            if not ids:  # eyas refuses a file with such a line
                totals.leave_out("without tokens")
                continue
            if options.max_len is not None and len(ids) > options.max_len:
                totals.leave_out("longer than --max-len")
                continue
            written, tokens, spelled = written + 1, tokens + len(ids), spelled + spells
            out.write({"input_ids": ids, "id": name})
        require_prompts(written, totals, options.prompts)
    warn_of_spelled(spelled, options)
    report_prompts(written, tokens, totals, options)
