"""Random changes of images, made on the images' device. Every image of a batch gets its own.

The random numbers come from a NumPy generator, so that they are the same on every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

Augmentation = Callable[[Tensor, np.random.Generator], Tensor]
"""Takes images [n, C, H, W] in [0, 1] and the generator of the draws; returns the changed images."""


def _on(device: torch.device, values: NDArray[np.float64]) -> Tensor:
    """Values [n] for the images of a batch, [n, 1, 1, 1]."""
    return torch.from_numpy(values).to(device, torch.float32).view(-1, 1, 1, 1)


def _chosen(device: torch.device, chosen: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(chosen).to(device).view(-1, 1, 1, 1)


def flip(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Flip each image from left to right with probability 1/2."""
    return torch.where(_chosen(x.device, rng.random(len(x)) < 0.5), x.flip(3), x)


def crop_and_flip(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Move each image by up to 4 pixels in each direction, with black beyond the edge, then flip: as in Mammoth."""
    n, channels, height, width = x.shape
    down, right = rng.integers(0, 9, (2, n, 1))
    columns = right + np.where(rng.random((n, 1)) < 0.5, np.arange(width)[::-1], np.arange(width))
    pixels = ((down + np.arange(height)) * (width + 8))[:, :, None] + columns[:, None]  # of the padded image
    index = torch.from_numpy(pixels.reshape(n, 1, -1)).to(x.device).expand(n, channels, -1)
    return pad(x, (4, 4, 4, 4)).flatten(2).gather(2, index).view(x.shape)


def resized_crop(x: Tensor, rng: np.random.Generator, smallest: float) -> Tensor:
    """Enlarge a random part of each image to the image's size, by bilinear interpolation.

    As in torchvision and kornia, the part's size is the first of ten draws that fits into the image, and where none
    does the part is the whole image. Its edges need not lie between pixels, as they do there. Images are square.

    Args:
        smallest: the smallest area of the part, as a fraction of the image's. Areas are drawn uniformly from there to
            1, and ratios of width to height from 3/4 to 4/3, uniformly on a logarithmic scale.
    """
    n = len(x)
    wide, high = part_sizes(n, rng, smallest)
    # The part's centre, in the coordinates of affine_grid: from -1 to 1.
    across, down = ((rng.uniform(size=n) * 2 - 1) * (1 - size) for size in (wide, high))
    zero = np.zeros(n)
    maps = np.stack([np.stack([wide, zero, across], 1), np.stack([zero, high, down], 1)], 1)
    grid = affine_grid(torch.from_numpy(maps).to(x.device, torch.float32), list(x.shape), align_corners=False)
    parts = grid_sample(x, grid, padding_mode="border", align_corners=False)
    return parts.clamp(0, 1)  # the weights of four pixels may be a little more than 1 in sum


def part_sizes(n: int, rng: np.random.Generator, smallest: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The widths and heights [n] of the parts that ``resized_crop`` enlarges, as fractions of the image's."""
    area = rng.uniform(smallest, 1, (10, n))
    ratio = np.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3), (10, n)))
    wide, high = np.sqrt(area * ratio), np.sqrt(area / ratio)
    fits = (wide <= 1) & (high <= 1)
    first = fits.argmax(0), np.arange(n)
    return np.where(fits[first], wide[first], 1), np.where(fits[first], high[first], 1)


def grey(x: Tensor, rng: np.random.Generator, probability: float) -> Tensor:
    """Make each image grey with this probability."""
    if x.shape[1] != 3:
        return x
    return torch.where(_chosen(x.device, rng.random(len(x)) < probability), _luminance(x).expand_as(x), x)


def _luminance(x: Tensor) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114], device=x.device).view(3, 1, 1)
    return (x * weights).sum(1, keepdim=True).clamp(0, 1)


def jitter(x: Tensor, rng: np.random.Generator, probability: float = 0.8) -> Tensor:
    """Change brightness, contrast and saturation by factors from 0.6 to 1.4, and hue by up to a tenth of the circle.

    With this probability for each image, in this order. Saturation and hue are for images in colour. The codes of SCR
    and PCR turn the hue of the HSV space, PCR's in a random order of the four; here hue turns in the YIQ space.
    """
    n = len(x)
    changed = _chosen(x.device, rng.random(n) < probability)
    brightness, contrast, saturation = (_on(x.device, rng.uniform(0.6, 1.4, n)) for _ in range(3))
    turn = rng.uniform(-0.1, 0.1, n)
    y = (x * brightness).clamp(0, 1)
    if x.shape[1] == 3:
        y = (_luminance(y).mean((2, 3), keepdim=True) * (1 - contrast) + y * contrast).clamp(0, 1)
        y = (_luminance(y) * (1 - saturation) + y * saturation).clamp(0, 1)
        y = _turned_hue(y, turn)
    else:
        y = (y.mean((2, 3), keepdim=True) * (1 - contrast) + y * contrast).clamp(0, 1)
    return torch.where(changed, y, x)


_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def _turned_hue(x: Tensor, turn: NDArray[np.float64]) -> Tensor:
    """Turn each image's hue by a fraction of the circle, in the YIQ space: a rotation of its chrominance."""
    to = np.array(_TO_YIQ)
    cos, sin = np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)
    rotations = np.zeros((len(turn), 3, 3))
    rotations[:, 0, 0] = 1
    rotations[:, 1, 1], rotations[:, 1, 2], rotations[:, 2, 1], rotations[:, 2, 2] = cos, -sin, sin, cos
    matrices = torch.from_numpy(np.linalg.inv(to) @ rotations @ to).to(x.device, torch.float32)
    return torch.einsum("nij,njhw->nihw", matrices, x).clamp(0, 1)


def simclr(x: Tensor, rng: np.random.Generator) -> Tensor:
    """The changes of SCR and PCR: a part of at least a fifth, flip, jitter in 8 of 10, grey in 2 of 10."""
    return grey(jitter(flip(resized_crop(x, rng, 0.2), rng), rng), rng, 0.2)


def onpro(x: Tensor, rng: np.random.Generator) -> Tensor:
    """The changes of OCM and OnPro: flip, grey in a quarter of the images, a part of at least 0.3."""
    return resized_crop(grey(flip(x, rng), rng, 0.25), rng, 0.3)


def part(x: Tensor, rng: np.random.Generator) -> Tensor:
    """The change of OCM on MNIST: a part of at least 0.3, since a flip would make other digits."""
    return resized_crop(x, rng, 0.3)


AUGMENTATIONS: Mapping[str, Augmentation | None] = {
    "none": None,
    "flip": flip,
    "crop-flip": crop_and_flip,
    "simclr": simclr,
    "onpro": onpro,
    "resized-crop": part,
}
