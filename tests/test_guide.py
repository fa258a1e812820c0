"""The code in docs/your_method.md runs as it is printed there, from a folder of the user's own."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from clray.testing import measurements
from clray.vision.benchmarks import BENCHMARKS
from clray.vision.datasets.published import ImageSet
from clray.vision.draws import ClrayDraws

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "your_method.md"
TAG = GUIDE.parent / "papers" / "tag.md"
SMALL = ("benchmark.train_per_task=60", "benchmark.source=embedded", "benchmark.test_per_task=50")


def blocks(page: Path) -> list[tuple[str, str]]:
    """The headings and the code of a page in their order, each with the other one empty."""
    return re.findall(r"^## (.+?)\n|^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def block(title: str, page: Path = GUIDE) -> str:
    """The first code below a heading."""
    found = blocks(page)
    place = [heading for heading, _ in found].index(title)
    return next(code for _, code in found[place + 1 :] if code)


@pytest.fixture
def written(tmp_path, monkeypatch, kernels) -> Path:
    """The present folder, in which ``my-method`` is for the code."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-method").mkdir()
    return tmp_path / "my-method"


def check(folder: Path, title: str, sweep: str, variant: str, *changes: str) -> None:
    """A sweep that has such a variant runs, and continues with the same bits.

    Args:
        title: the heading above the code.
        sweep: one that ships with clray.
        variant: the settings of the variant ``mine``, in YAML.
    """
    (folder / "mine.py").write_text(block(title), encoding="utf-8")
    text = (GUIDE.parents[1] / "sweeps" / f"{sweep}.yaml").read_text(encoding="utf-8")
    path = folder / "sweep.yaml"
    path.write_text(re.sub(r"(?m)^variants:.*\n", lambda line: f"{line[0]}  mine: {variant}\n", text))
    measured = measurements(path, "mine", *changes)
    assert measured
    assert all(np.isfinite(m.value) for m in measured)
    assert measurements(path, "mine", *changes, stops=True) == measured


def test_a_method_on_images(written):
    check(written, "A method on images", "tag/rotated_mnist", "{method: './mine.py:Mine', lr: 0.01}", *SMALL)


def test_a_method_of_class_incremental_streams(written):
    small = ("benchmark.train_per_class=30", "benchmark.test_per_class=20", "benchmark.source=embedded")
    mine = "{method: './mine.py:Mine', lr: 0.01, memories: 20}"
    check(written, "Class by class", "online/mnist", mine, *small)


def test_a_method_of_single_examples(written):
    mine = "{method: './mine.py:Mine', lr: 0.01}"
    check(written, "One example at a time", "mer/rotations", mine, *SMALL[:2], "benchmark.tasks=2")


def test_a_network(written):
    model = "model={name: './my-method/mine.py:Mine', width: 16}"
    check(written, "A network", "tag/rotated_mnist", "{method: naive, lr: 0.01}", *SMALL, model)


def test_a_method_on_language(written):
    mine = "{method: './mine.py:Mine', lr: 0.001, epochs: 1}"
    check(written, "Episodes and language", "lamol/two_tasks_small", mine)


def test_a_benchmark(written):
    from clray import own_code

    (written / "mine.py").write_text(block("A benchmark"), encoding="utf-8")
    mine = BENCHMARKS[own_code.declared("./mine.py:Mine", written)]
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (40, 3, 4, 4), np.uint8), np.arange(40) % 10
    stream = mine(name="mine").stream({"cifar10": ImageSet(pixels, labels, pixels, labels)}, ClrayDraws(0), None)
    assert [sorted(set(stream.examples(e.examples)[1].tolist())) for e in stream.experiences] == [
        [0, 1], [2, 3], [4, 5], [6, 7], [8, 9]
    ]  # fmt: skip


def test_every_example_is_run():
    """One below each of these headings: those that are tested here."""
    found, with_code = "", []
    for title, code in blocks(GUIDE):
        found = title or found
        with_code += [found] if code else []
    assert with_code == [
        "A method on images",
        "Class by class",
        "One example at a time",
        "A network",
        "A benchmark",
        "Episodes and language",
    ]


def test_tag_outside_clray():
    network = torch.nn.Linear(3, 2)
    before = network.weight.detach().clone()
    batches = [(torch.randn(4, 3), torch.tensor([0, 1, 1, 0])) for _ in range(2)]
    names = {"network": network, "tasks": [batches, batches], "epochs": 2, "loss": torch.nn.functional.cross_entropy}
    exec(block("TAG outside clray", TAG), names)
    assert names["optimizer"].tasks == 2
    assert not torch.equal(network.weight, before)
