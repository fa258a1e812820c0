"""docs/your_method.md: its methods run as they are printed there."""

from __future__ import annotations

import importlib.util
import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from clray import tracks
from clray.loading import load_sweep
from clray.selection import Selection
from clray.training import run

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "your_method.md"
BLOCKS = re.findall(r"^## (.+?)\n|^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S)


def block(title: str, number: int = 0) -> str:
    """The guide's code: block ``number`` below a heading."""
    place = [heading for heading, _ in BLOCKS].index(title)
    return [text for _, text in itertools.takewhile(lambda block: block[1], BLOCKS[place + 1 :])][number]


@pytest.fixture
def module(tmp_path, monkeypatch) -> Callable[[str, str], Any]:
    """``module(title, name)``: the code below a heading as a module of that name."""

    def imported(title: str, name: str) -> Any:
        file = tmp_path / "mine.py"
        file.write_text(block(title), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, file)
        found = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, found)
        spec.loader.exec_module(found)
        return found

    return imported


SWEEPS = {
    "One example at a time": ("mer/rotations", "STREAM_METHODS", "{method: mine, lr: 0.01}", ["benchmark.tasks=2"]),
    "Task by task": ("tag/rotated_mnist", "TASK_METHODS", "{method: mine, lr: 0.01}", []),
    "By episodes": ("metaseq2seq/mutual_exclusivity", "EPISODE_METHODS", "{method: mine}", []),
    "Language tasks": ("lamol/two_tasks_small", "METHODS", "{method: mine, lr: 0.001, epochs: 1}", []),
}
SMALL = {
    "One example at a time": ["benchmark.train_per_task=60", "benchmark.source=embedded"],
    "Task by task": ["benchmark.train_per_task=60", "benchmark.test_per_task=50", "benchmark.source=embedded"],
    "By episodes": ["variants.mine.episodes=3", "model.embedding=8"],
    "Language tasks": [],
}


@pytest.mark.parametrize("title", SWEEPS)
def test_a_method_of_the_guide_runs_and_goes_on_with_the_same_bits(title, tmp_path, monkeypatch, kernels, module):
    sweep, registry, variant, changes = SWEEPS[title]
    name = load_sweep(sweep).track
    package, side = importlib.import_module(f"clray.{name}.methods"), tracks.track(name)
    module(title, f"clray.{name}.methods.mine")
    for mapping in {registry, "METHODS"}:
        monkeypatch.setitem(getattr(package, mapping), "mine", "mine:Mine")
    text = (Path(__file__).resolve().parents[1] / "sweeps" / f"{sweep}.yaml").read_text(encoding="utf-8")
    path = tmp_path / "my-sweep.yaml"
    path.write_text(re.sub(r"(?m)^variants:.*\n", lambda line: f"{line[0]}  mine: {variant}\n", text))
    every = tuple(changes + SMALL[title])
    [cell, *_] = load_sweep(path, Selection(quick=True, only=("mine",), set=every)).cells
    data = side.data(cell.trial, False)

    def make() -> Any:
        return side.train(cell.trial, data, "cpu")

    measured = run(make())
    assert measured
    training, pieces = make(), []
    loop = sys.modules[type(training).__module__]
    monkeypatch.setattr(loop, "_STOP_AFTER", 0.0)
    for _ in range(10):
        if training.progress < 1:
            pieces += training.advance()
    monkeypatch.setattr(loop, "_STOP_AFTER", 10.0)
    resumed = make()
    resumed.load_state_dict(training.state_dict())
    assert pieces + run(resumed) == measured


def test_the_guides_memory_stays_on_the_cpu_while_images_lie_elsewhere(module):
    """On a GPU the batch's indices came from there, and the memory's went to it without being moved."""
    mine = module("Task by task", "clray.vision.methods.mine").Mine
    settings = mine.Settings(lr=0.1)
    asked: list[Any] = []
    stream = SimpleNamespace(label_classes=10, device=torch.device("meta"))
    stream.mixed_batch = lambda tasks, indices: (asked.append((tasks.device.type, indices.device.type)), None)
    learner = SimpleNamespace(stream=stream, parameters=[torch.nn.Parameter(torch.zeros(2))], plain=False)
    learner.randomness = SimpleNamespace(choice=lambda available, count: torch.arange(count))
    learner.forward = lambda x: x
    learner.mixed_loss = lambda logits, y, tasks: learner.parameters[0].sum()
    method = mine(settings, learner)
    with FakeTensorMode(allow_non_fake_inputs=True):
        method.add_gradients(SimpleNamespace(task=0, indices=torch.empty(5, dtype=torch.int64, device="cuda")))
    assert method.memory.indices.device.type == "cpu"
    method.memory.tasks, method.memory.indices = torch.zeros(5, dtype=torch.int64), torch.arange(5)
    method.add_gradients(SimpleNamespace(task=1, indices=torch.arange(2)))
    assert asked == [("meta", "meta")]


def test_tag_outside_clray():
    network = torch.nn.Linear(3, 2)
    before = network.weight.detach().clone()
    batches = [(torch.randn(4, 3), torch.tensor([0, 1, 1, 0])) for _ in range(2)]
    names = {"network": network, "tasks": [batches, batches], "epochs": 2, "loss": torch.nn.functional.cross_entropy}
    exec(block("Task by task", 1), names)
    assert names["optimizer"].tasks == 2
    assert not torch.equal(network.weight, before)
