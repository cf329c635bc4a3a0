"""decode, stats and info: what files of ids and a model directory hold."""

import json

from json_lines import Output, compact, integers, numbered_lines, own_id, read_object, say
from shared import check_known, ids_and_mask, open_model, read_rollout, report
from totals import Totals


def decode_line(model, line, where, generated_only):
    record = read_object(line, where)
    ids = integers(record, "input_ids", where)
    check_known(model, ids, where)
    if generated_only and "prompt_tokens" in record:
        _, ids, count = read_rollout(line, where)
        ids = ids[count:]
    elif generated_only:
        ids = [i for i, m in zip(*ids_and_mask(record, where)) if m]
    text = model.tokenizer.decode(ids, skip_special_tokens=False)
    name = own_id(record, where)
    return {"text": text} if name is None else {"id": name, "text": text}


def decode(options):
    model = open_model(options)

    def records():
        for number, line in numbered_lines(options.input):
            yield decode_line(model, line, f"{options.input}:{number}", options.generated_only)

    if options.out is None:
        for record in records():
            say(compact(record))
        return
    with Output(options.out, [options.input]) as out:
        for record in records():
            out.write(record)


def stats(options):
    totals = Totals()
    for number, line in numbered_lines(options.file):
        where = f"{options.file}:{number}"
        _, mask = ids_and_mask(read_object(line, where), where)
        totals.add(mask)
    report(totals, options)
    totals.require_supervision(options.file)


def info(options):
    say(json.dumps(open_model(options).info(), ensure_ascii=False, indent=None if options.json else 2))
