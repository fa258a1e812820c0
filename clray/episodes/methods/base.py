"""The base of all methods of the episodes track. Nothing here loads torch, so that a sweep is planned quickly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from clray.episodes.benchmarks import Benchmark, Drawn, Kind, Pairs
from clray.episodes.models import Model
from clray.settings import TrialSettings

if TYPE_CHECKING:
    from clray.episodes.networks import Network


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
    kind: ClassVar[Kind] = "episodes"
    """The kind of benchmarks that it is for."""
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
