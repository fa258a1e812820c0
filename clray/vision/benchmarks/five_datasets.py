"""The 5-dataset benchmark of TAG's code: five image sets, one for each task. Protocol: docs/papers/tag.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from clray.vision.benchmarks.in_epochs import InEpochs
from clray.vision.datasets.published import ImageSet
from clray.vision.resize import bilinear

if TYPE_CHECKING:
    from torch import Tensor

    from clray.vision.draws import Draws
    from clray.vision.stream import Stream


class FiveDatasets(InEpochs):
    """CIFAR-10, MNIST, SVHN, notMNIST and Fashion-MNIST, ten classes each, at 32 pixels in colour.

    The network has 100 logits, as in the official code; the first 50 are used.
    """

    name: Literal["5-dataset"]
    tasks: Annotated[int, Field(ge=1, le=5)] = 5

    image_count = 260_000

    @property
    def datasets(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("cifar10", "mnist", "svhn", "notmnist", "fashion-mnist")[: self.tasks]

    label_classes = 50

    shuffles_while_validating = False
    official = "clray.vision.official.tag"
    official_evaluation_draws = True

    def build(self, images: dict[str, ImageSet], draws: Draws) -> Stream:
        import torch

        from clray.vision.stream import Images, evenly, from_members, unit

        def part(part: str, count: int | None) -> tuple[Images, list[NDArray[np.int64]]]:
            pixels, labels, members, begin = [], [], [], 0
            for name in self.datasets:
                content = images[name]
                own = getattr(content, f"{part}_labels")
                chosen = evenly(np.arange(len(own)), count, f"{self.name}, {name}: {part}_per_task")
                raw = getattr(content, f"{part}_images")[chosen]
                pixels.append(_coloured(raw.reshape(-1, *content.image_shape)))
                labels.append(torch.from_numpy(own[chosen]))
                members.append(np.arange(begin, begin + len(chosen)))
                begin += len(chosen)
            return Images(torch.cat(pixels), torch.cat(labels)), members

        train, members = part("train", self.train_per_task)
        test, tests = part("test", self.test_per_task)
        return from_members(
            train,
            test,
            members,
            tests,
            heads=[(10 * t, 10 * t + 10) for t in range(self.tasks)],
            offsets=[10 * t for t in range(self.tasks)],
            outputs=100,
            scale=unit,
            label_classes=self.label_classes,
            shuffles=not self.validation,
        )


def _coloured(images: NDArray[np.uint8]) -> Tensor:
    """Convert images [n, 1 or 3, H, W] to [n, 3, 32, 32] uint8: enlarged bilinearly, grey in all three channels."""
    import torch

    if images.shape[-2:] != (32, 32):
        parts = [bilinear(images[begin : begin + 4096], 32, 32) for begin in range(0, len(images), 4096)]
        images = np.concatenate([np.clip(part + 0.5, 0, 255).astype(np.uint8) for part in parts])
    return torch.from_numpy(np.ascontiguousarray(images)).expand(-1, 3, -1, -1).contiguous()
