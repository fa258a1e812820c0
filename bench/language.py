"""Compares LAMOL's updates and generation in the official code's way and in clray's: python bench/language.py

Both do the same work on the same minibatches, in turns, so that other load on the machine slows both alike. The
official way is written here from its description (docs/papers/lamol.md) on today's transformers: two forward passes
over padded rows with logits at every position, attention written out, AdamW parameter by parameter, and pseudo-samples
in groups of equal length whose caches are joined and split again for every token. Minibatches are four rows of lengths
like those of SST, QA-SRL and WOZ, mixed, with random tokens and untrained weights, without dropout. Times are CPU
seconds of one thread, or wall-clock seconds on an accelerator.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from clray.language.generation import generate  # noqa: E402
from clray.language.losses import FILL, Batch, eager, fused, weights  # noqa: E402
from clray.language.optimizers import AdamW, parameter_groups  # noqa: E402
from clray.language.projection import project  # noqa: E402

VOCABULARY, EOS, ANS, GEN = 50261, 50256, 50257, 50260
SIZES = {"small": (256, 4, 4), "gpt2": (768, 12, 12)}
"""Width, layers, heads."""
TASKS = (("sst", 29, 9, 1), ("srl", 38, 10, 7), ("woz.en", 26, 7, 6))
"""Name, mean and spread of the number of tokens up to ``__ans__``, and the number of tokens of an answer."""
LR, DECAY, EPS, CLIP, LAMBDA, MARGIN, TOP_K = 6.25e-5, 0.01, 1e-4, 1.0, 0.25, 0.5, 20


def model_of(size: str, attention: str, device: str) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    width, layers, heads = SIZES[size]
    still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=width, n_layer=layers, n_head=heads, **still)
    config._attn_implementation = attention
    torch.manual_seed(0)
    return GPT2LMHeadModel(config).to(device)


def minibatches(count: int, rows: int = 4) -> list[Batch]:
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        examples = []
        for _ in range(rows):
            _, mean, spread, answered = TASKS[rng.integers(len(TASKS))]
            asked = rng.integers(0, EOS, max(8, int(rng.normal(mean, spread)))).tolist()
            answer = rng.integers(0, EOS, answered).tolist()
            cqa = [*asked, ANS, *answer]
            examples.append((cqa, [FILL] * len(asked) + answer + [EOS], [GEN, *cqa], [*cqa, EOS]))
        found.append(Batch(*map(list, zip(*examples, strict=True))))
    return found


class OldAdamW(torch.optim.Optimizer):
    """AdamW with several small operations for each parameter."""

    def __init__(self, groups: Any) -> None:
        super().__init__(groups, {"lr": LR, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state.update(step=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                state["step"] += 1
                state["m"].mul_(0.9).add_(p.grad, alpha=0.1)
                state["v"].mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
                below = state["v"].sqrt().add_(EPS)
                size = LR * math.sqrt(1 - 0.999 ** state["step"]) / (1 - 0.9 ** state["step"])
                p.addcdiv_(state["m"], below, value=-size)
                if group["weight_decay"]:
                    p.add_(p, alpha=-LR * group["weight_decay"])


class Side:
    """One way of doing the work."""

    def __init__(self, size: str, device: str, ours: bool) -> None:
        self.ours, self.device = ours, device
        self.model = model_of(size, "sdpa" if ours else "eager", device)
        groups = parameter_groups(self.model, DECAY)
        self.optimizer: Any = AdamW(groups, lr=LR, eps=EPS) if ours else OldAdamW(groups)
        self.weights = weights(VOCABULARY, ANS, device=device)
        self.form = fused if ours else eager

    def backward(self, batch: Batch, lm_lambda: float | None) -> None:
        qa, lm = self.form(self.model, batch, self.weights, lm_lambda)
        (qa + lm).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP, foreach=self.ours)

    def update(self, batch: Batch, lm_lambda: float | None, memories: list[list[Batch]] | None = None) -> None:
        self.model.train()
        self.backward(batch, lm_lambda)
        if memories:
            self.project(memories)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)

    def project(self, memories: list[list[Batch]]) -> None:
        parameters = list(self.model.parameters())
        sizes = [p.numel() for p in parameters]
        current, rows = flat(parameters), []
        for memory in memories:
            total: Any = None
            for batch in memory:
                self.optimizer.zero_grad(set_to_none=False)
                self.backward(batch, None)
                part = flat(parameters).mul_(1 / len(memory))
                total = part if total is None else total.add_(part)
            rows.append(total)
        changed = project(current, torch.stack(rows), MARGIN)
        for p, part in zip(parameters, changed.split(sizes), strict=True):
            p.grad.copy_(part.view_as(p))

    @torch.no_grad()
    def write(self, count: int, longest: int) -> int:
        """Write pseudo-samples. Returns the number of tokens written."""
        self.model.eval()
        if not self.ours:
            return self.write_in_groups(count, longest)
        rng = np.random.default_rng(0)
        drawn = rng.random((count, longest))
        found = generate(self.model, [[GEN]] * count, lambda i: drawn[i], TOP_K, 1.0, -1, [longest] * count)
        return sum(map(len, found))

    def write_in_groups(self, count: int, longest: int) -> int:
        from transformers import DynamicCache

        texts: list[list[int]] = [[GEN] for _ in range(count)]
        pasts: list[Any] = [None] * count
        for _ in range(longest):
            groups = defaultdict(list)
            for i, text in enumerate(texts):
                groups[len(text)].append(i)
            for members in groups.values():
                cache = DynamicCache()
                for layer in range(len(self.model.transformer.h)) if pasts[members[0]] else ():
                    keys, values = (torch.cat([pasts[i][layer][side] for i in members]) for side in (0, 1))
                    cache.update(keys, values, layer)
                ids = torch.tensor([texts[i][-1:] for i in members], device=self.device)
                logits = self.model(ids, past_key_values=cache, use_cache=True).logits[:, -1]
                for row, i in enumerate(members):
                    pasts[i] = [(x.keys[row : row + 1], x.values[row : row + 1]) for x in cache.layers]
                    least = logits[row].topk(TOP_K).values[-1]
                    kept = logits[row].masked_fill(logits[row] < least, -torch.inf)
                    texts[i].append(int(torch.multinomial(kept.softmax(0), 1)))
        return count * longest


def flat(parameters: list[Any]) -> Tensor:
    return torch.cat([p.grad.flatten() for p in parameters])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sizes", nargs="*", default=list(SIZES), help=f"of {', '.join(SIZES)}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=8, help="timed rounds of each at most, after one that is not")
    parser.add_argument("--seconds", type=float, default=16.0, help="for all rounds of one piece of work, about")
    given = parser.parse_args()
    torch.set_num_threads(1)

    def seconds(work: Callable[[], object]) -> float:
        clock = time.process_time if given.device == "cpu" else time.perf_counter
        begun = clock()
        work()
        if given.device != "cpu":
            torch.cuda.synchronize()
        return clock() - begun

    print(f"torch {torch.__version__}, {given.device}, tokens a second: medians of rounds in turns")
    for size in given.sizes:
        sides = [Side(size, given.device, ours) for ours in (False, True)]
        batches = minibatches(16)
        memories = [minibatches(3)[1:]]
        count, longest = 24, 24 if size == "small" else 12
        works: dict[str, Callable[[Side, Batch], object]] = {
            "lll": lambda side, batch: side.update(batch, LAMBDA),
            "finetune": lambda side, batch: side.update(batch, None),
            "gem": lambda side, batch, m=memories: side.update(batch, None, m),  # type: ignore[misc]
            "writing": lambda side, _, n=count, most=longest: side.write(n, most),  # type: ignore[misc]
        }
        for name, work in works.items():
            rates: list[list[float]] = [[], []]
            begun = time.monotonic()
            for done, batch in enumerate(batches[: given.rounds + 1]):
                tokens = sum(map(len, batch.cqa + batch.gen_X if name == "lll" else batch.cqa))  # type: ignore[operator]
                if name == "writing":
                    tokens = count * longest
                for side, kept in zip(sides, rates, strict=True):
                    kept.append(tokens / seconds(lambda s=side, b=batch, w=work: w(s, b)))  # type: ignore[misc]
                if done and (time.monotonic() - begun) * (done + 2) / (done + 1) > given.seconds:
                    break
            official, ours = (statistics.median(kept[1:]) for kept in rates)
            timed = len(rates[0]) - 1
            print(
                f"{size:6} {name:9} official {official:9.1f}   clray {ours:9.1f}   {ours / official:5.2f} times "
                f"({timed} rounds)",
                flush=True,
            )


if __name__ == "__main__":
    main()
