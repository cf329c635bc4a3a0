"""Loads an exported draft in SpecForge's own model class (published package specforge 0.2.0) and compares its logits
with those that eyas computed from the same directory.

    eyas export --checkpoint RUN --out DIR --layout hf --target TARGET --verify --write-logits FILE.safetensors
    v/bin/python bench/peer/specforge_export.py --export DIR --logits FILE.safetensors

(specforge_step.py says how v/ is made.) Both compute in float32 from the same bfloat16 weights and states, in another
order. The bound on their difference is derived: this script evaluates the draft a third time in float64 and carries
beside every number how far a float32 evaluation may be away from it, whatever its order of sums (running error
analysis: a sum of n products is good to n u times the sum of their magnitudes, u = 2^-24). The two may differ by twice
that. Ends with 1 where a logit differs by more, or where SpecForge finds a weight missing or left over.
"""
import argparse
import json
import math
import os
import sys

os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from specforge.modeling.draft.llama3_eagle import LlamaForCausalLMEagle3, prepare_decoder_attention_mask  # noqa: E402

U = 2.0**-24


class Near:
    """Numbers (float64) and how far their float32 evaluation may be away."""

    def __init__(self, value, error=None):
        self.v = value.double()
        self.e = torch.zeros_like(self.v) if error is None else error

    def __add__(self, other):
        v = self.v + other.v
        return Near(v, self.e + other.e + U * (v.abs() + self.e + other.e))

    def __mul__(self, other):
        v = self.v * other.v
        e = self.v.abs() * other.e + other.v.abs() * self.e + self.e * other.e
        return Near(v, e + U * (v.abs() + e))

    def map(self, f):
        return Near(f(self.v), f(self.e))


def product(a, b, n):
    """a @ b, sums of n terms."""
    e = a.v.abs() @ b.e + a.e @ (b.v.abs() + b.e)
    return Near(a.v @ b.v, e + n * U / (1 - n * U) * ((a.v.abs() + a.e) @ (b.v.abs() + b.e)))


def linear(x, weight):
    return product(x, Near(weight.t()), weight.shape[1])


def rms_norm(x, weight, epsilon):
    n = x.v.shape[-1]
    rms = (x.v.pow(2).mean(-1, keepdim=True) + epsilon).sqrt()
    change = x.e.norm(dim=-1, keepdim=True) / math.sqrt(n)  # of the root mean square, at most
    least = rms - change
    assert (least > 0).all(), "the bound is of no use here"
    v = x.v / rms * weight.double()
    e = weight.double().abs() * (x.e / least + x.v.abs() * change / (rms * least))
    return Near(v, e + (n / 2 + 8) * U * (v.abs() + e))


def silu(x):
    v = x.v * torch.sigmoid(x.v)
    e = 1.1 * x.e  # its slope is below 1.1
    return Near(v, e + 16 * U * (v.abs() + e))  # an exponential of a few roundings, a sum, a quotient


def rotated(x, positions, theta):
    width = x.v.shape[-1]
    frequency = theta ** (-torch.arange(0, width, 2).double() / width)
    angle = torch.cat([positions.double()[:, None] * frequency] * 2, -1)
    angle_error = 8 * U * (angle.abs() + 1)  # frequency, product, and the function's own rounding

    def half(t, sign):
        a, b = t.chunk(2, -1)
        return torch.cat([sign * b, a], -1)

    cos, sin = Near(angle.cos(), angle_error), Near(angle.sin(), angle_error)
    return x * cos + Near(half(x.v, -1), half(x.e, 1)) * sin


def attention(q, keys, values, head):
    """Causal over the first step's keys, the own row's over later ones'. q [H, T, E]."""
    scale = Near(torch.tensor(1 / math.sqrt(head)), torch.tensor(U).double())
    first = product(q, keys[0].map(lambda t: t.transpose(-1, -2)), head)
    scores = [Near(first.v, first.e) * scale]
    for k in keys[1:]:
        dot = (q.v * k.v).sum(-1, keepdim=True)
        e = (q.v.abs() * k.e + q.e * (k.v.abs() + k.e)).sum(-1, keepdim=True)
        e = e + head * U * ((q.v.abs() + q.e) * (k.v.abs() + k.e)).sum(-1, keepdim=True)
        scores.append(Near(dot, e) * scale)
    tokens = q.v.shape[1]
    v, e = torch.cat([s.v for s in scores], -1), torch.cat([s.e for s in scores], -1)
    hidden = torch.ones(tokens, tokens).triu(1).bool()
    hidden = torch.cat([hidden, torch.zeros(tokens, len(keys) - 1).bool()], -1)
    v = v.masked_fill(hidden, -math.inf)
    p = v.softmax(-1)
    # exp(s - max) rounds its argument, too: by U times its size.
    spread = (v.amax(-1, keepdim=True) - v).masked_fill(hidden, 0)
    relative = torch.expm1(2 * e.masked_fill(hidden, 0).amax(-1, keepdim=True)) + (tokens + 16 + spread) * U
    p = Near(p, p * relative)
    out = product(p.map(lambda t: t[..., :tokens]), values[0], tokens)
    for i, value in enumerate(values[1:]):
        out = out + p.map(lambda t: t[..., tokens + i:tokens + i + 1]) * value
    return out


def with_bound(weights, embedding, config, ids, states, steps):
    """Logits [K, T, W] in float64 and how far float32 may be away from them."""
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    epsilon, tokens = config["rms_norm_eps"], ids.numel()
    w = {k.removeprefix("midlayer."): v.double() for k, v in weights.items() if v.is_floating_point()}

    def split(x, count):
        return x.map(lambda t: t.view(tokens, count, head).transpose(0, 1))

    def grown(x):
        return x.map(lambda t: t.repeat_interleave(heads // groups, 0))

    hidden = linear(Near(states), w["fc.weight"])
    keys, values, logits = [], [], []
    for k in range(steps):
        shifted = torch.cat([ids[k + 1:], torch.zeros(k + 1, dtype=ids.dtype)])[:tokens]
        position = torch.arange(tokens) + k
        token = rms_norm(Near(embedding[shifted]), w["input_layernorm.weight"], epsilon)
        normed = rms_norm(hidden, w["hidden_norm.weight"], epsilon)
        x = Near(torch.cat([token.v, normed.v], -1), torch.cat([token.e, normed.e], -1))
        q = rotated(split(linear(x, w["self_attn.q_proj.weight"]), heads), position, config["rope_theta"])
        keys.append(grown(rotated(split(linear(x, w["self_attn.k_proj.weight"]), groups), position,
                                  config["rope_theta"])))
        values.append(grown(split(linear(x, w["self_attn.v_proj.weight"]), groups)))
        a = attention(q, keys, values, head).map(lambda t: t.transpose(0, 1).reshape(tokens, heads * head))
        hidden = hidden + linear(a, w["self_attn.o_proj.weight"])
        n = rms_norm(hidden, w["post_attention_layernorm.weight"], epsilon)
        n = silu(linear(n, w["mlp.gate_proj.weight"])) * linear(n, w["mlp.up_proj.weight"])
        hidden = hidden + linear(n, w["mlp.down_proj.weight"])
        out = rms_norm(hidden, w["norm.weight"], epsilon) if config.get("norm_output", True) else hidden
        logits.append(linear(out, w["lm_head.weight"]))
    return torch.stack([x.v for x in logits]), torch.stack([x.e for x in logits])


@torch.no_grad()
def specforge_logits(model, ids, states, steps):
    tokens = ids.numel()
    mask = prepare_decoder_attention_mask(torch.ones(1, tokens, dtype=torch.bool), (1, tokens), states[None].float(), 0)
    hidden = model.project_hidden_states(states[None].float())
    cache, logits = [[], []], []
    for k in range(steps):
        shifted = torch.cat([ids[k + 1:], torch.zeros(k + 1, dtype=ids.dtype)])[:tokens]
        hidden = model.backbone(
            input_embeds=model.embed_input_ids(shifted[None]), hidden_states=hidden, cache_hidden=cache,
            attention_mask=mask, position_ids=torch.arange(tokens)[None], past_key_values=None, use_cache=False)
        logits.append(model.compute_logits(hidden)[0])
    return torch.stack(logits)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export", required=True, help="directory of eyas export --layout hf")
    parser.add_argument("--logits", required=True, help="file of eyas export --verify --write-logits")
    a = parser.parse_args()
    with open(os.path.join(a.export, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    if (config.get("rope_scaling") or {}).get("rope_type", "default") != "default" or config.get("fc_norm"):
        sys.exit("the bound is written for a draft with a plain rope and without fc_norm")
    weights = load_file(os.path.join(a.export, "model.safetensors"))
    model, loaded = LlamaForCausalLMEagle3.from_pretrained(
        a.export, torch_dtype=torch.float32, output_loading_info=True)
    model.eval()
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loaded.get(problem):
            sys.exit(f"{problem}: {sorted(loaded[problem])}")
    assert torch.equal(model.d2t, weights["d2t"]) and torch.equal(model.t2d, weights["t2d"])
    ours = load_file(a.logits)
    worst = {"ours - SpecForge": 0.0, "ours - float64": 0.0, "SpecForge - float64": 0.0}
    share, largest, count = 0.0, 0.0, 0
    for n in range(sum(name.startswith("logits.") for name in ours)):
        ids, states, mine = ours[f"input_ids.{n}"][0], ours[f"aux_hidden_state.{n}"][0], ours[f"logits.{n}"]
        exact, bound = with_bound(weights, weights["embed_tokens.weight"], config, ids, states, mine.shape[0])
        theirs = specforge_logits(model, ids, states, mine.shape[0]).double()
        for name, d in zip(worst, (mine - theirs, mine - exact, theirs - exact)):
            worst[name] = max(worst[name], d.abs().max().item())
        share = max(share, ((mine - theirs).abs() / (2 * bound)).max().item())
        largest, count = max(largest, exact.abs().max().item()), count + mine.numel()
    for name, value in worst.items():
        print(f"{name}: at most {value:.3g}")
    print(f"{count} logits up to {largest:.3g}; a difference is at most {share:.3g} of its bound")
    sys.exit(share > 1)


if __name__ == "__main__":
    main()
