"""A network in training, with one update for each episode."""

from __future__ import annotations

from typing import Any

import torch

from clray.episodes import fused, networks
from clray.episodes.benchmarks import Benchmark, Pairs
from clray.episodes.methods.base import UpdateSettings
from clray.episodes.networks import Dropout, Episode, Network, Sequences


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
        self.form: Any = fused if form == "fused" else networks
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
