"""Compares a step of TAG-RMSProp in the official code's way and in clray's: python bench/tag_step.py

Both train the reduced ResNet-18 on the same random images of split CIFAR-100, batch 10, at the 1st, 2nd, 10th and 20th
task, in turns, so that other load on the machine slows both alike. The official way is written here from its
description (docs/papers/tag.md): convolutions in the default layout, logits of other tasks overwritten; for every entry
of the state dictionary a search through the named parameters, a loop over all past tasks with a number fetched to the
host for each, and all second moments stacked anew, one after the other. Times are CPU seconds of one thread; on a GPU
(--device cuda) they are wall-clock seconds.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from clray.vision.learners.module import MASKED  # noqa: E402
from clray.vision.networks.reduced_resnet18 import ReducedResNet18  # noqa: E402
from clray.vision.tag import PlainTag, Tag  # noqa: E402

LR, B, CLASSES, BATCH = 0.00025, 5.0, 5, 10


class OfficialTag:
    """The official optimizer's way of doing the work: dictionaries by task and name."""

    def __init__(self, module: torch.nn.Module, tasks: int) -> None:
        self.module = module
        named = dict(module.named_parameters())
        self.second = [{n: torch.zeros_like(p) for n, p in named.items()} for _ in range(tasks)]
        self.first = [{n: torch.zeros_like(p) for n, p in named.items()} for _ in range(tasks)]
        self.units: list[dict[str, torch.Tensor]] = []

    def end_task(self) -> None:
        first = self.first[len(self.units)]
        self.units.append({n: (m / torch.norm(m)).reshape(-1) for n, m in first.items()})

    @torch.no_grad()
    def step(self) -> None:
        for name, value in self.module.state_dict().items():
            if name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked"):
                continue
            gradient = next(p.grad for n, p in self.module.named_parameters() if n == name)
            assert gradient is not None
            value.data.copy_(value + self.update(name, gradient, len(self.units)).reshape(value.shape))

    def update(self, name: str, g: torch.Tensor, task: int) -> torch.Tensor:
        self.first[task][name] = 0.9 * self.first[task][name] + 0.1 * g
        self.second[task][name] = 0.99 * self.second[task][name] + 0.01 * g**2
        agreements = []
        for past in range(task):
            m = self.first[task][name]
            agreements.append((-torch.dot(m.reshape(-1) / torch.norm(m), self.units[past][name])).cpu().numpy())
        weights = torch.from_numpy(np.array([*agreements, -1.0])).to(g.device)
        alphas = torch.exp(B * weights).float() if task else torch.ones(1, device=g.device)
        stacked = self.second[0][name].unsqueeze(0)
        for past in range(1, task + 1):
            stacked = torch.cat((stacked, self.second[past][name].unsqueeze(0)))
        axes = "hwvd"[: g.dim()]
        total = torch.einsum(f"n,n{axes}->{axes}", alphas, stacked)
        return -(LR * g / (torch.sqrt(total) / math.sqrt(1.0) + 1e-8))


def official(device: str, tasks: int) -> tuple[Any, Callable[[Any, Any, int], None]]:
    module = ReducedResNet18(name="reduced-resnet18").build((3, 32, 32), 100).to(device).train()
    optimizer = OfficialTag(module, tasks)

    def step(x: Any, y: Any, task: int) -> None:
        logits = module(x)
        with torch.no_grad():
            logits[:, : task * CLASSES] = MASKED
            logits[:, (task + 1) * CLASSES :] = MASKED
        module.zero_grad()
        cross_entropy(logits, y).backward()
        optimizer.step()

    return optimizer, step


def clray(kind: type[Tag] | type[PlainTag]) -> Callable[[str, int], tuple[Any, Callable[[Any, Any, int], None]]]:
    def ready(device: str, tasks: int) -> tuple[Any, Callable[[Any, Any, int], None]]:
        module = ReducedResNet18(name="reduced-resnet18").build((3, 32, 32), 100).to(device).train()
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = kind(module.parameters(), lr=LR, b=B)

        def step(x: Any, y: Any, task: int) -> None:
            logits = module(x.contiguous(memory_format=torch.channels_last))
            module.zero_grad()
            cross_entropy(logits[:, task * CLASSES : (task + 1) * CLASSES], y - task * CLASSES).backward()
            optimizer.step()

        return optimizer, step

    return ready


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--steps", type=int, default=10, help="steps a turn")
    parser.add_argument("--turns", type=int, default=5, help="turns of each form at each task; the fastest counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = options.device

    def clock() -> float:
        if device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    forms = {"official": official, "clray, plain": clray(PlainTag), "clray": clray(Tag)}
    ready = {}
    for name, make in forms.items():
        torch.manual_seed(0)
        ready[name] = make(device, 20)
    rng = torch.Generator().manual_seed(0)

    def batch(task: int) -> tuple[Any, Any]:
        x = torch.rand(BATCH, 3, 32, 32, generator=rng).to(device)
        return x, (torch.randint(CLASSES, (BATCH,), generator=rng) + task * CLASSES).to(device)

    print(f"{'task':>4}  " + "  ".join(f"{name:>16}" for name in forms) + "  official / clray")
    done = 0
    for task in (1, 2, 10, 20):
        while done < task - 1:  # a few steps of each earlier task, so that its moments are not empty
            for optimizer, step in ready.values():
                for _ in range(2):
                    step(*batch(done), done)
                optimizer.end_task()
            done += 1
        best = dict.fromkeys(forms, math.inf)
        for _ in range(options.turns):
            for name, (_, step) in ready.items():
                batches = [batch(done) for _ in range(options.steps)]
                begun = clock()
                for x, y in batches:
                    step(x, y, done)
                best[name] = min(best[name], (clock() - begun) / options.steps)
        row = "  ".join(f"{best[name] * 1e3:13.1f} ms" for name in forms)
        print(f"{task:4}  {row}  {best['official'] / best['clray']:.2f}")


if __name__ == "__main__":
    main()
