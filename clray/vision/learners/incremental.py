"""A torch module that learns classes one after the other, with one head for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from clray.trial import Trial
from clray.vision.augmentations import AUGMENTATIONS
from clray.vision.draws import Draws
from clray.vision.learners.module import ModuleLearner
from clray.vision.networks import NETWORKS
from clray.vision.networks.base import Network
from clray.vision.networks.heads import replace_last_layer
from clray.vision.stream import Stream

_TESTS_AT_ONCE = 500


class IncrementalLearner(ModuleLearner):
    """A torch module with one head for all classes, its optimizer and the trial's stream, as methods use them.

    Images come from the stream in [0, 1]; ``logits`` and ``features`` normalise them where the benchmark says so. So
    augmentations see images as they are.

    Args:
        network: settings of the module.
        stream: the trial's stream, on its device.
        draws: the trial's random draws.
        mean, std: of each channel; None where images are not normalised.
        levels: the ranges of the logits of each level, where labels have several (``coarse-to-fine``). The logits of a
            level are then the logarithms of its probabilities: a cross-entropy over all logits is that over the own
            level plus a constant, with the same gradient.
    """

    def __init__(
        self,
        network: Network,
        stream: Stream,
        draws: Draws,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        levels: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__(network, stream, draws)
        self.levels = levels
        self._mean, self._std = (
            None if values is None else torch.tensor(values, device=stream.device).view(-1, 1, 1)
            for values in (mean, std)
        )

    @classmethod
    def of(cls, trial: Trial, stream: Stream, draws: Draws, device: str) -> IncrementalLearner:
        """Make a trial's learner."""
        from clray.vision.benchmarks import BENCHMARKS

        network = NETWORKS[trial.model["name"]](**trial.model)
        benchmark: Any = BENCHMARKS[trial.benchmark["name"]](**trial.benchmark)
        mean, std = benchmark.normalisation
        return cls(network, stream, draws, mean, std, benchmark.levels)

    # ------------------------------------------------------------------------------------------------------------------
    # The network

    def replace_head(self, make: Callable[[int], nn.Module]) -> nn.Module:
        """Put another head in place of the network's last layer, and return it.

        Args:
            make: makes the head for features of a width.
        """
        with self.draws.weights():
            head = replace_last_layer(self.module, make)
        self._changed()
        return head

    def attach(self, name: str, part: Callable[[], nn.Module]) -> None:
        """Add a part to the module, which is trained with it; methods find it as ``learner.module.NAME``."""
        with self.draws.weights():
            self.module.add_module(name, part())
        self._changed()

    def _changed(self) -> None:
        self.module.to(self.stream.device)
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]

    def laid_out(self, x: Tensor) -> Tensor:
        """Images as the module takes them: normalised, and in its layout."""
        if self._mean is not None:
            assert self._std is not None
            x = (x - self._mean) / self._std
        return super().laid_out(x)

    def logits_aside(self, x: Tensor, weights: dict[str, Tensor] | None = None) -> Tensor:
        """The logits [n, outputs] in training mode, of a pass that leaves no trace in running statistics.

        Args:
            weights: other parameters to use, by name; those left out are the module's own.
        """
        self._train()
        copies = {name: kept.clone() for name, kept in self.module.named_buffers()}
        return self._by_level(functional_call(self.module, copies | (weights or {}), (self.laid_out(x),)))

    def descend(self, loss: Tensor) -> None:
        """Take one step of the optimizer along the gradient of a loss."""
        self.module.zero_grad()
        loss.backward()
        self.optimizer.step()

    # ------------------------------------------------------------------------------------------------------------------
    # Images

    def augmented(self, x: Tensor, name: str, key: str) -> Tensor:
        """Images [n, C, H, W] in [0, 1], changed at random.

        Args:
            name: a key of ``AUGMENTATIONS``.
            key: names the draws: the same key gives the same changes.
        """
        change = AUGMENTATIONS[name]
        return x if change is None else change(x, self.draws.keyed(f"augmentation {key}"))

    # ------------------------------------------------------------------------------------------------------------------
    # Evaluation

    def tests(self, group: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The test images of a group and the logits of their classes by number, in large batches. The module is in
        evaluation mode."""
        self.module.eval()
        self.draws.evaluation()
        for start in range(0, len(self.stream.groups[group].tests), _TESTS_AT_ONCE):
            yield self.stream.tests(group, start, start + _TESTS_AT_ONCE)

    def scores(self, x: Tensor) -> Tensor:
        """The logits [n, outputs], in the mode that the module is in."""
        return self._by_level(self.module(self.laid_out(x)))

    def logits(self, x: Tensor) -> Tensor:
        return self._by_level(super().logits(x))

    def logits_of(self, module: nn.Module, x: Tensor) -> Tensor:
        """The logits [n, outputs] of another module of the same kind, such as a copy, in the mode that it is in."""
        return self._by_level(module(self.laid_out(x)))

    def _by_level(self, logits: Tensor) -> Tensor:
        if not self.levels:
            return logits
        return torch.cat([logits[:, begin:end].log_softmax(1) for begin, end in self.levels], 1)

    def within_level(self, logits: Tensor, y: Tensor) -> Tensor:
        """Logits [n, outputs] with a large negative number for the classes of other levels than that of each y [n].

        Where labels have one level, these are the logits as they are.
        """
        if not self.levels:
            return logits
        level = torch.empty(self.stream.outputs, dtype=torch.int64, device=logits.device)
        for number, (begin, end) in enumerate(self.levels):
            level[begin:end] = number
        return logits.masked_fill(level != level[y].unsqueeze(1), -1e9)

    def rivals(self, group: int) -> tuple[int, int]:
        """The range of the logits among which the answer for a group's test images is looked for."""
        own = self.stream.groups[group].logits[0]
        return next((level for level in self.levels if level[0] <= own < level[1]), (0, self.stream.outputs))

    def still_features(self, x: Tensor) -> Tensor:
        """The features [n, width] in evaluation mode, without gradients."""
        self.module.eval()
        with torch.no_grad():
            return self.module.features(self.laid_out(x))
