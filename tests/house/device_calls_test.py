"""Every call of CUDA's libraries has its status looked at, and what is written over devices names none of them.

In include/eyas/**/*.cuh, a call of a function cuda*, cublas*, nccl* or cudnn* is
- the first argument of a check_*( ) that throws, or
- what is left of a destructor: the argument of ignored( ), or
- kept as `status`, which the lines that follow look at, or
- cudaGetLastError( ), kept as `taken` where its error was told already;
functions that return no status are named below. The rooms model, optimizer, trainer, capture, evaluate, pipeline,
checkpoint and loader include no device but the host's."""
import os
import re
import sys

CALL = re.compile(r"\b(?:cuda|cublas|nccl|cudnn)[A-Z]\w*\s*\(")
NO_STATUS = re.compile(r"(?:(?:cuda|cublasLt|cublas|nccl|cudnn)Get(?:ErrorName|ErrorString|StatusString|StatusName)\s*\(|ncclGetLastError\s*\(|cudnnGetVersion\s*\()$")
LOOKED_AT = re.compile(r"(?:\bcheck_\w+|\bignored)\(\s*$")
KEPT = re.compile(r"\b(?:const auto|auto|cudaError_t|ncclResult_t|cublasStatus_t|cudnnStatus_t) status =\s*$")
TAKEN = re.compile(r"\bconst auto taken =\s*cudaGetLastError\s*\($")
LINES_LATER = 6
WITHOUT_DEVICE = ["model", "optimizer", "trainer", "capture", "evaluate", "pipeline", "checkpoint", "loader"]
A_DEVICE = re.compile(r"\b(?:Cuda|HostBlocks|cuda\w*|cublas\w*|nccl\w*)\b|eyas/device/(?:cuda|host_block)")


def code_of(text):
    """The text with comments and the insides of strings blanked, so that offsets and lines stay."""
    blank = lambda m: re.sub(r"[^\n]", " ", m.group(0))
    text = re.sub(r'"(?:\\.|[^"\\\n])*"', lambda m: '"' + " " * (len(m.group(0)) - 2) + '"', text)
    return re.sub(r"//[^\n]*|/\*.*?\*/", blank, text, flags=re.S)


def check_calls(path, text):
    problems, calls = [], 0
    lines = re.sub(r"^\s*#[^\n]*", "", code_of(text), flags=re.M)
    for m in CALL.finditer(lines):
        if NO_STATUS.search(m.group(0)):
            continue
        calls += 1
        before = lines[:m.start()]
        if LOOKED_AT.search(before) or TAKEN.search(before + m.group(0)):
            continue
        after = lines[m.end():].split(";", 1)[-1].splitlines()[:LINES_LATER]
        if KEPT.search(before) and re.search(r"\bstatus\b", "\n".join(after)):
            continue
        problems.append(f"{path}:{before.count(chr(10)) + 1}: the status of {m.group(0)}...) is lost")
    return problems, calls


def check(root):
    problems, calls = [], 0
    for folder, _, names in os.walk(os.path.join(root, "include", "eyas")):
        room = os.path.relpath(folder, os.path.join(root, "include", "eyas")).split(os.sep)[0]
        for name in sorted(names):
            path = os.path.join(folder, name)
            with open(path, encoding="utf-8") as f:
                text = f.read()
            if name.endswith(".cuh"):
                found, n = check_calls(os.path.relpath(path, root), text)
                problems, calls = problems + found, calls + n
            elif room in WITHOUT_DEVICE:
                code = re.sub(r'#include "', '#include <', text)  # its path stays to be read
                if found := A_DEVICE.search(code_of(code)):
                    problems.append(f"{os.path.relpath(path, root)}: names a device, {found.group(0)}")
    return problems, calls


if __name__ == "__main__":
    found, count = check(sys.argv[1] if len(sys.argv) > 1 else ".")
    print("\n".join(found))
    print(f"{count} calls, {len(found)} problems")
    sys.exit(1 if found or count < 30 else 0)
