#!/usr/bin/env python3
"""summary.py WORK_DIR SECONDS: the table at the end of run.sh, from the JSON lines of its steps."""
import json
import sys
from pathlib import Path


def last_json(path):
    """The last line that is a JSON object; {} where there is none."""
    lines = path.read_text().splitlines() if path.exists() else []
    for line in reversed(lines):
        if line.startswith("{"):
            return json.loads(line)
    return {}


def rates(values):
    return " ".join(f"{v:.3f}" for v in values)


def main():
    work, seconds = Path(sys.argv[1]), int(sys.argv[2])
    log = {p.stem: last_json(p) for p in (work / "logs").glob("*.log")}
    times = dict(line.split() for line in (work / "logs" / "times").read_text().splitlines())
    capture, ingest = log.get("capture", {}), log.get("ingest", {})
    there, here = log["train-disaggregated"], log["train-colocated"]
    before, after = log["eval-before"], log["eval-after"]

    print("\nsummary")
    row = lambda name, text: print(f"  {name:<28} {text}")
    row("features", f"{capture['conversations']} conversations, {capture['captured']} captured now"
        + (f" at {capture['tokens_per_second']:.0f} tokens/s" if capture["captured"] else ""))
    if ingest:
        row("store", f"{ingest['samples']} samples, {ingest['bytes'] / 1e6:.0f} MB in {ingest['seconds']:.1f} s")
    for name, run in (("disaggregated training", there), ("colocated training", here)):
        row(name, f"step {run['step']}, {run['steps']} now in {run['seconds']:.0f} s,"
            f" {run['tokens_per_second']:.0f} tokens/s, peak {run['peak_memory_mb']:.0f} MB")
    row("final weights", f"bitwise identical ({log['compare']['tensors']} tensors)")
    for point in there.get("curve", []):
        row(f"held out, step {point['step']}", f"accuracy {rates(point['accuracy'])}   acceptance {rates(point['acceptance'])}")
    for name, e in (("held out before", before), ("held out after", after)):
        row(name, f"accuracy {rates(e['accuracy'])}   acceptance {rates(e['acceptance'])}"
            f"   tokens/pass {e['expected_tokens_per_pass']:.3f}")
    row("gain", f"first-step accuracy {before['accuracy'][0]:.3f} -> {after['accuracy'][0]:.3f}, acceptance"
        f" {after['acceptance'][0] / max(before['acceptance'][0], 1e-9):.0f} x that of the untrained draft")
    row("for a serving engine", str(work / "export"))
    row("time", f"{seconds // 60}:{seconds % 60:02d} min: " + ", ".join(f"{k} {v} s" for k, v in times.items() if int(v) > 4))


if __name__ == "__main__":
    main()
