"""A stream's images as rows of bytes, for perceptrons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clray.errors import DeclarationError
from clray.vision.benchmarks.pixels import rearranged
from clray.vision.stream import Stream


@dataclass(frozen=True)
class Rows:
    """The rows of a stream.

    Attributes:
        images: [N, pixels] the examples' images, their pixels rearranged as their experiences require.
        labels: [N].
        test_images: [M, pixels] as published; each experience rearranges them by its pixel map.
        test_labels: [M].
        pixel_maps: [experiences, pixels], -1 for a black pixel.
        scored: the number of test images that are scored, counted from the first.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    pixel_maps: NDArray[np.int16]
    scored: int

    @classmethod
    def of(cls, stream: Stream) -> Rows:
        assert stream.pixel_maps is not None
        first = stream.experiences[0]
        same = np.arange(len(first.tests))
        if any(own.label_offset or not np.array_equal(own.tests, same) for own in stream.experiences):
            raise DeclarationError(
                "on this benchmark tasks have test images or labels of their own, and a perceptron is scored on the "
                "same first test images of each task, with the labels of the data set"
            )
        return cls(
            images=stream.pixels(np.arange(len(stream))).flatten(1).cpu().numpy(),
            labels=stream.labels.cpu().numpy(),
            test_images=stream.test.pixels.flatten(1).cpu().numpy(),
            test_labels=stream.test.labels.cpu().numpy(),
            pixel_maps=stream.pixel_maps.astype(np.int16),
            scored=len(first.tests),
        )

    def tests(self, experience: int) -> NDArray[np.float32]:
        """The scored test images of an experience [scored, pixels], in [0, 1]."""
        return fractions(rearranged(self.test_images[: self.scored], self.pixel_maps[experience]))


def fractions(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert bytes to float32 in [0, 1]."""
    return images.astype(np.float32) / np.float32(255)
