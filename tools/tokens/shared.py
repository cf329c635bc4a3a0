"""What several sub-commands need: opening a model, reading sampled lines, counting, saying what was done."""

from json_lines import BadRecord, TokensError, compact, integers, read_object, say
from model_tokens import ModelTokens


def open_model(options):
    return ModelTokens(options.model, options.chat_template, options.template_args, options.date)


def keep(totals, mask, options):
    """Counts a conversation, and says whether it is to be written."""
    if not mask:  # eyas refuses a file with such a line
        totals.leave_out("without tokens")
        return False
    if 1 not in mask and not options.keep_unsupervised:
        totals.leave_out("without supervision")
        return False
    totals.add(mask)
    return True


def report(totals, options):
    say(compact(totals.as_json()) if options.json else totals.text())


def require_prompts(written, totals, path):
    if not written:
        raise TokensError(
            f"no prompt{totals.left_out_text()}", path, "Give a file with prompts that can be used"
        )


def report_prompts(written, tokens, totals, options):
    if options.json:
        say(compact({"prompts": written, "tokens": tokens, "left_out": totals.left_out}))
    else:
        say(f"prompts  {written}, {tokens} tokens{totals.left_out_text()}")


def check_known(model, ids, where):
    for i in ids:
        if model.tokenizer.id_to_token(i) is None:
            raise BadRecord(
                f"{i} is no token of the tokenizer in {model.folder}",
                where,
                "Give the model that the ids were made with",
            )


def ids_and_mask(record, where):
    """The input_ids of a conversation and its loss_mask, which has an entry for each."""
    ids, mask = integers(record, "input_ids", where), integers(record, "loss_mask", where, high=1)
    if len(ids) != len(mask):
        raise BadRecord(
            f"{len(ids)} input_ids but {len(mask)} loss_mask entries", where, "Give one mask entry per token"
        )
    return ids, mask


def read_rollout(line, where):
    """A sampled continuation: (record, ids, prompt_tokens)."""
    record = read_object(line, where)
    ids = integers(record, "input_ids", where)
    count = record.get("prompt_tokens")
    if type(count) is not int or not 0 <= count <= len(ids):
        raise BadRecord(
            f"'prompt_tokens' is no number from 0 to {len(ids)}", where, "Give the output of eyas rollout"
        )
    if record.get("finish") not in (None, "stop", "length"):
        raise BadRecord('\'finish\' is neither "stop" nor "length"', where, "Give the output of eyas rollout")
    return record, ids, count
