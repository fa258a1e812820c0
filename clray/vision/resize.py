"""Resizing as OpenCV does it by default: bilinear, without antialiasing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def bilinear(images: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """Resize images [..., H, W] to [..., height, width], without rounding.

    Pixel centres lie at halves, as in ``cv2.resize`` of floats with INTER_LINEAR. Where an image grows, Pillow and
    torchvision compute the same values, up to their rounding.
    """
    rows, columns = _taps(images.shape[-2], height), _taps(images.shape[-1], width)
    left, right, share = columns
    images = images.astype(np.float32)
    wide = images[..., left] * (1 - share) + images[..., right] * share
    above, below, share = rows
    down = share[:, None]
    return wide[..., above, :] * (1 - down) + wide[..., below, :] * down


def _taps(given: int, wanted: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """For each new pixel, the two old pixels that it lies between, and the weight of the second."""
    place = ((np.arange(wanted) + 0.5) * (given / wanted) - 0.5).clip(0, given - 1)
    first = np.floor(place).astype(np.intp)
    return first, np.minimum(first + 1, given - 1), (place - first).astype(np.float32)
