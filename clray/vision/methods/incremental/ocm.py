"""OCM, online continual learning through mutual information maximization (Guo, ICML 2022), as its code runs it.

Each image becomes sixteen by turning its halves and the whole, and each of these has classes of its own. A projection
of their features, in two views (as they are, and augmented), must find images with the same label, and the other view
of the same image, among all images of the step (``rotation_contrast``). On the first task that is all, besides the
cross-entropy of the augmented batch. Later there is no cross-entropy of the batch, but one of augmented memories: what
is new is named only once it is in memory. Memories have a contrast of their own; and the network is kept near to a copy
from the end of the last task: by a contrast between the projections of both for the sixteen forms of memories, and by
the mean squared difference of the logits of old classes, each network seeing its own augmentation of the memories.

A batch of memories has at most ``replay_per_class`` images for each class seen. Similarities are multiplied by
``similarity`` after the first task, and by ``first_similarity`` in it.

Known from the code: Adam with a rate of 0.001, betas of 0.9 and 0.99 and a weight decay of 1e-4, batches of 10 and 64,
temperature 0.07. ``similarity`` is 0.5 for CIFAR-10 (``test_cifar10.py``) and MNIST (``test_mnist.py``), and 1 for
CIFAR-100 (``test_cifar100.py``). MNIST has 0.5 in the first task, too, only resized crops, and no squared difference of
logits. No step of it is recorded: the terms that OnPro took over are held to figures of OnPro's code, the two that keep
the network near to its copy only to a slow form. It computes in half precision on a GPU; this does not.

Where boundaries are hidden, the first batch counts as the first task, and there is no copy: that is ours.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal

from clray.errors import DeclarationError
from clray.trial import later
from clray.vision.methods.incremental.base import AugmentationName, ReplayMethod, ReplaySettings
from clray.vision.ranges import Count, Rate, Weight

if TYPE_CHECKING:
    from torch import Tensor, nn

    from clray.vision.learners.incremental import IncrementalLearner
    from clray.vision.stream import Batch, Numbers


class RotationContrast(ReplayMethod):
    """The base of OCM and OnPro: the projection, the contrast of turned images, the draws of memories."""

    class Settings(ReplaySettings):
        optimizer: Literal["sgd", "adam"] = "adam"
        weight_decay: Weight = 1e-4
        augmentation: AugmentationName = "onpro"
        replay_batch: Count = 64
        replay_per_class: Count = 7
        """Memories of a step for each class seen, at most."""
        projection: Count = 128
        """The size of the projection; features must be longer."""
        temperature: Rate = 0.07
        similarity: Rate = 0.5
        """The factor of similarities after the first task."""

    passes = 128.0

    def build(self) -> None:
        from torch import nn

        name = type(self).__name__.lower()
        _, height, width = self.stream.shape
        if height != width or height % 2:
            raise DeclarationError(f"{name}: it turns images and their halves; they must be square, with even sides")
        features = [part for part in self.learner.module.modules() if isinstance(part, nn.Linear)][-1].in_features
        size = self.settings.projection
        if features <= size:
            raise DeclarationError(f"{name}: projection {size} must be smaller than the {features} features")
        self.learner.attach("projection", lambda: nn.Linear(features, size))
        self.windows = features - size

    def __init__(self, settings: Any, learner: IncrementalLearner) -> None:
        super().__init__(settings, learner)
        self._labels = self.stream.labels.cpu().numpy()
        self.seen: list[int] = []
        """The classes of which an example has arrived."""
        self.task = -1
        """The experience of the last batch; -1 before the first, and where boundaries are hidden."""

    def loss(self, batch: Batch) -> Tensor:
        self.seen = sorted({*self.seen, *self._labels[batch.numbers].tolist()})
        # A task without images may come first (``si-blurry``): then a later one finds the memory empty.
        first = not len(self.memory) or batch.experience == 0
        return self.first_loss(batch) if first else self.later_loss(batch)

    def first_loss(self, batch: Batch) -> Tensor:
        """The loss of a step on a batch of the first task."""
        raise NotImplementedError

    def later_loss(self, batch: Batch) -> Tensor:
        """The loss of a step on a batch of a later task."""
        raise NotImplementedError

    def remember(self, batch: Batch) -> None:
        super().remember(batch)
        self.task = self.task if batch.experience is None else batch.experience

    def replayed(self) -> Numbers:
        settings = self.settings
        return self.memory.slots(min(settings.replay_batch, settings.replay_per_class * len(self.seen)))

    def turned(self, x: Tensor, view: str) -> Tensor:
        """The sixteen forms of images as they are and, after them, augmented [32 n, C, H, W]."""
        import torch

        from clray.vision.rotation_contrast import rotations

        forms = rotations(x)
        return torch.cat([forms, self.augmented(forms, f"{view} turned")])

    def embedded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The features [n, width] of images, and their projections [n, size] of length 1."""
        from torch.nn.functional import normalize

        features = self.learner.features(x)
        return features, normalize(self.learner.module.projection(features), dim=1)

    def window(self, view: str) -> int:
        """Draw the first of the features that are compared with projections."""
        return int(self.draws.keyed(f"window of features {self.steps} {view}").integers(self.windows))

    def contrast(self, features: Tensor, z: Tensor, y: Tensor, factor: float) -> Tensor:
        """The contrast of the stream's batch, of labels y [n], from its ``turned`` images' embeddings."""
        from clray.vision.rotation_contrast import rotated_labels, similarity, to_the_other_view

        similarities = similarity(features, z, self.window("stream"), factor)
        return to_the_other_view(similarities, rotated_labels(y, self.stream.outputs), self.settings.temperature)

    def memory_contrast(self, features: Tensor, z: Tensor, y: Tensor) -> Tensor:
        """The contrast of memories; their labels y [n] may be real numbers."""
        from clray.vision.rotation_contrast import among_same_labels, rotated_labels, similarity

        similarities = similarity(features, z, self.window("memory"), self.settings.similarity)
        return among_same_labels(similarities, rotated_labels(y, self.stream.outputs), self.settings.temperature)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"seen": self.seen, "task": self.task}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.seen, self.task = list(state["seen"]), state["task"]


class Ocm(RotationContrast):
    """Contrast of turned images, with a copy of the network from the end of the last task."""

    class Settings(RotationContrast.Settings):
        first_similarity: Rate = later(1.0)
        """The factor of similarities in the first task; the code for MNIST has 0.5 there, too."""
        keeps_logits: bool = later(True)
        """The squared difference of old classes' logits is in the loss; in the code for MNIST it is not."""

    passes = 150.0

    def __init__(self, settings: Any, learner: IncrementalLearner) -> None:
        super().__init__(settings, learner)
        self.former: nn.Module | None = None
        """The network at the end of the last task, with its projection."""
        self.old: list[int] = []
        """The classes that were seen by then."""

    def first_loss(self, batch: Batch) -> Tensor:
        from torch.nn.functional import cross_entropy

        contrast = self.contrast(
            *self.embedded(self.turned(batch.x, "stream")), batch.y, self.settings.first_similarity
        )
        return contrast + cross_entropy(self.learner.logits(self.augmented(batch.x, "stream")), batch.y)

    def later_loss(self, batch: Batch) -> Tensor:
        import torch
        from torch.nn.functional import cross_entropy, mse_loss

        old_x, old_y = self.examples(self.replayed())
        x, turned = self.turned(batch.x, "stream"), self.turned(old_x, "memory")
        features, z = self.embedded(torch.cat([x, turned]))
        own, old = (features[: len(x)], z[: len(x)]), (features[len(x) :], z[len(x) :])
        loss = self.contrast(*own, batch.y, self.settings.similarity)
        loss = loss + self.memory_contrast(*old, old_y)
        logits = self.learner.logits(self.augmented(old_x, "memory"))
        loss = loss + cross_entropy(logits, old_y)
        if self.former is not None and self.old:
            forms = turned[: len(turned) // 2]
            loss = loss + self.distillation(old[1][: len(forms)], forms, old_y)
            if self.settings.keeps_logits:
                with torch.no_grad():
                    before = self.learner.logits_of(self.former, self.augmented(old_x, "memory of the copy"))
                loss = loss + mse_loss(before[:, self.old], logits[:, self.old])
        return loss

    def distillation(self, z: Tensor, forms: Tensor, y: Tensor) -> Tensor:
        """The contrast between the projections of turned memories [16 n, size] and those that the copy has for them."""
        import torch
        from torch.nn.functional import normalize

        from clray.vision.rotation_contrast import among_same_labels, rotated_labels

        former: Any = self.former
        with torch.no_grad():
            before = normalize(former.projection(former.features(self.learner.laid_out(forms))), dim=1)
        labels = rotated_labels(y, self.stream.outputs)[: len(forms)]
        return among_same_labels(z @ before.T, labels, self.settings.temperature)

    def end(self, experience: int) -> None:
        self.former, self.old = copy.deepcopy(self.learner.module).train(), list(self.seen)

    def state_dict(self) -> dict[str, Any]:
        former = {} if self.former is None else self.former.state_dict()
        return super().state_dict() | {"former": former, "old": self.old}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.old = list(state["old"])
        if state["former"]:
            self.former = copy.deepcopy(self.learner.module).train()
            self.former.load_state_dict(state["former"])
