"""Compares steps of experience replay (10 + 10 images) in three ways of doing the work: python bench/online_step.py

All three train the same network on the same stream of random images in turns, so that other load on the machine slows
them alike; a step includes fetching the batch, drawing from the memory and updating it. Two of the ways are written
here after the public descriptions of other systems, without their code:

- ``mammoth``: a data loader turns each PIL image of a batch into a tensor and normalises it, and does the same without
  normalising, because the memory keeps images as they are; the memory is a tensor on the device, each replayed image is
  normalised by itself, and Algorithm R offers the batch to it image by image; one pass over the concatenated batch.
- ``avalanche``: data sets of indices into the images; a data loader for the stream and one for the memory fetch and
  convert one example at a time, each with its task label, and their mini-batches are put together; after the batch a
  reservoir of random weights, sorted, chooses what stays. One pass over both.
- ``clray``: the product's own loop, ``ocl_er`` with ``passes: joint``.

Numbers are images of the stream a CPU second of one thread. ``--model mlp`` takes a small network, where what surrounds
it matters most; ``--augmentation`` adds random crops and flips to all three. All three keep freed memory for further
use, as clray's trials do. ``--memory`` compares clray with itself where glibc gives large blocks back to the system.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import cross_entropy
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from clray.machine import keep_freed_memory  # noqa: E402
from clray.vision.benchmarks.class_incremental import CHANNELS  # noqa: E402
from clray.vision.draws import ClrayDraws  # noqa: E402
from clray.vision.learners.incremental import IncrementalLearner  # noqa: E402
from clray.vision.methods.incremental.er import Er  # noqa: E402
from clray.vision.networks.base import Network  # noqa: E402
from clray.vision.networks.mlp import Mlp  # noqa: E402
from clray.vision.networks.slim_resnet18 import SlimResNet18  # noqa: E402
from clray.vision.plan import Plan  # noqa: E402
from clray.vision.stream import from_members, images, unit  # noqa: E402

GIVES_BACK = "clray, gives back"
IMAGES, MEMORIES, BATCH, CLASSES, LR = 4000, 500, 10, 10, 0.05
MEAN, STD = (np.array(values, np.float32).reshape(3, 1, 1) for values in CHANNELS["mammoth"]["cifar10"])


def tensor(image: Any) -> torch.Tensor:
    """A PIL image as a tensor [3, H, W] in [0, 1]."""
    return torch.from_numpy(np.asarray(image, np.float32).transpose(2, 0, 1) / 255)


def normalised(x: torch.Tensor) -> torch.Tensor:
    return (x - torch.from_numpy(MEAN)) / torch.from_numpy(STD)


def cropped(image: Any) -> Any:
    """A random crop after padding by 4 and a random flip of a PIL image."""
    padded = Image.new("RGB", (40, 40))
    padded.paste(image, (4, 4))
    left, upper = (int(n) for n in torch.randint(0, 9, (2,)))
    part = padded.crop((left, upper, left + 32, upper + 32))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(1) < 0.5 else part


class Examples(Dataset[Any]):
    """Images that are decoded and changed one at a time."""

    def __init__(self, pixels: Any, labels: Any, augment: bool, both: bool) -> None:
        self.pixels, self.labels, self.augment, self.both = pixels, labels, augment, both

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Any:
        image = Image.fromarray(self.pixels[i])
        x = normalised(tensor(cropped(image) if self.augment else image))
        return (x, int(self.labels[i]), tensor(image)) if self.both else (x, int(self.labels[i]), 0)


def network(name: str) -> Network:
    return Mlp(name="mlp", hidden=[400, 400]) if name == "mlp" else SlimResNet18(name="slim-resnet18")


def mammoth(pixels: Any, labels: Any, model: str, augment: bool) -> Iterator[None]:
    module: Any = network(model).build((3, 32, 32), CLASSES).train()  # type: ignore[attr-defined]
    optimizer = torch.optim.SGD(module.parameters(), LR)
    kept, kept_labels, seen = torch.zeros(MEMORIES, 3, 32, 32), torch.zeros(MEMORIES, dtype=torch.int64), 0
    while True:
        for x, y, plain in DataLoader(Examples(pixels, labels, augment, True), BATCH, shuffle=True):
            optimizer.zero_grad()
            inputs, targets = x, y
            if seen:
                chosen = np.random.choice(min(seen, MEMORIES), min(BATCH, seen), replace=False)
                replayed = [kept[i] for i in chosen]
                if augment:
                    replayed = [shifted(image) for image in replayed]
                inputs = torch.cat([x, torch.stack([normalised(image) for image in replayed])])
                targets = torch.cat([y, kept_labels[chosen]])
            loss = cross_entropy(module(inputs), targets)
            loss.backward()
            optimizer.step()
            for image, label in zip(plain, y, strict=True):
                slot = seen if seen < MEMORIES else np.random.randint(0, seen + 1)
                seen += 1
                if slot < MEMORIES:
                    kept[slot], kept_labels[slot] = image, label
            loss.item()
            yield


def shifted(image: torch.Tensor) -> torch.Tensor:
    """The same changes of one tensor."""
    padded = torch.nn.functional.pad(image, (4, 4, 4, 4))
    left, upper = (int(n) for n in torch.randint(0, 9, (2,)))
    part = padded[:, upper : upper + 32, left : left + 32]
    return part.flip(2) if torch.rand(1) < 0.5 else part


def avalanche(pixels: Any, labels: Any, model: str, augment: bool) -> Iterator[None]:
    module: Any = network(model).build((3, 32, 32), CLASSES).train()  # type: ignore[attr-defined]
    optimizer = torch.optim.SGD(module.parameters(), LR)
    whole = Examples(pixels, labels, augment, False)
    weights, members = torch.empty(0), np.empty(0, np.int64)
    while True:
        order = np.random.permutation(len(whole))
        for begin in range(0, len(order), BATCH):
            own = order[begin : begin + BATCH]
            parts = [next(iter(DataLoader(Subset(whole, own.tolist()), BATCH)))]
            if len(members):
                memory: Dataset[Any] = ConcatDataset([Subset(whole, members.tolist())])
                parts.append(next(iter(DataLoader(memory, BATCH, shuffle=True))))
            x, y, _ = (torch.cat(columns) for columns in zip(*parts, strict=True))
            optimizer.zero_grad()
            loss = cross_entropy(module(x), y)
            loss.backward()
            optimizer.step()
            loss.item()
            weights = torch.cat([weights, torch.rand(len(own))])
            members = np.concatenate([members, own])
            kept = weights.argsort(descending=True)[:MEMORIES]
            weights, members = weights[kept], members[kept.numpy()]
            yield


def clray(pixels: Any, labels: Any, model: str, augment: bool) -> Iterator[None]:
    content = images(pixels.transpose(0, 3, 1, 2).copy(), labels, (3, 32, 32))
    everything = np.arange(len(labels))
    stream = from_members(
        content, content, [everything], [everything], [(0, CLASSES)], [0], outputs=CLASSES, scale=unit
    )
    draws = ClrayDraws(0)
    learner = IncrementalLearner(network(model), stream, draws, *CHANNELS["mammoth"]["cifar10"])
    settings = Er.Settings(
        lr=LR, memories=MEMORIES, passes="joint", reservoir="exact", augmentation="crop-flip" if augment else "none"
    )
    method = Er(settings, learner)
    plan = Plan(stream, [0], 1_000_000, BATCH, draws, method.begin)
    while batch := plan.next():
        method.observe(batch)
        yield


def give_memory_back() -> None:
    """Set glibc's thresholds as it begins with them."""
    for option, size in ((-3, 128 * 1024), (-1, 128 * 1024)):
        ctypes.CDLL(None).mallopt(option, size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("slim-resnet18", "mlp"), default="slim-resnet18")
    parser.add_argument("--augmentation", action="store_true", help="random crops and flips")
    parser.add_argument("--steps", type=int, default=20, help="steps a turn")
    parser.add_argument("--turns", type=int, default=5, help="turns of each way; the fastest counts")
    parser.add_argument("--memory", action="store_true", help="compare clray with itself where it gives memory back")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (IMAGES, 32, 32, 3), np.uint8), rng.integers(0, CLASSES, IMAGES)
    ways: dict[str, Callable[..., Iterator[None]]] = {"mammoth": mammoth, "avalanche": avalanche, "clray": clray}
    if options.memory:
        ways = {GIVES_BACK: clray, "clray": clray}
    ready = {name: way(pixels, labels, options.model, options.augmentation) for name, way in ways.items()}
    for way in ready.values():
        for _ in range(2 * MEMORIES // BATCH if options.model == "mlp" else 3):  # the memory is full, kernels are made
            next(way)
    best = dict.fromkeys(ways, math.inf)
    for _ in range(options.turns):
        for name, way in ready.items():
            give_memory_back() if name == GIVES_BACK else keep_freed_memory()
            begun = time.process_time()
            for _ in range(options.steps):
                next(way)
            best[name] = min(best[name], (time.process_time() - begun) / options.steps)
    print(f"{options.model}, {'random crops and flips' if options.augmentation else 'no augmentation'}")
    for name, seconds in best.items():
        ratio = "" if name == "clray" else f", clray is {seconds / best['clray']:.2f} times as fast"
        print(f"  {name:18} {seconds * 1e3:8.2f} ms a step, {BATCH / seconds:8.0f} images a second{ratio}")


if __name__ == "__main__":
    main()
