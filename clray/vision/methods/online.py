"""Online: plain SGD on the stream, nothing against forgetting. GEM's ``single``; "Online" in MER's tables."""

from __future__ import annotations

from typing import Any

from clray.vision import methods
from clray.vision.engines import Workshop
from clray.vision.models import Mlp, Weights
from clray.vision.randomness import Randomness
from clray.vision.ranges import Rate


class Online:
    """One SGD step on each arriving example."""

    class Settings(methods.Settings):
        lr: Rate
        """Learning rate, constant."""

    def __init__(self, settings: Settings, model: Mlp, workshop: Workshop, randomness: Randomness) -> None:
        stream = workshop.stream
        self.net = workshop.net(model.initial(model.sizes(stream.inputs, stream.classes), randomness), settings.lr)

    def observe(self, position: int) -> None:
        self.net.step([position])

    def weights(self, task: int) -> Weights:
        return self.net.weights()

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.net.weights()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load(state["weights"])
