"""Times generation and hidden states with Hugging Face transformers on the CPU, for bench/rollout's figures.

    python3 -m venv v
    v/bin/pip install torch "transformers<5" safetensors
    v/bin/python bench/peer/transformers_generate.py --model DIR

The same job as bench/rollout --model DIR: prompts of the same tokens, the same number of new ones, greedy, no stop
token; then one forward over the finished texts that gives the hidden states of all layers. float32, as eyas computes;
--dtype bfloat16 for what the package would be used with on a GPU. Prints tokens/s, median of the runs, and with
--show the first answer's ids, which are to be those of eyas where no two logits are close.
"""
import argparse
import json
import os
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402


def timed(what, tokens, runs, f):
    f()  # warms up
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - start)
    print(f"{what:<24} {tokens / statistics.median(seconds):8.1f} tokens/s "
          f"({tokens / max(seconds):.1f} to {tokens / min(seconds):.1f})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face directory")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--batches", default="1,4,16")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--show", action="store_true")
    a = parser.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    model = AutoModelForCausalLM.from_pretrained(a.model, torch_dtype=getattr(torch, a.dtype)).eval()
    vocab = model.config.vocab_size
    prompts = torch.tensor([[(1 + 7919 * i + 104729 * j) % vocab for j in range(a.prompt_tokens)]
                            for i in range(a.prompts)])

    def generate(batch):
        out = []
        for begin in range(0, len(prompts), batch):
            ids = prompts[begin:begin + batch]
            out.append(model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                      min_new_tokens=a.new_tokens, max_new_tokens=a.new_tokens,
                                      eos_token_id=None, pad_token_id=0))
        return torch.cat(out)

    with torch.inference_mode():
        texts = generate(max(int(b) for b in a.batches.split(",")))
        assert texts.shape == (a.prompts, a.prompt_tokens + a.new_tokens), texts.shape
        print(f"{a.prompts} prompts of {a.prompt_tokens} tokens, {a.new_tokens} new ones each, "
              f"{torch.get_num_threads()} threads, {a.dtype}")
        for batch in a.batches.split(","):
            timed(f"generation, batch {batch}", a.prompts * a.new_tokens, a.runs, lambda: generate(int(batch)))
        # The body alone: states need no head.
        timed("forward of whole texts", texts.numel(), a.runs,
              lambda: model.model(texts, output_hidden_states=True, use_cache=False))
    if a.show:
        print(json.dumps(texts[0].tolist()))


if __name__ == "__main__":
    main()
