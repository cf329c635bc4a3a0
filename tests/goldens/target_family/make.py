"""Makes the tiny models of this directory and what transformers computes with them; see README.md.

    python3 -m venv v
    v/bin/pip install torch "transformers==4.57.*" safetensors
    v/bin/python tests/goldens/target_family/make.py tests/goldens/target_family
"""
import contextlib
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import (LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

TOKENS, LAYERS, CAPTURED = 24, 6, (0, 3, 5)
SIZES = dict(hidden_size=32, intermediate_size=40, num_hidden_layers=LAYERS, num_attention_heads=4,
             num_key_value_heads=2, vocab_size=96, max_position_embeddings=256, tie_word_embeddings=False,
             bos_token_id=None, eos_token_id=None, pad_token_id=None)
LLAMA3 = dict(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
LLAMA, MISTRAL, QWEN2, QWEN3 = ((LlamaConfig, LlamaForCausalLM), (MistralConfig, MistralForCausalLM),
                                (Qwen2Config, Qwen2ForCausalLM), (Qwen3Config, Qwen3ForCausalLM))
# name: classes, storage, shards, tokens, config
CASES = {
    "llama2": (LLAMA, torch.bfloat16, 1, TOKENS, dict(rms_norm_eps=1e-5)),
    "llama3_rope": (LLAMA, torch.bfloat16, 2, TOKENS, dict(rope_theta=500.0, rope_scaling=LLAMA3)),
    "llama_linear_rope": (LLAMA, torch.float32, 1, TOKENS,
                          dict(tie_word_embeddings=True, rope_scaling=dict(rope_type="linear", factor=2.5))),
    "llama_biases": (LLAMA, torch.float16, 1, TOKENS, dict(attention_bias=True, mlp_bias=True, head_dim=12)),
    "smollm2": (LLAMA, torch.bfloat16, 1, TOKENS,
                dict(hidden_size=36, num_attention_heads=9, num_key_value_heads=3, head_dim=4, rope_theta=1e5,
                     rms_norm_eps=1e-5, tie_word_embeddings=True)),
    "qwen2": (QWEN2, torch.bfloat16, 1, TOKENS,
              dict(tie_word_embeddings=True, rope_theta=1e6, use_sliding_window=False, sliding_window=16,
                   max_window_layers=3)),
    "qwen3": (QWEN3, torch.bfloat16, 1, TOKENS, dict(head_dim=16, tie_word_embeddings=True, rope_theta=1e6)),
    "qwen3_biases": (QWEN3, torch.float16, 2, TOKENS, dict(head_dim=8, attention_bias=True)),
    "mistral": (MISTRAL, torch.float16, 1, TOKENS, dict(sliding_window=None, head_dim=12)),
    # As many tokens as the window: the most that windowed layers compute as full ones do.
    "mistral_window": (MISTRAL, torch.bfloat16, 1, 16, dict(sliding_window=16)),
}


def randomise(model, seed):
    """Weights that make every part of the forward matter: norms far from 1, biases far from 0."""
    random = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        z = torch.randn(p.shape, generator=random)
        if name.endswith("norm.weight"):
            p.data = 1 + 0.3 * z
        elif name.endswith(".bias"):
            p.data = 0.5 * z
        elif "embed_tokens" in name or "lm_head" in name:
            p.data = 0.7 * z
        else:
            p.data = 1.2 * z / p.shape[1]**0.5


@contextlib.contextmanager
def double_precision():
    """transformers asks for float32 by name in norms, rotation and softmax: here it gets float64."""
    saved = torch.float32, torch.float, torch.Tensor.float
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(saved[0])
        torch.float32, torch.float, torch.Tensor.float = saved


@torch.no_grad()
def forward(model, ids, prefix):
    inner = {}
    hooks = [model.model.layers[i].register_forward_hook(
        lambda m, a, y, i=i: inner.update({i: y[0] if isinstance(y, tuple) else y})) for i in CAPTURED]
    out = model(input_ids=ids[None], output_hidden_states=True, use_cache=False)
    for h in hooks:
        h.remove()
    return {**{f"{prefix}.layer.{i}": inner[i].reshape(len(ids), -1).contiguous() for i in CAPTURED},
            f"{prefix}.last": out.hidden_states[-1][0].contiguous(),
            f"{prefix}.logits": out.logits[0].contiguous()}


@torch.no_grad()
def check_window(model, ids, window):
    """Up to `window` tokens a windowed model computes what it does without; one more, and it does not."""
    states = {}
    for limit in (window, None):
        model.config.sliding_window = limit
        states[limit] = [model.model(torch.cat((ids, ids))[None, :n]).last_hidden_state for n in (window, window + 1)]
    assert torch.equal(states[window][0], states[None][0]) and not torch.allclose(states[window][1], states[None][1])
    model.config.sliding_window = window


def make(out, number, name):
    (config_class, model_class), storage, shards, tokens, changes = CASES[name]
    model = model_class(config_class(**{**SIZES, **changes}))
    randomise(model, number)
    if model.config.tie_word_embeddings:
        model.tie_weights()
    directory = out / name
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    size = sum(p.numel() for p in model.parameters()) * storage.itemsize
    model.to(storage).save_pretrained(directory, max_shard_size=size if shards == 1 else size * 2 // 3)
    (directory / "generation_config.json").unlink(missing_ok=True)
    files = list(directory.glob("model*.safetensors"))
    assert len(files) == shards, files

    ids = torch.randint(0, SIZES["vocab_size"], (tokens,), generator=torch.Generator().manual_seed(100 + number))
    read = model_class.from_pretrained(directory, dtype=torch.float32).eval()
    single = forward(read, ids, "float32")
    if name == "mistral_window":
        check_window(read, ids, read.config.sliding_window)
    rounded = forward(model_class.from_pretrained(directory, dtype=torch.bfloat16).eval(), ids, "bfloat16")
    assert all(t.dtype == torch.bfloat16 for t in rounded.values())
    with double_precision():
        wide = model_class(config_class.from_pretrained(directory)).eval()
        wide.load_state_dict(read.state_dict())
        double = forward(wide, ids, "float64")
    assert all(t.dtype == torch.float64 for t in [wide.model.rotary_emb.inv_freq, *double.values()])
    save_file({"input_ids": ids, **rounded, **single, **double}, directory / "expected.safetensors")
    for part in [f"layer.{i}" for i in CAPTURED] + ["last", "logits"]:
        d = double[f"float64.{part}"]
        off = [((s.double() - d).norm() / d.norm()).item()
               for s in (single[f"float32.{part}"], rounded[f"bfloat16.{part}"])]
        print(f"{name:18} {part:8} float32 is off by {off[0]:.2e}, bfloat16 by {off[1]:.2e}")


if __name__ == "__main__":
    for number, name in enumerate(CASES):
        if len(sys.argv) < 3 or name in sys.argv[2:]:
            make(pathlib.Path(sys.argv[1]), number, name)
