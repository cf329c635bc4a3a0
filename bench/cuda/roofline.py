"""What an EAGLE3 training step in bf16 cannot be faster than on a GPU, on paper:
python3 bench/cuda/roofline.py [--tokens 2048] [--ttt 7]

Each part of the step takes the longer of two times: its operations at the GPU's dense bf16 peak, and the bytes that it must
move to and from the GPU's memory at its bandwidth. Products read both operands and write their result once; kernels over
rows read and write what they name as often as their code goes over it (include/eyas/ops/block). Everything is counted for
every row in the loss; launches, waits and the copies of the batch are not counted. Shapes are bench/trainer/shape.hpp's.
"""

import argparse

GPUS = {  # name: (dense bf16 operations a second, bytes a second), of NVIDIA's data sheets
    "H100 SXM": (989e12, 3.35e12),
    "H200 SXM": (989e12, 4.8e12),
    "B200": (2250e12, 8.0e12),
}
SHAPES = {  # D, F, H, G, V, W
    "S": (576, 1536, 9, 3, 49152, 8192),
    "M": (2048, 8192, 32, 8, 128256, 32000),
    "L": (4096, 14336, 32, 8, 128256, 32000),
}


def product(m, n, k, out_bytes, count=1):
    """(operations, bytes) of [m, k] x [k, n] with bf16 operands."""
    return count * 2 * m * n * k, count * (2 * (m * k + k * n) + out_bytes * m * n)


def linear(rows, out, inner, count):
    """The three products of a linear layer, `count` times; the weight's gradient is read and written in fp32."""
    forward, back = product(rows, out, inner, 2, count), product(rows, inner, out, 2, count)
    weight = product(out, inner, rows, 8, count)
    return tuple(sum(x) for x in zip(forward, back, weight))


def parts(shape, tokens, ttt):
    """[(name, operations, bytes)] of one step."""
    d, f, h, g, v, w = SHAPES[shape]
    t, width = tokens, SHAPES[shape][0] // SHAPES[shape][2]
    qkv = d + 2 * g * width
    layers = [(qkv, 2 * d), (d, d), (2 * f, d), (d, f)]
    found = []

    def add(name, operations, data):
        found.append((name, operations, data))

    # Logits are fp32: written by the product, gone over three times to find top, token and sum.
    operations, data = product(t, v, d, 4)
    add("teacher head", operations, data + 3 * 4 * t * v + 3 * 4 * t * w)
    operations, data = linear(t, w, d, ttt)
    # Scores: logits read 5 times and written 4 times, the teacher's probabilities read 3 times;
    # then rounded to bf16.
    add("draft head", operations, data + ttt * t * w * (4 * (5 + 4 + 3) + 4 + 2))
    operations, data = 0, 0
    for out, inner in layers:
        o, b = linear(t, out, inner, ttt)
        operations, data = operations + o, data + b
    o, b = linear(t, d, 3 * d, 1)
    add("linear layers", operations + o, data + b)
    # Seven products over the causal half; each query's scores are written, made probabilities and read in bf16 and fp32:
    # 4 passes of 6 bytes forward, 6 backward.
    half = t * t / 2
    add("attention", ttt * 7 * 2 * half * d, ttt * h * half * 6 * 10)
    # Norms, rotation, residuals, SwiGLU, gathers: about 40 passes over [T, D] and 10 over [T, F] a TTT step, bf16.
    add("rows", 0, ttt * 2 * t * (40 * d + 10 * f))
    parameters = sum(o * i for o, i in layers) + 3 * d * d + w * d
    # AdamW: gradient, master, two moments read, three of them and the value written; the norm reads the gradient; zeroing.
    add("optimizer", 0, parameters * (4 * 4 + 3 * 4 + 2 + 4 + 4))
    return found


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tokens", type=int, default=2048)
    arguments.add_argument("--ttt", type=int, default=7)
    a = arguments.parse_args()
    for shape in SHAPES:
        rows = parts(shape, a.tokens, a.ttt)
        print(f"\n| {shape}, T {a.tokens}, TTT {a.ttt} | TFLOP | GB | " + " | ".join(f"{g}, ms" for g in GPUS) + " |")
        print("|---|---|---|" + "---|" * len(GPUS))
        best = dict.fromkeys(GPUS, 0.0)
        for name, operations, data in rows:
            cells = []
            for gpu, (peak, bandwidth) in GPUS.items():
                compute, memory = operations / peak, data / bandwidth
                best[gpu] += max(compute, memory)
                cells.append(f"{max(compute, memory) * 1e3:.2f} ({'products' if compute > memory else 'memory'})")
            print(f"| {name} | {operations / 1e12:.2f} | {data / 1e9:.2f} | " + " | ".join(cells) + " |")
        total = sum(r[1] for r in rows)
        print(f"| **all** | {total / 1e12:.2f} | {sum(r[2] for r in rows) / 1e9:.2f} | "
              + " | ".join(f"**{s * 1e3:.1f}**, {total / s / GPUS[g][0] * 100:.0f} % of the peak" for g, s in best.items()) + " |")


if __name__ == "__main__":
    main()
