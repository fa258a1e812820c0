"""What the methods share: a network in training, updated once an episode, and how its answers are scored."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from clray.episodes import fused, models
from clray.episodes.benchmarks import Benchmark, Drawn, Pairs
from clray.episodes.models import Dropout, Episode, Model, Network, Sequences
from clray.settings import TrialSettings

_AT_ONCE = 512
"""Queries that are answered together in a test."""


class UpdateSettings(TrialSettings):
    """How a network is trained: by Adam, one update an episode."""

    episodes: Annotated[int, Field(ge=1, le=1_000_000_000)] = 10_000
    lr: Annotated[float, Field(gt=0, le=1e30)] = 0.001
    decay_every: Annotated[int, Field(ge=1, le=1_000_000_000)] = 5_000
    """Episodes after which the rate is multiplied by ``decay``, again and again; Adam's moments then begin at zero, as
    in the official code, which makes its optimizers anew."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    clip: Annotated[float, Field(gt=0, le=1e30)] = 50.0
    """The largest norm of the encoder's gradient, and of the decoder's."""


class EpisodeMethod:
    """What a method decides: the network, and what of an episode it is asked."""

    Settings: ClassVar[type[UpdateSettings]]
    memory: bool
    """Whether its network reads the support set."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def network(self, commands: int, actions: int, model: Model) -> Network:
        """The network for so many symbols."""
        raise NotImplementedError

    def asked(self, drawn: Drawn, benchmark: Benchmark) -> Pairs:
        """The pairs that the network must answer in training and validation."""
        raise NotImplementedError


def as_episode(support: Pairs | None, query: Pairs, benchmark: Benchmark, device: str, steps: int = 0) -> Episode:
    """What a network takes; ``steps``: see ``Episode``, by default those of the longest query."""

    def both(pairs: Pairs) -> tuple[Sequences, Sequences]:
        return (
            Sequences(pairs.commands, pairs.command_lengths, device),
            Sequences(pairs.actions, pairs.action_lengths, device),
        )

    asked = both(query)
    shown = both(support) if support is not None else None
    return Episode(shown, *asked, benchmark.actions.sos, steps or query.commands.shape[1])


class Learner:
    """A network and its optimizer.

    Args:
        form: ``fused``, or ``eager`` for the one that is obviously right.
        dropout: draws the masks.
    """

    def __init__(self, network: Network, settings: UpdateSettings, form: str, dropout: Dropout) -> None:
        self.network, self.settings, self.dropout = network, settings, dropout
        self.form: Any = fused if form == "fused" else models
        self.parameters = [list(part.parameters()) for part in (network.encoder, network.decoder)]
        self.episodes = 0
        """Updates made."""
        self.optimizer = self._fresh_optimizer()

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        rate = self.settings.lr * self.settings.decay ** (self.episodes // self.settings.decay_every)
        every = [parameter for part in self.parameters for parameter in part]
        return torch.optim.Adam(every, lr=rate, fused=self.form is fused, foreach=False)

    def observe(self, episode: Episode) -> float:
        """Learn from an episode: one update.

        Returns:
            The loss before it.
        """
        loss = self.form.loss(self.network, episode, self.dropout)
        loss.backward()
        for part in self.parameters:
            self._clip(part)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.episodes += 1
        if self.episodes % self.settings.decay_every == 0:
            self.optimizer = self._fresh_optimizer()
        return float(loss.detach())

    def _clip(self, parameters: list[torch.nn.Parameter]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if norm > self.settings.clip:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.settings.clip, norm)

    def scores(self, drawn: Drawn, asked: Pairs, benchmark: Benchmark, memory: bool) -> tuple[float, float]:
        """The fractions answered exactly: of queries that the support set shows, and of all others. NaN for none.

        A query is shown where its command is among the support set's, whatever is asked of it. Contexts are padded as
        if all queries were answered at once.
        """
        device, right = str(next(self.network.parameters()).device), []
        support = drawn.support if memory else None
        for begin in range(0, len(asked), _AT_ONCE):
            part = asked.take(np.arange(begin, min(begin + _AT_ONCE, len(asked))))
            episode = as_episode(support, part, benchmark, device, steps=asked.commands.shape[1])
            right.append(self.form.right(self.network, episode, benchmark.actions.eos))
        shown = in_support(drawn, asked)
        answered = np.concatenate(right)
        return _mean(answered[shown]), _mean(answered[~shown])

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "episodes": self.episodes,
            "dropout": self.dropout.rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.episodes = state["episodes"]
        self.optimizer = self._fresh_optimizer()
        self.optimizer.load_state_dict(state["optimizer"])
        self.dropout.rng.bit_generator.state = state["dropout"]


def in_support(drawn: Drawn, asked: Pairs) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """[n] whether a query's command is among those of the support set."""
    if drawn.support is None:
        return np.zeros(len(asked), bool)
    shown = set(_rows(drawn.support))
    return np.array([row in shown for row in _rows(asked)])


def _rows(pairs: Pairs) -> list[tuple[int, ...]]:
    rows = zip(pairs.commands.tolist(), pairs.command_lengths, strict=True)
    return [tuple(row[:length]) for row, length in rows]


def _mean(right: np.ndarray[Any, Any]) -> float:
    return float(np.mean(right)) if len(right) else float("nan")
