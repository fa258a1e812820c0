"""The random changes of images against forms that change one image, or one pixel, at a time."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import pytest
import torch
from official_steps import learner_of

from clray.vision.augmentations import (
    AUGMENTATIONS,
    crop_and_flip,
    flip,
    grey,
    jitter,
    onpro,
    part_sizes,
    resized_crop,
    simclr,
)
from clray.vision.draws import ClrayDraws

CHANGES = [name for name, change in AUGMENTATIONS.items() if change is not None]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def images(n: int = 24, channels: int = 3, side: int = 12) -> torch.Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0))


class TestAll:
    @pytest.mark.parametrize("name", CHANGES)
    @pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
    def test_values_stay_in_their_range(self, name, shape):
        """Also of images at the ends of the range, where rounding could leave it."""
        random = torch.rand(200, *shape, generator=torch.Generator().manual_seed(0))
        for x in (random, (random > 0.5).float(), torch.ones(200, *shape), torch.zeros(200, *shape)):
            y = AUGMENTATIONS[name](x, rng())
            assert y.shape == x.shape
            assert y.dtype == torch.float32
            assert float(y.min()) >= 0
            assert float(y.max()) <= 1

    @pytest.mark.parametrize("name", CHANGES)
    def test_every_image_has_its_own_draw(self, name):
        one = images(1)
        y = AUGMENTATIONS[name](one.expand(300, -1, -1, -1), rng())
        different = {each.numpy().tobytes() for each in y}
        if name == "flip":
            assert len(different) == 2
        elif name == "crop-flip":
            assert 100 < len(different) <= 9 * 9 * 2
        else:
            assert len(different) > 290

    @pytest.mark.parametrize("name", CHANGES)
    def test_a_key_names_the_draws(self, name):
        x = images()
        first, second = (learner_of("mlp", "y", ClrayDraws(seed)) for seed in (0, 1))
        once = first.augmented(x, name, "3 memory")
        assert not torch.equal(once, x)
        assert not torch.equal(first.augmented(x, name, "4 memory"), once)
        assert not torch.equal(second.augmented(x, name, "3 memory"), once)
        assert torch.equal(first.augmented(x, name, "3 memory"), once)

    def test_none(self):
        x = images()
        assert learner_of("mlp", "y", ClrayDraws(0)).augmented(x, "none", "0") is x

    def test_the_images_are_not_changed_in_place(self):
        for name in CHANGES:
            x = images()
            AUGMENTATIONS[name](x, rng())
            assert torch.equal(x, images())


def test_flip():
    x, chosen = images(), rng().random(24) < 0.5
    for before, after, turned in zip(x, flip(x, rng()), chosen, strict=True):
        expected = [[row[::-1] for row in channel] for channel in before.tolist()] if turned else before.tolist()
        assert after.tolist() == expected
    assert 6 < chosen.sum() < 18


def test_crop_and_flip():
    """The pixel of a moved image is that of the place it came from, and black where that is outside."""
    x, draws = images(side=6), rng()
    down, right = draws.integers(0, 9, (2, 24))
    turned = draws.random(24) < 0.5
    y = crop_and_flip(x, rng())
    for k in range(24):
        for i in range(6):
            for j in range(6):
                column = 5 - j if turned[k] else j
                a, b = i + down[k] - 4, column + right[k] - 4
                expected = x[k, :, a, b] if 0 <= a < 6 and 0 <= b < 6 else torch.zeros(3)
                assert torch.equal(y[k, :, i, j], expected)
    assert {int(down.min()), int(down.max())} == {0, 8}


class TestResizedCrop:
    def test_pixels(self):
        """Each pixel's place in the part, in coordinates of the image's pixels, and the four pixels around it."""
        side, draws = 12, rng()
        x = images(side=side)
        wide, high = part_sizes(24, draws, 0.2)
        left, top = ((draws.uniform(size=24) * (1 - size)) * side for size in (wide, high))
        y = resized_crop(x, rng(), 0.2)
        for k in range(24):
            for i, j in ((0, 0), (3, 11), (7, 2), (11, 11), (5, 6)):
                row = min(max(top[k] + (i + 0.5) * high[k] - 0.5, 0), side - 1)
                column = min(max(left[k] + (j + 0.5) * wide[k] - 0.5, 0), side - 1)
                a, b = int(row), int(column)
                below, right = min(a + 1, side - 1), min(b + 1, side - 1)
                v, u = row - a, column - b
                expected = (1 - v) * ((1 - u) * x[k, :, a, b] + u * x[k, :, a, right])
                expected = expected + v * ((1 - u) * x[k, :, below, b] + u * x[k, :, below, right])
                assert torch.allclose(y[k, :, i, j], expected.float(), atol=1e-5)

    def test_the_whole_image_stays_as_it_is(self):
        class Largest:
            """Draws the area 1 and the ratio 1."""

            def uniform(self, low: float = 0, high: float = 1, size: Any = None) -> Any:
                return np.full(size, 0.0 if low < 0 else high)

        largest: Any = Largest()
        assert torch.allclose(resized_crop(images(), largest, 0.2), images(), atol=1e-6)

    @pytest.mark.parametrize("smallest", [0.2, 0.3])
    def test_sizes(self, smallest):
        """Against the rule of torchvision, one image at a time with draws of its own."""
        draws, slow = rng(1), []
        for _ in range(20_000):
            for _ in range(10):
                area, ratio = draws.uniform(smallest, 1), np.exp(draws.uniform(np.log(3 / 4), np.log(4 / 3)))
                size = np.sqrt(area * ratio), np.sqrt(area / ratio)
                if max(size) <= 1:
                    break
            else:
                size = 1.0, 1.0
            slow.append(size)
        fast = part_sizes(20_000, rng(2), smallest)
        for mine, theirs in zip(fast, np.transpose(slow), strict=True):
            assert mine.max() <= 1
            marks = np.linspace(0, 1, 21)
            assert np.quantile(mine, marks[1:-1]) == pytest.approx(np.quantile(theirs, marks[1:-1]), abs=0.015)
        assert (fast[0] * fast[1]).min() >= smallest
        assert np.abs(np.log(fast[0] / fast[1])).max() <= np.log(4 / 3) + 1e-12


def luminance(pixel: Any) -> float:
    return 0.299 * float(pixel[0]) + 0.587 * float(pixel[1]) + 0.114 * float(pixel[2])


def test_grey():
    x, chosen = images(side=4), rng().random(24) < 0.4
    for before, after, changed in zip(x, grey(x, rng(), 0.4), chosen, strict=True):
        for i in range(4):
            for j in range(4):
                expected = [luminance(before[:, i, j])] * 3 if changed else before[:, i, j].tolist()
                assert after[:, i, j].tolist() == pytest.approx(expected, abs=1e-6)
    assert 2 < chosen.sum() < 20
    one = images(channels=1)
    assert grey(one, rng(), 0.9) is one


def clamped(value: Any) -> Any:
    return np.clip(value, 0, 1)


class TestJitter:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_pixels(self, channels):
        n, side, draws = 24, 4, rng()
        x = images(n, channels, side)
        changed = draws.random(n) < 0.8
        brightness, contrast, saturation = (draws.uniform(0.6, 1.4, n) for _ in range(3))
        turn = draws.uniform(-0.1, 0.1, n)
        y = jitter(x, rng()).numpy()
        for k, before in enumerate(x.double().numpy()):
            expected = before
            if changed[k]:
                expected = clamped(expected * brightness[k])
                pixels = expected.reshape(channels, -1).T
                mean = np.mean([luminance(pixel) for pixel in pixels] if channels == 3 else pixels)
                pixels = clamped(mean + contrast[k] * (pixels - mean))
                if channels == 3:
                    greys = np.array([[luminance(pixel)] * 3 for pixel in pixels])
                    pixels = clamped(greys + saturation[k] * (pixels - greys))
                    pixels = np.array([clamped(self.turned(pixel, turn[k])) for pixel in pixels])
                expected = pixels.T.reshape(channels, side, side)
            assert y[k] == pytest.approx(expected, abs=2e-3 if channels == 3 else 1e-5)
        assert 12 < changed.sum() < 24

    def turned(self, pixel: Any, turn: float) -> Any:
        """Turn the chrominance of a pixel, a complex number, and keep its luminance."""
        own = 0.299, 0.587, 0.114
        light = float(np.dot(own, pixel))
        # I and Q from the differences of red and blue with the luminance (NTSC 1953).
        red, blue = pixel[0] - light, pixel[2] - light
        i, q = 0.7357 * red - 0.2686 * blue, 0.4776 * red + 0.4134 * blue
        colour = complex(i, q) * np.exp(2j * np.pi * turn)
        red, blue = np.linalg.solve([[0.7357, -0.2686], [0.4776, 0.4134]], [colour.real, colour.imag])
        red, blue = red + light, blue + light
        return red, (light - own[0] * red - own[2] * blue) / own[1], blue

    def test_a_turn_is_about_that_of_the_hue(self):
        """In the HSV space, which the official codes turn: by a tenth of the circle, to within a twentieth."""
        from clray.vision.augmentations import _turned_hue

        x = 0.5 + (images(64, side=1) - 0.5) * 0.3
        turned = _turned_hue(x, np.full(64, 0.1))
        hues = [[colorsys.rgb_to_hsv(*each.flatten().tolist())[0] for each in part] for part in (x, turned)]
        moved = (np.diff(hues, axis=0)[0] + 0.5) % 1 - 0.5
        assert abs(np.median(np.abs(moved)) - 0.1) < 0.05
        assert (moved > 0).all() or (moved < 0).all()

    def test_greys_have_no_hue(self):
        from clray.vision.augmentations import _turned_hue

        x = images(8, 1).expand(-1, 3, -1, -1)
        assert torch.allclose(_turned_hue(x, np.linspace(-0.5, 0.5, 8)), x, atol=1e-6)


def test_simclr_is_its_parts_in_order():
    x, draws = images(), rng()
    expected = grey(jitter(flip(resized_crop(x, draws, 0.2), draws), draws, 0.8), draws, 0.2)
    assert torch.equal(simclr(x, rng()), expected)


def test_onpro_is_its_parts_in_order():
    x, draws = images(), rng()
    expected = resized_crop(grey(flip(x, draws), draws, 0.25), draws, 0.3)
    assert torch.equal(onpro(x, rng()), expected)
