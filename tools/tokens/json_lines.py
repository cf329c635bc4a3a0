"""JSON lines in and out: checked on the way in, complete or absent on the way out."""

import json
import os
import re
import sys
import time


class TokensError(Exception):
    """What went wrong, where it is (file, file:line, option) and what the reader can do about it."""

    def __init__(self, what, where, remedy):
        super().__init__(what, where, remedy)

    def __str__(self):
        what, where, remedy = self.args
        return f"{where}: {what}. {remedy}"


class BadRecord(TokensError):
    """One line's own fault, which --skip-invalid leaves out."""


def read_lines(path):
    """Yields (number from 1, bytes read so far, line as bytes without its end) of lines that are not blank."""
    try:
        with open(path, "rb") as source:
            done = 0
            for number, line in enumerate(source, 1):
                done += len(line)
                if number == 1 and line.startswith(b"\xef\xbb\xbf"):
                    line = line[3:]
                if line.strip():
                    yield number, done, line.rstrip(b"\r\n")
    except OSError as error:
        raise TokensError(f"cannot be read ({error.strerror})", path, "Name a file of JSON lines") from None


def parse(line, where):
    """The JSON value of one line (bytes). BadRecord for what is no UTF-8 or no JSON."""
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadRecord(f"byte {error.start} is not UTF-8", where, "Write the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        said = re.sub(r"\s+", " ", str(error))[:120]
        raise BadRecord(f"is not JSON ({said})", where, "Write one JSON value a line") from None


def read_object(line, where):
    value = parse(line, where)
    if not isinstance(value, dict):
        raise BadRecord("is not a JSON object", where, "Write one object a line")
    return value


def integers(record, key, where, low=0, high=2**31 - 1):
    """The array of integers under `key`, each within [low, high]."""
    values = record.get(key)
    if not isinstance(values, list):
        raise BadRecord(f"has no array '{key}'", where, "Write one array of integers under that key")
    for value in values:
        if type(value) is not int or not low <= value <= high:
            shown = json.dumps(value)[:40]
            raise BadRecord(f"'{key}' holds {shown}", where, f"Write integers from {low} to {high}")
    return values


def compact(record):
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def say(text="", end="\n", flush=False):
    """A line on standard output. BrokenPipeError where its reader has enough."""
    try:
        print(text, end=end, flush=flush)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TokensError(
            f"cannot be written ({error.strerror})", "standard output", "Send it to a place with room"
        ) from None


class StoppedInTime(KeyboardInterrupt):
    """Ctrl-C or SIGTERM before the output file appeared."""


class Output:
    """A text file that appears by one rename when its `with` block ends without an exception, and not at all
    otherwise. An existing file of that name is replaced then, or where the name is a link, what that points to."""

    def __init__(self, path, inputs=()):
        self.path, self.target = path, os.path.realpath(path)
        for source in inputs:
            if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
                raise TokensError("is the input, too", f"--out {path}", "Name another file")
        if os.path.isdir(path) or not os.path.basename(path):
            raise TokensError("is a directory", f"--out {path}", "Name a file")
        # A rename would put a file in the place of a device; a link that is still one leads in a circle.
        if not os.path.isfile(path) and (os.path.exists(path) or os.path.lexists(self.target)):
            raise TokensError("is no regular file", f"--out {path}", "Name a file")
        folder, name = os.path.split(self.target)
        self.temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")

    def __enter__(self):
        try:
            self.file = open(self.temporary, "w", encoding="utf-8", newline="\n")
        except OSError as error:
            raise self.refused(error) from None
        return self

    def write(self, record):
        try:
            self.file.write(compact(record) + "\n")
        except OSError as error:
            raise self.refused(error) from None

    def __exit__(self, kind, value, trace):
        try:
            if kind is None:
                self.file.flush()
                os.fsync(self.file.fileno())
                self.file.close()
                os.replace(self.temporary, self.target)
        except OSError as error:
            raise self.refused(error) from None
        finally:
            try:
                self.file.close()
            except OSError:
                pass  # what was buffered does not matter: the file goes
            if os.path.exists(self.temporary):
                os.unlink(self.temporary)
        if kind is KeyboardInterrupt:
            raise StoppedInTime

    def refused(self, error):
        return TokensError(
            f"cannot be written ({error.strerror})",
            f"--out {self.path}",
            "Name a place with room that may be written to",
        )


class Progress:
    """Says on stderr, every `interval` seconds, how much of a file was read."""

    def __init__(self, path, interval=5.0):
        self.size = os.path.getsize(path) if os.path.isfile(path) else 0
        self.path, self.interval = path, interval
        self.next = time.monotonic() + interval

    def at(self, number, done):
        if time.monotonic() < self.next:
            return
        self.next = time.monotonic() + self.interval
        share = f", {100 * done // self.size} %" if self.size else ""
        print(f"{self.path}: line {number}{share}", file=sys.stderr, flush=True)


def numbered_lines(path):
    """Yields (number, line) of each line that is not blank; says on stderr how far it is."""
    progress = Progress(path)
    for number, done, line in read_lines(path):
        progress.at(number, done)
        yield number, line


class Ids:
    """The id of each record: its own or, without one or with `by_line`, the file's name and the line's number.
    An id that comes again is an error: what is captured and sampled is told apart by ids."""

    def __init__(self, path, by_line):
        name = os.path.basename(path).removesuffix(".jsonl")
        self.stem = name.encode("utf-8", "replace").decode("utf-8")  # a file name may be any bytes
        self.by_line, self.seen = by_line, {}

    def take(self, own, number, where):
        name = f"{self.stem}:{number}" if self.by_line or own is None else own
        if name in self.seen:
            raise TokensError(
                f"has the id '{name}' of line {self.seen[name]}", where, "Give --ids line to number lines"
            )
        self.seen[name] = number
        return name


def own_id(record, where):
    value = record.get("id")
    if value is None or isinstance(value, str):
        return value if value is None else whole_text(value, where)
    if type(value) is int:
        return str(value)
    raise BadRecord("'id' is neither a string nor an integer", where, "Write one, or leave it out")


def whole_text(text, where):
    """`text` itself. JSON can spell half a surrogate pair, which is no text: BadRecord."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRecord(
            "holds half a surrogate pair", where, "Write both halves, or the character itself"
        ) from None
    return text
