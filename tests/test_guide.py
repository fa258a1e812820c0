"""The code in docs/your_method.md runs as it is printed there."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clray import tracks
from clray.loading import load_sweep
from clray.registry import Registry
from clray.selection import Selection
from clray.training import run
from clray.vision.benchmarks import BENCHMARKS
from clray.vision.datasets.published import ImageSet
from clray.vision.draws import ClrayDraws
from clray.vision.methods import METHODS
from clray.vision.networks import NETWORKS

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "your_method.md"
TAG = GUIDE.parent / "papers" / "tag.md"


def blocks(page: Path) -> list[tuple[str, str]]:
    """The headings and the code of a page in their order, each with the other one empty."""
    return re.findall(r"^## (.+?)\n|^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def block(title: str, page: Path = GUIDE) -> str:
    """The first code below a heading."""
    found = blocks(page)
    place = [heading for heading, _ in found].index(title)
    return found[place + 1][1]


@pytest.fixture
def add(tmp_path, monkeypatch, kernels) -> Callable[..., Any]:
    """``add(package, title, lists)``: the code below a heading as the module ``mine`` of a package, with its line."""

    def added(package: str, title: str, *lists: Any) -> Any:
        file = tmp_path / f"{title}.py"
        file.write_text(block(title), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(f"{package}.mine", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, f"{package}.mine", module)
        spec.loader.exec_module(module)
        for each in lists:
            within = package.removeprefix(f"{each.package}.") if isinstance(each, Registry) else package
            target = f"{within}.mine:Mine" if within != package else "mine:Mine"
            monkeypatch.setitem(each.targets if isinstance(each, Registry) else each, "mine", target)
        return module.Mine

    return added


def check(tmp_path, monkeypatch, sweep: str, variant: str, small: tuple[str, ...]) -> None:
    """A sweep with such a variant runs, and goes on from a checkpoint with the same bits."""
    side = tracks.track(load_sweep(sweep).track)
    text = (GUIDE.parents[1] / "sweeps" / f"{sweep}.yaml").read_text(encoding="utf-8")
    path = tmp_path / "my-sweep.yaml"
    path.write_text(re.sub(r"(?m)^variants:.*\n", lambda line: f"{line[0]}  mine: {variant}\n", text))
    [cell, *_] = load_sweep(path, Selection(quick=True, only=("mine",), set=small)).cells
    data = side.data(cell.trial, False)

    def make() -> Any:
        return side.train(cell.trial, data, "cpu")

    measured = run(make())
    assert measured
    assert all(np.isfinite(m.value) for m in measured)
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


SMALL = ("benchmark.train_per_task=60", "benchmark.source=embedded")
ROTATED = ("tag/rotated_mnist", (*SMALL, "benchmark.test_per_task=50"))


def test_a_method_on_images(add, tmp_path, monkeypatch):
    add("clray.vision.methods", "A method on images", METHODS)
    check(tmp_path, monkeypatch, ROTATED[0], "{method: mine, lr: 0.01}", ROTATED[1])


def test_a_method_of_class_incremental_streams(add, tmp_path, monkeypatch):
    add("clray.vision.methods.incremental", "Class by class", METHODS)
    small = ("benchmark.train_per_class=30", "benchmark.test_per_class=20", "benchmark.source=embedded")
    check(tmp_path, monkeypatch, "online/mnist", "{method: mine, lr: 0.01, memories: 20}", small)


def test_a_method_of_single_examples(add, tmp_path, monkeypatch):
    add("clray.vision.methods", "One example at a time", METHODS)
    check(tmp_path, monkeypatch, "mer/rotations", "{method: mine, lr: 0.01}", (*SMALL, "benchmark.tasks=2"))


def test_a_network(add, tmp_path, monkeypatch):
    add("clray.vision.networks", "A network", NETWORKS)
    check(tmp_path, monkeypatch, ROTATED[0], "{method: naive, lr: 0.01}", (*ROTATED[1], "model={name: mine}"))


def test_a_benchmark(add):
    mine = add("clray.vision.benchmarks", "A benchmark", BENCHMARKS)
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (40, 3, 4, 4), np.uint8), np.arange(40) % 10
    stream = mine(name="mine").stream({"cifar10": ImageSet(pixels, labels, pixels, labels)}, ClrayDraws(0), None)
    assert [sorted(set(stream.examples(e.examples)[1].tolist())) for e in stream.experiences] == [
        [0, 1], [2, 3], [4, 5], [6, 7], [8, 9]
    ]  # fmt: skip


def test_a_method_on_language(add, tmp_path, monkeypatch):
    package = importlib.import_module("clray.language.methods")
    add(package.__name__, "Episodes and language", package.METHODS)
    check(tmp_path, monkeypatch, "lamol/two_tasks_small", "{method: mine, lr: 0.001, epochs: 1}", ())


def test_every_example_is_run():
    """One below each heading: those that are tested here."""
    headings = [title for title, _ in blocks(GUIDE) if title]
    assert headings == [
        "A method on images",
        "Class by class",
        "One example at a time",
        "A network",
        "A benchmark",
        "Episodes and language",
    ]
    assert len([code for _, code in blocks(GUIDE) if code]) == len(headings)


def test_tag_outside_clray():
    network = torch.nn.Linear(3, 2)
    before = network.weight.detach().clone()
    batches = [(torch.randn(4, 3), torch.tensor([0, 1, 1, 0])) for _ in range(2)]
    names = {"network": network, "tasks": [batches, batches], "epochs": 2, "loss": torch.nn.functional.cross_entropy}
    exec(block("TAG outside clray", TAG), names)
    assert names["optimizer"].tasks == 2
    assert not torch.equal(network.weight, before)
