"""Trials that take seconds, and the official code's figures for its networks (tests/fixtures/metaseq2seq)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clray.episodes import export
from clray.episodes.models import Model
from clray.episodes.networks import Episode, Network, Sequences
from clray.episodes.training import data, resolve, train
from clray.trial import Trial

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "metaseq2seq"


@cache
def references() -> dict[str, Any]:
    return json.loads((FOLDER / "fixtures.json").read_text())


@dataclass
class Reference:
    """One file of figures: a network, an episode, and what the official code made of them."""

    name: str

    def __post_init__(self) -> None:
        self.told = references()["files"][self.name]
        self.language = references()["lang"][self.told["kind"]]
        self.arrays = np.load(FOLDER / f"{self.name}.npz")

    def network(self) -> Network:
        """With the weights that the official code began with."""
        sizes = len(self.language["in"]), len(self.language["out"])
        model = Model(embedding=self.told["emb"], layers=self.told["nlayers"], dropout=0.0)
        network = Network(*sizes, model, self.told["memory"], self.told["attention"])
        export.load_official(network, *(self.weights(part) for part in ("enc", "dec")))
        return network

    def weights(self, part: str) -> dict[str, torch.Tensor]:
        found = {}
        for k, (name, shape) in enumerate(self.told[f"params_{part}"].items()):
            drawn = np.random.RandomState(1000 + k).normal(0, self.told["scale"], int(np.prod(shape)))
            found[name] = torch.from_numpy(drawn.astype(np.float32).reshape(shape))
            if (stored := f"state.{part}.{name}") in self.arrays:
                assert (found[name].numpy() == self.arrays[stored]).all()
        return found

    def parameters(self, network: Network) -> dict[str, torch.nn.Parameter]:
        """By their official names, ``enc.`` and ``dec.`` before them."""
        found = {}
        for part, module in (("enc", network.encoder), ("dec", network.decoder)):
            own = list(module.parameters())
            for name, parameter in zip(self.told[f"params_{part}"], own, strict=True):
                assert list(parameter.shape) == self.told[f"params_{part}"][name]
                found[f"{part}.{name}"] = parameter
        return found

    def episode(self) -> Episode:
        def rows(name: str) -> Sequences:
            return Sequences(self.arrays[f"ep.{name}_padded"], self.arrays[f"ep.{name}_lengths"])

        support = (rows("xs"), rows("ys")) if self.told["memory"] else None
        query = rows("xq")
        return Episode(support, query, rows("yq"), self.language["out"]["SOS"], query.tokens.shape[1])

    def words(self, row: list[int]) -> list[str]:
        """The symbols of a row up to its end."""
        names = {number: name for name, number in self.language["out"].items()}
        end = self.language["out"]["EOS"]
        return [names[number] for number in (row[: row.index(end)] if end in row else row)]


def make_trial(
    benchmark: str = "mutual_exclusivity",
    method: str = "meta_seq2seq",
    *,
    seed: int = 0,
    engine: str = "auto",
    evaluate: Any = "after_task",
    model: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    **hyperparameters: Any,
) -> Trial:
    """A trial of three episodes on tiny networks, unless other settings say otherwise."""
    declared = {
        "benchmark": {"name": benchmark, **(settings or {})},
        "model": {"embedding": 8, **(model or {})},
        "method": method,
        "hyperparameters": {"episodes": 3, **hyperparameters},
    }
    fixed = {"randomness": "clray", "precision": "float32", "task_order": None, "version": 1, "track": "episodes"}
    return Trial(**fixed, seed=seed, engine=engine, evaluate=evaluate, **resolve(declared))


def begin(trial: Trial) -> Any:
    return train(trial, data(trial, fetch=False), "cpu")
