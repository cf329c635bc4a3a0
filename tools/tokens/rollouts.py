"""self-prompt and assemble: before eyas rollout and behind it."""

import json
import shlex

from json_lines import Ids, Output, TokensError, compact, numbered_lines, own_id, say
from shared import check_known, keep, open_model, read_rollout, report, report_prompts, require_prompts
from supervision import shifted
from totals import Totals


def require_stops(model):
    """The tokens by which the model may end what it writes as a user, ascending."""
    size = model.model_vocab_size
    stops = [i for i in model.stop_ids if size is None or i < size]
    if not stops:
        raise TokensError(
            "no token ends a turn, so that sampled prompts would never end",
            model.folder,
            "Name one as eos_token_id in generation_config.json, or give a template with --chat-template FILE "
            "that writes a special token behind a text",
        )
    return stops


def say_what_to_sample(model, stops, before, options):
    if options.json:
        say(compact({"prompts": 1, "repeat": options.count, "stop_ids": stops, "text": before}))
        return
    named = ("--model", shlex.quote(model.folder), "--prompts", shlex.quote(options.out), "--out FILE")
    say(f"prompts  1, to be sampled {options.count} times: {json.dumps(before, ensure_ascii=False)}")
    say(f"next     eyas rollout --temperature 1 --stop-ids {','.join(map(str, stops))} {' '.join(named)}")


def self_prompt(options):
    model = open_model(options)
    stops = require_stops(model)
    before, behind = model.around_user_text(options.system)
    if options.source is not None:
        return finish_self_prompts(model, behind, options)
    # A token that would swallow the first letters of the user's text is not part of what the model is given.
    alone, _ = model.encode(before, "the chat template")
    followed, _ = model.encode(before + "Why", "the chat template")
    same = next(
        (i for i, (a, b) in enumerate(zip(alone, followed)) if a != b), min(len(alone), len(followed))
    )
    if not same:
        raise TokensError(
            "nothing stands before a user's text",
            model.template.name,
            "Give another with --chat-template FILE",
        )
    with Output(options.out) as out:
        out.write({"input_ids": alone[:same], "repeat": options.count, "id": "self-prompt"})
    say_what_to_sample(model, stops, before, options)


def user_turn(model, record, ids, count, where):
    """What the model wrote as a user, without the token that ended it; or the reason why it is none."""
    wrote = ids[count:]
    if record.get("finish") == "length" or not wrote or wrote[-1] not in model.stop_ids:
        return None, "cut off"
    wrote = wrote[:-1]
    check_known(model, wrote, where)
    if any(i in model.special or i in model.stop_ids for i in wrote):
        return None, "with special tokens inside"
    if not model.tokenizer.decode(wrote, skip_special_tokens=False).strip():
        return None, "empty"
    return wrote, None


def finish_self_prompts(model, behind, options):
    tail, _ = model.encode(behind, "the chat template")
    totals, seen, written, tokens = Totals(), set(), 0, 0
    names = Ids(options.source, by_line=True)
    with Output(options.out, [options.source]) as out:
        for number, line in numbered_lines(options.source):
            where = f"{options.source}:{number}"
            record, ids, count = read_rollout(line, where)
            wrote, why = user_turn(model, record, ids, count, where)
            if why is None:
                text = " ".join(model.tokenizer.decode(wrote, skip_special_tokens=False).split())
                why = "said before" if text in seen else None
                seen.add(text)
            if why is not None:
                totals.leave_out(why)
                continue
            prompt = ids[:count] + wrote + tail
            written, tokens = written + 1, tokens + len(prompt)
            out.write({"input_ids": prompt, "id": names.take(None, number, where)})
        require_prompts(written, totals, options.source)
    report_prompts(written, tokens, totals, options)


def assemble(options):
    totals, names = Totals(), Ids(options.prompts, options.ids == "line")
    with Output(options.out, [options.prompts]) as out:
        for number, line in numbered_lines(options.prompts):
            where = f"{options.prompts}:{number}"
            record, ids, count = read_rollout(line, where)
            if options.drop_unfinished and record.get("finish") == "length":
                totals.leave_out("unfinished")
                continue
            mask = ([0] * count + [1] * (len(ids) - count))[: options.max_len]
            mask = shifted(mask) if options.shift == "shifted" else mask
            name = names.take(own_id(record, where), number, where)
            if keep(totals, mask, options):
                out.write({"input_ids": ids[: options.max_len], "loss_mask": mask, "id": name})
        totals.require_supervision(options.prompts)
    report(totals, options)
