"""Class means, SCR, PCR, HPCR and their losses against the recorded figures of the official codes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from official_steps import FOLDER, case, play


def flipping(method: Any) -> None:
    """The augmentation of the recorded cases: every image is flipped."""
    method.learner.augmented = lambda x, name, key: x.flip(3)


class TestTricksOfEr:
    def test_review_and_class_means(self):
        play("er_review_ncm", "ocl_er", {"classifier": "ncm", "review": True})


class TestScr:
    def test_the_authors_code(self):
        play("scr", "scr", {"replay_batch": 10, "projection": 16}, flipping, first_step=2)


class TestPcr:
    @pytest.mark.parametrize("name", ["pcr", "pcr_bn"])
    def test_the_authors_code(self, name):
        play(name, "pcr", {}, flipping)


class TestHpcr:
    @pytest.mark.parametrize("name", ["hpcr", "hpcr_m25"])
    def test_the_authors_code(self, name):
        play(name, "hpcr", {}, flipping)
