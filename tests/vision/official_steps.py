"""The recorded steps of official codes on a small class-incremental stream, and a way to take them again.

``tests/fixtures/online`` holds, for each case, what one run of the official code drew, and what it had after its steps:
the memory after each, the parameters after some, accuracies after each task. ``play`` gives a method of clray the same
images, weights and draws, and compares all of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clray.vision.learners.incremental import IncrementalLearner
from clray.vision.methods import METHODS
from clray.vision.networks.base import Network
from clray.vision.networks.layers import BodyAndHead
from clray.vision.networks.small_cnn import SmallCnn
from clray.vision.stream import Batch, Images, Stream, from_members

FOLDER = Path(__file__).parents[1] / "fixtures" / "online"
BATCH = 10


def case(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The description and the arrays of a case."""
    described = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return described, dict(arrays)


def stream_of(labels: str, **changes: Any) -> Stream:
    """The stream of all cases: five experiences of two classes with 20 images of 8 x 8 pixels each.

    Args:
        labels: ``y``, the classes' numbers in a shuffled order, or ``y_contig``, in the order in which they arrive.
    """
    with np.load(FOLDER / "stream.npz") as arrays:
        arrays = dict(arrays)

    def images(part: str) -> Images:
        pixels = torch.from_numpy(arrays[f"x{part}"]).permute(0, 3, 1, 2).contiguous()
        return Images(pixels, torch.from_numpy(arrays[labels.replace("y", f"y{part}", 1)].astype(np.int64)))

    def members(owner: np.ndarray) -> list[np.ndarray]:
        return [np.flatnonzero(owner == e) for e in range(5)]

    own = [(2 * e, 2 * e + 2) for e in range(5)]
    return from_members(
        images(""), images("_test"), members(arrays["exp"]), members(arrays["exp_test"]), own, [0] * 5,
        outputs=10, scale=lambda pixels: pixels.to(torch.float32) / 255, shuffles=False, **changes,
    )  # fmt: skip


class Recorded:
    """The draws that the official code made, in place of a trial's own; each must be asked for as it was there."""

    def __init__(self) -> None:
        self.replay: list[list[int]] = []
        self.reservoir: list[dict[str, Any]] = []
        self.review: list[int] = []
        """The slots of the memories in the order in which they are reviewed at the end of a task."""

    def of(self, step: dict[str, Any]) -> None:
        """Go on to the draws of the next step."""
        assert not self.replay, "a draw of the step before was not asked for"
        self.replay, self.reservoir = [drawn for drawn in step["replay"] if drawn], list(step["reservoir"])

    def without_replacement(self, filled: int, count: int) -> np.ndarray:
        drawn = np.array(self.replay.pop(0))
        assert len(drawn) == count
        assert drawn.max() < filled
        return drawn

    def below(self, highest: int, count: int) -> np.ndarray:
        drawn = self.reservoir[-1]  # some codes also draw for the examples that find a free place
        assert drawn["high"] == highest
        return np.floor(drawn["u"][-count:]).astype(np.int64)

    def below_each(self, highest: np.ndarray) -> np.ndarray:
        drawn = [self.reservoir.pop(0) for _ in highest]
        assert [each["high"] for each in drawn] == highest.tolist()
        return np.array([each["j"] for each in drawn])

    def permutation(self, count: int) -> np.ndarray:
        rest = sorted(set(range(count)) - set(self.review))  # of a last batch that is not full
        return np.array(self.review + rest)

    def order(self, name: str, count: int, shuffled: bool) -> np.ndarray:
        assert not shuffled
        return np.arange(count)

    def weights(self) -> Any:
        return nullcontext()

    def evaluation(self) -> None:
        pass


class Mlp(Network):
    def build(self, shape: Any, outputs: int) -> Any:
        return BodyAndHead(nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.ReLU()), nn.Linear(32, outputs))


NETWORKS: dict[str, Network] = {
    "mlp": Mlp(),
    "conv": SmallCnn(name="small-cnn", filters=[8, 16]),
    "convbn": SmallCnn(name="small-cnn", filters=[8, 16], norm=True),
}


def parts(module: nn.Module) -> list[torch.Tensor]:
    """The parameters and the running statistics of a module, layer by layer."""
    return [tensor for name, tensor in module.state_dict().items() if not name.endswith("num_batches_tracked")]


def recorded_parts(arrays: dict[str, np.ndarray], moment: str) -> Iterator[np.ndarray]:
    """The same of the official module; its file has them in the module's order."""
    for name, value in arrays.items():
        if name.startswith(f"{moment}/") and not name.endswith("num_batches_tracked"):
            yield value


def learner_of(network: str, labels: str, draws: Any, **changes: Any) -> IncrementalLearner:
    return IncrementalLearner(NETWORKS[network], stream_of(labels, **changes), draws)


Observer = Callable[[Any, dict[str, Any], int], None]


def play(
    name: str,
    method: str,
    settings: dict[str, Any],
    prepare: Callable[[Any], None] = lambda method: None,
    after: Observer = lambda method, step, number: None,
    draws: Recorded | None = None,
    hidden: bool = False,
    first_step: int = 1,
    double: bool = False,
) -> Any:
    """Take the steps of a case with a method, and compare parameters, memory and accuracies with the recorded ones.

    Args:
        name: of the case.
        method: a key of ``METHODS``.
        settings: those that the case's description does not give.
        prepare: is called with the method before the first step.
        after: is called with the method, the recorded step and its number after each step.
        draws: the recorded draws, where the case has further kinds of them.
        hidden: do not tell the method which experience a batch belongs to.
        first_step: the number of the batch on which the official code takes its first step of the optimizer.
        double: compute in float64, for a case in which a step in float32 depends on how its sums are rounded.
    """
    described, arrays = case(name)
    meta, draws = described["meta"], draws or Recorded()
    network = meta["net"].split()[0].removesuffix(",")
    labels = meta["labels"].split()[0]
    learner = learner_of(network, labels, draws)
    if double:
        learner.module.double()
        learner.stream = replace(learner.stream, scale=lambda pixels: pixels.to(torch.float64) / 255)
    given = {"lr": meta["lr"], "memories": meta["mem_size"]}
    kind = METHODS[method]
    made: Any = kind(kind.Settings(**given | settings), learner)
    own = parts(learner.module)
    official = list(recorded_parts(arrays, "init"))
    assert [tuple(p.shape) for p in own] == [p.shape for p in official]
    with torch.no_grad():
        for mine, theirs in zip(own, official, strict=True):
            mine.copy_(torch.from_numpy(theirs))
    prepare(made)
    experience, accuracies = 0, []
    steps = [step for step in described["steps"] if step.get("batch")]
    at_ends = {step["exp"]: step for step in described["steps"] if step.get("end_task")}
    reviewed = [step for step in described["steps"] if step.get("review")]
    reviews = {step["exp"]: [slot for batch in step["review_slots"] for slot in batch] for step in reviewed}
    for number, step in enumerate(steps, start=1):
        if not hidden and (number == 1 or steps[number - 2].get("exp") != step.get("exp")):
            made.begin(experience)
        draws.of(step)
        made.observe(Batch(learner.stream, np.array(step["batch"]), None if hidden else step["exp"]))
        remembers(made, step, number)
        taken = number - first_step + 1
        if f"step{taken}/" in {key[: len(f"step{taken}/")] for key in arrays}:
            same(learner.module, arrays, f"step{taken}")
        after(made, step, number)
        if number == len(steps) or steps[number].get("exp", experience) != experience:
            if not hidden:
                if experience in at_ends:
                    draws.of(at_ends[experience])
                draws.review = reviews.get(experience, [])
                made.end(experience)
                remembers(made, at_ends.get(experience, {}), number)
                if experience in reviews:
                    same(learner.module, arrays, f"after_review{experience}")
            accuracies.append([made.counts(e)["accuracy"] / 20 for e in range(5)])
            experience += 1
    same(learner.module, arrays, "end")
    if any(described.get("acc_matrix", [])):
        assert np.allclose(accuracies, np.array(described["acc_matrix"])[:, :5], atol=1e-9)
    return made


def remembers(made: Any, step: dict[str, Any], number: int) -> None:
    """Check that a method's memory holds what the official code's held after a step."""
    if "memory" in step and hasattr(made, "memory"):
        assert made.memory.numbers.tolist() == [slot for slot in step["memory"] if slot >= 0], number


def same(module: nn.Module, arrays: dict[str, np.ndarray], moment: str) -> None:
    """Check that a module has the recorded parameters, to 1e-5."""
    for mine, theirs in zip(parts(module), recorded_parts(arrays, moment), strict=True):
        assert mine.detach().numpy() == pytest.approx(theirs, abs=1e-5), moment
