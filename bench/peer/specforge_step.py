"""Times the training step of SpecForge (published package specforge 0.2.0) on the CPU, for bench/trainer's figures.

    python3 -m venv v
    v/bin/pip install torch "transformers<5" safetensors datasets pydantic psutil
    v/bin/pip install --no-deps specforge==0.2.0     # its own list pins a serving stack that needs a GPU
    v/bin/python bench/peer/specforge_step.py --tokens 512,2048
    v/bin/python bench/peer/specforge_step.py --features DIR --count 24

A step is the package's Eagle3TrainStrategy.forward_loss, backward and BF16Optimizer.step with attention backend
"sdpa" (its default needs a GPU for the backward) on one sample; all else is as the package comes, but for its loss,
whose kernel needs a GPU too: --loss ref is the package's own torch reference, closed the same loss with a gradient
in closed form, which keeps what that kernel keeps. Shape of SmolLM2-135M, TTT length 7. Random samples with every
row in the loss, or the feature files (.ckpt) of a directory in the order of their names.
"""
import argparse
import glob
import os
import resource
import threading
import time

os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
import torch  # noqa: E402
from specforge.algorithms.eagle3 import model as eagle3  # noqa: E402
from specforge.core import loss as losses  # noqa: E402
from specforge.modeling.draft.llama3_eagle import LlamaForCausalLMEagle3  # noqa: E402
from specforge.modeling.target.target_head import TargetHead  # noqa: E402
from specforge.optimizer import BF16Optimizer  # noqa: E402
from specforge.runtime.contracts import TrainBatch  # noqa: E402
from specforge.training.strategies.base import Eagle3TrainStrategy  # noqa: E402
from transformers import LlamaConfig  # noqa: E402

HIDDEN, VOCAB, DRAFT_VOCAB, TTT = 576, 49152, 8192, 7


class ClosedForm(torch.autograd.Function):
    """Cross-entropy against the teacher's probabilities p; its gradient is (sum(p) softmax(x) - p) / rows."""

    @staticmethod
    def forward(ctx, logits, p, mask):
        wide = logits.float()
        log_sum = wide.logsumexp(-1, keepdim=True)
        ctx.save_for_backward(logits, p, mask, log_sum)
        return ((p * (log_sum - wide)).sum(-1, keepdim=True) * mask).mean()

    @staticmethod
    def backward(ctx, above):
        logits, p, mask, log_sum = ctx.saved_tensors
        gradient = (logits.float() - log_sum).exp_()
        gradient.mul_(p.sum(-1, keepdim=True)).sub_(p).mul_(mask * (above / mask.numel()))
        return gradient.to(logits.dtype), None, None


def trainer(loss, dtype):
    eagle3.LogSoftmaxLoss = (
        ClosedForm if loss == "closed" else type("Reference", (), {"apply": staticmethod(losses._compute_loss)}))
    config = LlamaConfig(
        hidden_size=HIDDEN, intermediate_size=1536, num_attention_heads=9, num_key_value_heads=3,
        num_hidden_layers=1, vocab_size=VOCAB, max_position_embeddings=16384, pad_token_id=0,
        tie_word_embeddings=False)
    config.draft_vocab_size = DRAFT_VOCAB
    torch.manual_seed(0)
    draft = LlamaForCausalLMEagle3(config, attention_backend="sdpa")
    draft.t2d.zero_()
    draft.t2d[:DRAFT_VOCAB] = True
    draft.d2t.zero_()
    draft.freeze_embedding()
    draft = draft.to(dtype)
    head = TargetHead.__new__(TargetHead)  # whose own constructor wants a target's files
    torch.nn.Module.__init__(head)
    head.config = config
    head.fc = torch.nn.Linear(HIDDEN, VOCAB, bias=False)
    head.freeze_weights()
    head = head.eval().to(dtype)
    model = eagle3.OnlineEagle3Model(draft_model=draft, length=TTT, attention_backend="sdpa")
    return Eagle3TrainStrategy(model, target_head=head), BF16Optimizer(draft, lr=1e-4, total_steps=1000)


def batch_of(ids, mask, hidden, target):
    tokens = ids.numel()
    return TrainBatch(
        sample_ids=["0"], strategy="eagle3",
        tensors={"input_ids": ids.view(1, tokens), "attention_mask": torch.ones(1, tokens, dtype=torch.long),
                 "loss_mask": mask.view(1, tokens).long(), "hidden_state": hidden.view(1, tokens, -1),
                 "target": target.view(1, tokens, -1)},
        metadata={"target_repr": "hidden_state", "ttt_length": TTT})


def resident_mb():
    with open("/proc/self/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * resource.getpagesize() / 1e6


class Highest(threading.Thread):
    """The highest resident memory while it runs."""

    def __init__(self):
        super().__init__(daemon=True)
        self.mb, self.ended = 0.0, False

    def run(self):
        while not self.ended:
            self.mb = max(self.mb, resident_mb())
            time.sleep(0.005)


def step(strategy, optimizer, batch):
    begin = time.perf_counter()
    loss = strategy.forward_loss(batch).loss
    loss.backward()
    del loss
    optimizer.step()
    return time.perf_counter() - begin


def random_batch(tokens, dtype):
    g = torch.Generator().manual_seed(1)
    return batch_of(
        torch.randint(0, VOCAB, (tokens,), generator=g), torch.ones(tokens),
        torch.randn(tokens, 3 * HIDDEN, generator=g).to(dtype), torch.randn(tokens, HIDDEN, generator=g).to(dtype))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="512", help="lengths of random samples, with commas between")
    parser.add_argument("--features", help="directory of feature files instead")
    parser.add_argument("--count", type=int, default=24, help="feature files to take")
    parser.add_argument("--loss", choices=["ref", "closed"], default="closed")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--steps", type=int, default=3, help="timed steps at each length, after one that is not")
    a = parser.parse_args()
    dtype = torch.float32 if a.dtype == "fp32" else torch.bfloat16
    strategy, optimizer = trainer(a.loss, dtype)
    if a.features:
        files = sorted(glob.glob(os.path.join(a.features, "**", "*.ckpt"), recursive=True))[:a.count]
        samples = [torch.load(f, weights_only=True) for f in files]
        batches = [
            batch_of(s["input_ids"], s["loss_mask"], s["aux_hidden_state"].to(dtype), s["hidden_state"].to(dtype))
            for s in samples]
        step(strategy, optimizer, batches[0])
        seconds = sum(step(strategy, optimizer, b) for b in batches)
        tokens = sum(s["input_ids"].numel() for s in samples)
        print(f"{len(files)} samples, {tokens} tokens, {a.dtype}, loss {a.loss}: {tokens / seconds:.1f} tokens/s")
        return
    for tokens in (int(t) for t in a.tokens.split(",")):
        batch = random_batch(tokens, dtype)
        before, highest = resident_mb(), Highest()
        highest.start()
        step(strategy, optimizer, batch)
        seconds = sorted(step(strategy, optimizer, batch) for _ in range(a.steps))[a.steps // 2]
        highest.ended = True
        print(f"{tokens} tokens, {a.dtype}, loss {a.loss}: {seconds:.3f} s, {tokens / seconds:.1f} tokens/s, "
              f"{highest.mb - before:.0f} MB added by the step", flush=True)


if __name__ == "__main__":
    main()
