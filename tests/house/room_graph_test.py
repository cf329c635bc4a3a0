"""The rooms of include/eyas/ include only rooms above them; every header stays small and clean."""
import os
import re
import sys

ROOMS = ["core", "format", "device", "ops", "sample", "transport", "store", "ingest", "loader", "ledger", "model",
         "optimizer", "collective", "checkpoint", "trainer", "capture", "evaluate", "pipeline", "report"]
LONGEST_HEADER = 300
FORBIDDEN = [(re.compile(r"\b(TODO|FIXME|XXX|HACK)\b"), "unfinished work"),
             (re.compile(r"/(work|farm|root|home)/"), "a path of one machine"),
             (re.compile(r"https?://(?!arxiv\.org|www\.apache\.org)"), "a host name")]


def check(root):
    problems, seen = [], 0
    for folder, _, names in os.walk(os.path.join(root, "include", "eyas")):
        room = os.path.relpath(folder, os.path.join(root, "include", "eyas")).split(os.sep)[0]
        for name in sorted(names):
            path = os.path.join(folder, name)
            seen += 1
            text = open(path, encoding="utf-8").read()
            lines = text.splitlines()
            say = lambda what: problems.append(f"{os.path.relpath(path, root)}: {what}")
            if lines[0] != "#pragma once":
                say("does not begin with #pragma once")
            if len(lines) > LONGEST_HEADER:
                say(f"{len(lines)} lines, more than {LONGEST_HEADER}: is it one idea?")
            for pattern, what in FORBIDDEN:
                if found := pattern.search(text):
                    say(f"{what}: {found.group(0)}")
            if room == ".":
                continue  # the umbrella
            if room not in ROOMS:
                say(f"room '{room}' is not in the list")
                continue
            for included in re.findall(r'#include "eyas/([^"]+)"', text):
                other = included.split("/")[0]
                if other not in ROOMS or ROOMS.index(other) > ROOMS.index(room):
                    say(f"room {room} may not include eyas/{included}")
                elif not os.path.exists(os.path.join(root, "include", "eyas", included)):
                    say(f"includes eyas/{included}, which does not exist")
            if re.search(r'#include "(?!eyas/)', text):
                say("includes with quotes something that is not eyas/...")
    return problems, seen


if __name__ == "__main__":
    found, count = check(sys.argv[1] if len(sys.argv) > 1 else ".")
    print("\n".join(found))
    print(f"{count} headers, {len(found)} problems")
    sys.exit(1 if found or count < 50 else 0)
