"""The memory layout of convolutions: the fastest one that no processor fails at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from waiting import GUARD

from clray.vision.learners.module import channels_last_is_safe
from clray.vision.networks import NETWORKS

TWO_FILTERS = """
from clray.trial import Trial
from clray.training import run
from clray.vision.data import locate
from clray.vision.training import resolve
from clray.vision.trial import VisionTraining
declared = {
    "benchmark": {"name": "rotated-mnist", "tasks": 2, "train_per_task": 40, "test_per_task": 20, "source": "embedded"},
    "model": {"name": "reduced-resnet18", "filters": 2},
    "method": "naive",
    "hyperparameters": {"lr": 0.1},
}
trial = Trial(
    version=1, track="vision", evaluate="after_task", randomness="clray", engine="auto", precision="float32", seed=0,
    task_order=None, **resolve(declared),
)
print(len(run(VisionTraining(trial, locate("mnist", "embedded")))))
"""


@pytest.mark.parametrize("limit", [{}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}])
def test_a_network_of_two_filters_is_trained_to_the_end(limit):
    """In a process of its own: with channels last and AVX2 it ended in "corrupted size vs. prev_size"."""
    environment = {**os.environ, "MALLOC_CHECK_": "3", **limit}
    command, root = [sys.executable, "-c", TWO_FILTERS], Path(__file__).resolve().parents[2]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=GUARD)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "3"


@pytest.mark.parametrize(
    ("model", "safe"),
    [
        ({"name": "reduced-resnet18"}, True),
        ({"name": "reduced-resnet18", "filters": 8}, True),
        ({"name": "reduced-resnet18", "filters": 7}, False),
        ({"name": "alexnet"}, True),
        ({"name": "resnet18", "pretrained": False}, True),
        ({"name": "mlp"}, False),
    ],
)
def test_which_networks_have_channels_last(model, safe):
    with torch.random.fork_rng():
        module = NETWORKS[model["name"]](**model).build((3, 32, 32), 10)
    assert channels_last_is_safe(module) == safe


def test_a_first_convolution_of_1x1_counts_too():
    assert not channels_last_is_safe(nn.Sequential(nn.Conv2d(3, 8, 1, 2), nn.Conv2d(8, 8, 3)))
    assert channels_last_is_safe(nn.Sequential(nn.Conv2d(3, 8, 5), nn.Conv2d(8, 8, 1, 2)))
