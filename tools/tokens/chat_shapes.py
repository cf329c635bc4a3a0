"""The shapes in which chats and prompts are passed around, turned into one: a list of {"role", "content"}."""

from json_lines import BadRecord, whole_text

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
    "ipython": "ipython",
}
SHAPES = '{"messages": [{"role", "content"}]} or {"conversations": [{"from", "value"}]}'


def text_of(content, where):
    """The text of a message: a string, or a list of {"type": "text", "text"} parts."""
    if isinstance(content, list) and all(
        isinstance(p, dict) and isinstance(p.get("text"), str) for p in content
    ):
        content = "".join(p["text"] for p in content)
    if not isinstance(content, str):
        raise BadRecord("a message's content is no text", where, "Write a string; only text is handled")
    return whole_text(content, where)


def to_message(turn, where):
    if not isinstance(turn, dict):
        raise BadRecord("a message is no object", where, f"Write {SHAPES}")
    name = turn.get("role", turn.get("from"))
    if not isinstance(name, str) or name.lower() not in ROLES:
        shown = repr(name)[:40]
        raise BadRecord(
            f"a message's role is {shown}", where, "Use system, user, assistant or tool (human, gpt)"
        )
    message = {k: v for k, v in turn.items() if k not in ("from", "value")}
    message["role"] = ROLES[name.lower()]
    content = turn.get("content", turn.get("value"))
    # A call of a tool may stand without text; templates look for that themselves.
    message["content"] = None if content is None and turn.get("tool_calls") else text_of(content, where)
    return message


def to_messages(record, where):
    """The messages of a chat in any of the shapes. BadRecord where there are none."""
    turns = record
    if isinstance(record, dict):
        turns = next(
            (record[k] for k in ("messages", "conversations", "conversation") if record.get(k) is not None),
            None,
        )
    if not isinstance(turns, list) or not turns:
        raise BadRecord("holds no messages", where, f"Write {SHAPES}")
    messages = [to_message(turn, where) for turn in turns]
    return with_system(messages, system_beside(record, where))


def system_beside(record, where):
    """The system message that some keep beside the turns or the prompt, or None."""
    beside = record.get("system") if isinstance(record, dict) else None
    return text_of(beside, where) if beside else None


def with_system(messages, system):
    """`system` in front, where the chat has no system message of its own."""
    if system is None or messages[0]["role"] in ("system", "developer"):
        return messages
    return [{"role": "system", "content": system}] + messages


def to_prompt(record, where):
    """The messages up to the turn that is to be answered: of a string, {"prompt": string or messages} or a chat,
    which is cut before its last assistant turn where it does not end with a user's."""
    system = system_beside(record, where)
    if isinstance(record, dict) and record.get("prompt") is not None:
        record = record["prompt"]
    if isinstance(record, str):
        if not record.strip():
            raise BadRecord("the prompt is empty", where, "Write what a user would")
        return with_system([{"role": "user", "content": text_of(record, where)}], system)
    messages = to_messages(record, where)
    if messages[-1]["role"] in ("system", "developer", "assistant"):
        answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        messages = messages[: answers[-1]] if answers else []
    if not messages or messages[-1]["role"] in ("system", "developer", "assistant"):
        raise BadRecord(
            "no user turn is left to be answered", where, "Let a user's message come before the answer"
        )
    return with_system(messages, system)
