"""What each kernel takes of a GPU, from what nvcc said when it compiled (tools/cuda/defs.bzl, output group ptxas):

kernel_resources.py check LOG DOCUMENT   no spills, registers and shared memory that fit, the kernels that the document names
kernel_resources.py table LOG            the document's table
kernel_resources.py write LOG DOCUMENT   puts the table into the document"""
import re
import subprocess
import sys

# NVIDIA's numbers of a streaming multiprocessor: warps, shared memory in bytes.
PROCESSOR = {"sm_80": (64, 164 << 10), "sm_90a": (64, 228 << 10), "sm_100": (64, 228 << 10)}
REGISTERS, BLOCKS, SHARED_OF_A_BLOCK = 65536, 32, 48 << 10
RESERVED, ROUND_SHARED, ROUND_REGISTERS = 1 << 10, 128, 256  # of a block, of a block, of a warp
BEGIN, END = "<!-- kernels: begin -->", "<!-- kernels: end -->"

ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


class Kernel:
    def __init__(self, symbol, arch):
        self.symbol, self.arch = symbol, arch
        self.registers = self.stack = self.spilled = None
        self.shared = 0

    def fit(self):
        """Blocks that a processor holds at once, and the share of its warps that they are."""
        warps, memory = PROCESSOR[self.arch]
        of_block = self.threads // 32
        registers = -(-self.registers * 32 // ROUND_REGISTERS) * ROUND_REGISTERS * of_block
        shared = -(-(self.shared + RESERVED) // ROUND_SHARED) * ROUND_SHARED
        blocks = min(BLOCKS, warps // of_block, REGISTERS // registers, memory // shared)
        return blocks, blocks * of_block / warps


def short(name):
    """void eyas::detail::run_block<eyas::detail::ForEach<X>, 256>(...): X and 256."""
    inner, threads = re.match(r"void eyas::detail::run_block<(.*), (\d+)>\(", name).groups()
    inner = inner.replace("eyas::detail::", "").replace("eyas::", "").replace("BFloat16", "bf16")
    inner = inner.replace("float", "fp32")
    while m := re.fullmatch(r"(?:ForEach|ForEachCell)<(.*?) ?>", inner):
        inner = m.group(1)
    return re.sub(r" +>", ">", inner), int(threads)


def read(path):
    kernels = []
    with open(path, encoding="utf-8") as f:
        for line in f:
            if m := ENTRY.search(line):
                kernels.append(Kernel(*m.groups()))
            elif m := FRAME.search(line):
                kernels[-1].stack, kernels[-1].spilled = int(m.group(1)), int(m.group(2)) + int(m.group(3))
            elif m := USED.search(line):
                kernels[-1].registers = int(m.group(1))
                if s := SHARED.search(line):
                    kernels[-1].shared = int(s.group(1))
    if not kernels:
        sys.exit(f"{path}: no kernel in it")
    names = subprocess.run(["c++filt"], input="\n".join(k.symbol for k in kernels), capture_output=True, text=True,
                           check=True).stdout.splitlines()
    for k, name in zip(kernels, names):
        k.name, k.threads = short(name)
    return kernels


def problems_of(kernels):
    problems = []
    for k in kernels:
        say = lambda what: problems.append(f"{k.name} on {k.arch}: {what}")
        if k.registers is None or k.spilled is None:
            say("ptxas did not say what it takes")
            continue
        if k.spilled:
            say(f"spills {k.spilled} bytes")
        if k.stack:
            say(f"a stack frame of {k.stack} bytes")
        if k.registers * k.threads > REGISTERS:
            say(f"{k.registers} registers of {k.threads} threads are more than a processor has")
        if k.shared > SHARED_OF_A_BLOCK:
            say(f"{k.shared} bytes of shared memory")
        if not problems and k.fit()[0] < 1:
            say("no block fits")
    for name in {k.name for k in kernels}:
        if (archs := sorted(k.arch for k in kernels if k.name == name)) != sorted(PROCESSOR):
            problems.append(f"{name}: compiled for {', '.join(archs)}")
    return problems


def table(kernels):
    lines = ["| kernel | threads of a block | shared memory | " +
             " | ".join(f"{a}: registers, occupancy" for a in PROCESSOR) + " |",
             "|---|---|---|" + "---|" * len(PROCESSOR)]
    for name in sorted({k.name for k in kernels}):
        of = {k.arch: k for k in kernels if k.name == name}
        one = of[next(iter(PROCESSOR))]
        lines.append(f"| {name} | {one.threads} | {one.shared} | " + " | ".join(
            f"{of[a].registers}, {of[a].fit()[1]:.0%}" for a in PROCESSOR) + " |")
    return "\n".join(lines)


def main(do, log, document=None):
    kernels = read(log)
    if do == "table":
        return print(table(kernels))
    with open(document, encoding="utf-8") as f:
        before, rest = f.read().split(BEGIN)
    written, after = rest.split(END)
    if do == "write":
        with open(document, "w", encoding="utf-8") as f:
            f.write(f"{before}{BEGIN}\n{table(kernels)}\n{END}{after}")
        return None
    problems = problems_of(kernels)
    there = set(re.findall(r"^\| (\S.*?) \| \d", written, flags=re.M))
    for name in sorted(there ^ {k.name for k in kernels}):
        problems.append(f"{name}: the table in {document} is old; the command above it writes it anew")
    print("\n".join(problems))
    print(f"{len(kernels)} kernels, {len(problems)} problems")
    return 1 if problems or len(kernels) < 100 else 0


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in ("check", "table", "write"):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
