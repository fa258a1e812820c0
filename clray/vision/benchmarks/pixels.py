"""Pixel maps, which rearrange the pixels of MNIST digits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PIXELS = 784
SIDE = 28


def rotation_map(angle: float) -> NDArray[np.int16]:
    """The pixel map [784] of a turn by ``angle`` degrees, made by turning an image of pixel numbers with Pillow.

    Pillow's ``rotate`` samples the nearest pixel and fills the corners with zero. So pixels are numbered from 1 there,
    and zero means: no pixel. In the map that is -1.
    """
    from PIL import Image

    numbers = np.arange(1, PIXELS + 1, dtype=np.int32).reshape(SIDE, SIDE)
    turned = np.asarray(Image.fromarray(numbers, mode="I").rotate(angle))
    return (turned.reshape(-1) - 1).astype(np.int16)


def rearranged(images: NDArray[np.uint8], pixel_map: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Rearrange the pixels of images [n, 784] by a pixel map; -1 gives a black pixel."""
    return np.where(pixel_map >= 0, images[:, pixel_map], 0).astype(np.uint8)
