"""Loads an exported draft in SpecForge's own model class (published package specforge 0.2.0) and compares its logits
with those that eyas computed from the same directory.

    eyas export --checkpoint RUN --out DIR --layout hf --target TARGET --verify --write-logits FILE.safetensors
    v/bin/python bench/peer/specforge_export.py --export DIR --logits FILE.safetensors

(specforge_step.py says how v/ is made.) Both compute in float32 from the same bfloat16 weights and states, in another
order. How far they may be apart is derived from float32 itself: the draft is evaluated again in float64, and --runs
times in float64 with every rounding as an independent random error of standard deviation u = 2^-24 of what is rounded
(a sum of n products has n of them, of its partial sums). That gives each logit's standard deviation, with whatever
the network does to errors. Two float32 evaluations may differ by 8 of them, times the root of 2; no more than one in
10^15 does by chance. Where a logit's own figure, of few runs, is below that of its row, the row's counts. Ends with 1
where a logit differs by more, or SpecForge finds a weight missing or left over.
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


class Float64:
    """The draft in float64, with random roundings where there is a generator."""

    def __init__(self, weights, config, generator=None):
        self.w = {k.removeprefix("midlayer."): v.double() for k, v in weights.items() if v.is_floating_point()}
        self.squares = {k: v.pow(2) for k, v in self.w.items()} if generator else None
        self.heads, self.groups = config["num_attention_heads"], config["num_key_value_heads"]
        self.head = config.get("head_dim") or config["hidden_size"] // self.heads
        self.epsilon, self.theta = config["rms_norm_eps"], config["rope_theta"]
        self.norm_output, self.generator = config.get("norm_output", True), generator

    def rounded(self, x, scale, roundings=1.0):
        """x with an error of u * scale, so many times in a row."""
        if self.generator is None:
            return x
        noise = torch.randn(x.shape, generator=self.generator, dtype=torch.float64)
        return x + noise * scale * U * math.sqrt(roundings)

    def linear(self, x, name):
        y = x @ self.w[name].t()
        if self.generator is None:
            return y
        n = x.shape[-1]  # partial sums are as large as their terms together, as independent ones are
        return self.rounded(y, (x.pow(2) @ self.squares[name].t()).sqrt(), n)

    def rms_norm(self, x, name):
        n = x.shape[-1]
        rms = (x.pow(2).mean(-1, keepdim=True) + self.epsilon).sqrt()
        y = x / self.rounded(rms, rms, n / 4) * self.w[name]  # a root halves the error of the sum
        return self.rounded(y, y.abs(), 3)

    def silu(self, x):
        y = x * torch.sigmoid(x)
        return self.rounded(y, y.abs(), 8)

    def rotated(self, x, positions):
        frequency = self.theta ** (-torch.arange(0, self.head, 2).double() / self.head)
        angle = torch.cat([positions.double()[:, None] * frequency] * 2, -1)
        cos = self.rounded(angle.cos(), angle + 1, 4)  # frequency and angle are rounded before the function
        sin = self.rounded(angle.sin(), angle + 1, 4)
        a, b = x.chunk(2, -1)
        y = x * cos + torch.cat([-b, a], -1) * sin
        return self.rounded(y, x.abs() + torch.cat([b, a], -1).abs(), 2)

    def attention(self, q, keys, values):
        """Causal over the first step's keys, the own row's over later ones'. q [H, T, E]."""
        tokens, n = q.shape[1], self.head

        def dots(product, squares):
            return self.rounded(product, squares.sqrt(), n) / math.sqrt(n)

        first = keys[0].transpose(-1, -2)
        scores = [dots(q @ first, q.pow(2) @ first.pow(2))]
        scores += [dots((q * k).sum(-1, keepdim=True), (q * k).pow(2).sum(-1, keepdim=True)) for k in keys[1:]]
        scores = torch.cat(scores, -1)
        future = torch.ones(tokens, tokens).triu(1).bool()
        future = torch.cat([future, torch.zeros(tokens, len(keys) - 1).bool()], -1)
        scores = scores.masked_fill(future, -math.inf)
        p = scores.softmax(-1)
        spread = (scores.amax(-1, keepdim=True) - scores).masked_fill(future, 0)  # the exponential's argument
        p = self.rounded(p, p * (spread + 2), 2)
        p = p * self.rounded(torch.ones(p.shape[:-1] + (1,), dtype=p.dtype), 1, tokens)  # the sum below it
        near = p[..., :tokens]
        out = self.rounded(near @ values[0], (near.pow(2) @ values[0].pow(2)).sqrt(), tokens)
        for i, value in enumerate(values[1:]):
            out = out + p[..., tokens + i:tokens + i + 1] * value
        return self.rounded(out, out.abs(), len(keys))

    def logits(self, embedding, ids, states, steps):
        """[K, T, W]"""
        tokens = ids.numel()

        def split(x, count):
            return x.view(tokens, count, self.head).transpose(0, 1)

        def grown(x):
            return x.repeat_interleave(self.heads // self.groups, 0)

        hidden = self.linear(states.double(), "fc.weight")
        keys, values, logits = [], [], []
        for k in range(steps):
            shifted = torch.cat([ids[k + 1:], torch.zeros(k + 1, dtype=ids.dtype)])[:tokens]
            position = torch.arange(tokens) + k
            token = self.rms_norm(embedding[shifted].double(), "input_layernorm.weight")
            x = torch.cat([token, self.rms_norm(hidden, "hidden_norm.weight")], -1)
            q = self.rotated(split(self.linear(x, "self_attn.q_proj.weight"), self.heads), position)
            keys.append(grown(self.rotated(split(self.linear(x, "self_attn.k_proj.weight"), self.groups), position)))
            values.append(grown(split(self.linear(x, "self_attn.v_proj.weight"), self.groups)))
            a = self.attention(q, keys, values).transpose(0, 1).reshape(tokens, self.heads * self.head)
            hidden = hidden + self.linear(a, "self_attn.o_proj.weight")
            hidden = self.rounded(hidden, hidden.abs())
            n = self.rms_norm(hidden, "post_attention_layernorm.weight")
            n = self.silu(self.linear(n, "mlp.gate_proj.weight")) * self.linear(n, "mlp.up_proj.weight")
            hidden = hidden + self.linear(self.rounded(n, n.abs()), "mlp.down_proj.weight")
            hidden = self.rounded(hidden, hidden.abs())
            out = self.rms_norm(hidden, "norm.weight") if self.norm_output else hidden
            logits.append(self.linear(out, "lm_head.weight"))
        return torch.stack(logits)


def with_bound(weights, config, ids, states, steps, runs):
    """Logits [K, T, W] in float64, and how far two float32 evaluations may be apart."""
    embedding = weights["embed_tokens.weight"]
    exact = Float64(weights, config).logits(embedding, ids, states, steps)
    noisy = Float64(weights, config, torch.Generator().manual_seed(0))
    variance = torch.zeros_like(exact)
    for _ in range(runs):
        variance += (noisy.logits(embedding, ids, states, steps) - exact).pow(2) / runs
    variance = torch.maximum(variance, variance.mean(-1, keepdim=True))
    return exact, 8 * math.sqrt(2) * variance.sqrt()


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
    parser.add_argument("--runs", type=int, default=4, help="evaluations with random roundings")
    a = parser.parse_args()
    with open(os.path.join(a.export, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    if (config.get("rope_scaling") or {}).get("rope_type", "default") != "default" or config.get("fc_norm"):
        sys.exit("the bound is written for a draft with a plain rope and without fc_norm")
    weights = load_file(os.path.join(a.export, "model.safetensors"))
    model, loaded = LlamaForCausalLMEagle3.from_pretrained(
        a.export, dtype=torch.float32, output_loading_info=True)
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
        exact, bound = with_bound(weights, config, ids, states, mine.shape[0], a.runs)
        theirs = specforge_logits(model, ids, states, mine.shape[0]).double()
        for name, d in zip(worst, (mine - theirs, mine - exact, theirs - exact)):
            worst[name] = max(worst[name], d.abs().max().item())
        share = max(share, ((mine - theirs).abs() / bound).max().item())
        largest, count = max(largest, exact.abs().max().item()), count + mine.numel()
    for name, value in worst.items():
        print(f"{name}: at most {value:.3g}")
    print(f"{count} logits up to {largest:.3g}; a difference is at most {share:.3g} of its bound")
    sys.exit(share > 1)


if __name__ == "__main__":
    main()
