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
    rollout, ingest, decode = log.get("rollout-train", {}), log.get("ingest", {}), log["decode"]
    there, here = log["train-disaggregated"], log["train-colocated"]

    print("\nsummary")
    row = lambda name, text: print(f"  {name:<28} {text}")
    row("answers", f"{rollout['prompts']} prompts, {rollout['answered']} answered now"
        + (f" at {rollout['tokens_per_second']:.0f} tokens/s, hidden states kept" if rollout["answered"] else ""))
    if ingest:
        row("store", f"{ingest['samples']} samples, {ingest['bytes'] / 1e6:.0f} MB in {ingest['seconds']:.1f} s")
    for name, run in (("disaggregated training", there), ("colocated training", here)):
        row(name, f"step {run['step']}, {run['steps']} now in {run['seconds']:.0f} s,"
            f" {run['tokens_per_second']:.0f} tokens/s, peak {run['peak_memory_mb']:.0f} MB")
    row("final weights", f"bitwise identical ({log['compare']['tensors']} tensors)")
    for point in there.get("curve", []):
        row(f"held out, step {point['step']}", f"accuracy {rates(point['accuracy'])}   acceptance length"
            f" {point['acceptance_length']:.3f} ({point['target_passes']} passes)")
    row("speculative decoding", f"{decode['prompts']} held-out prompts, {decode['draft']}: {decode['acceptance_length']:.3f} tokens"
        f" a target pass, {decode['tokens_per_second']:.1f} tokens/s, plain {decode['plain_tokens_per_second']:.1f}"
        f" ({decode['speed_up']:.2f}x); {decode['equal_texts']} of {decode['prompts']} texts are plain decoding's")
    row("for a serving engine", f"{work / 'export'}, compared with the checkpoint")
    row("report", str(work / "report.html"))
    row("time", f"{seconds // 60}:{seconds % 60:02d} min: " + ", ".join(f"{k} {v} s" for k, v in times.items() if int(v) > 4))


if __name__ == "__main__":
    main()
