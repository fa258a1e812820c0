"""The parts that methods share: a network in training with one update for each episode, and the method's interface."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field

from clray.episodes import fused, models
from clray.episodes.benchmarks import Benchmark, Drawn, Pairs
from clray.episodes.models import Dropout, Episode, Model, Network, Sequences
from clray.settings import TrialSettings


class UpdateSettings(TrialSettings):
    """The settings of training with Adam, one update for each episode."""

    episodes: Annotated[int, Field(ge=1, le=1_000_000_000)] = 10_000
    lr: Annotated[float, Field(gt=0, le=1e30)] = 0.001
    decay_every: Annotated[int, Field(ge=1, le=1_000_000_000)] = 5_000
    """After every so many episodes the rate is multiplied by ``decay``. Adam's moments then restart at zero, as in the
    official code, which makes new optimizers."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    clip: Annotated[float, Field(gt=0, le=1e30)] = 50.0
    """The largest norm of the encoder's gradient, and of the decoder's."""


class EpisodeMethod:
    """The interface of a method: it chooses the network, and the pairs of an episode that the network must answer."""

    Settings: ClassVar[type[UpdateSettings]]
    memory: bool
    """True where its network reads the support set."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def network(self, commands: int, actions: int, model: Model) -> Network:
        """Make the network for vocabularies of these sizes."""
        raise NotImplementedError

    def asked(self, drawn: Drawn, benchmark: Benchmark) -> Pairs:
        """The pairs that the network must answer in training and validation."""
        raise NotImplementedError


def as_episode(support: Pairs | None, query: Pairs, benchmark: Benchmark, device: str, steps: int = 0) -> Episode:
    """Turn pairs into the input of a network.

    Args:
        steps: see ``Episode``; 0 for the steps of the longest query.
    """

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
        form: ``fused``, or ``eager`` for the plain form that the other is compared with.
        dropout: draws the dropout masks.
    """

    def __init__(self, network: Network, settings: UpdateSettings, form: str, dropout: Dropout) -> None:
        self.network, self.settings, self.dropout = network, settings, dropout
        self.form: Any = fused if form == "fused" else models
        self.parameters = [list(part.parameters()) for part in (network.encoder, network.decoder)]
        self.episodes = 0
        """The number of updates made, one for each episode."""
        self.optimizer = self._fresh_optimizer()

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        rate = self.settings.lr * self.settings.decay ** (self.episodes // self.settings.decay_every)
        parameters = [parameter for part in self.parameters for parameter in part]
        return torch.optim.Adam(parameters, lr=rate, fused=self.form is fused, foreach=False)

    def observe(self, episode: Episode) -> float:
        """Learn from an episode with one update.

        Returns:
            The loss before the update.
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
