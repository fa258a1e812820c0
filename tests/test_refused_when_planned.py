"""A setting that a trial would refuse is refused when the sweep is read: with file, line and key."""

from __future__ import annotations

import pytest

from clray.errors import DeclarationError
from clray.loading import load_sweep
from clray.selection import Selection

TWO_LAYERS = "model.hidden=[20, 20, 20]"
SWEEPS = {
    "stream": "mer/rotations",
    "tasks": "tag/rotated_mnist",
    "episodes": "metaseq2seq/mutual_exclusivity",
    "language": "lamol/two_tasks_small",
}


@pytest.mark.parametrize(
    ("sweep", "changes", "key", "message"),
    [
        ("stream", ["engine=fused", TWO_LAYERS], "engine", "two hidden layers, and the model has 3.*auto, eager"),
        ("tasks", ["engine=fused"], "engine", "only the TAG optimizers have a fused form; allowed: auto, eager"),
        ("tasks", ["randomness=official", "evaluate=100"], "evaluate", "allows only after_task"),
        ("tasks", ["randomness=official", "seeds=[1, 4294967296]"], "seeds.1", "less than 4294967296"),
        ("tasks", ["precision=bfloat16"], "precision", "not for vision.*float32"),
        ("episodes", ["randomness=official"], "randomness", "draws without seeds; allowed: clray"),
        ("episodes", ["task_orders=[[0]]"], "task_orders", r"no order of tasks; allowed: \[identity\]"),
        ("episodes", ["precision=bfloat16"], "precision", "not for episodes"),
        ("language", ["evaluate=100"], "evaluate", "100: text-stream allows only after_task"),
        ("language", ["randomness=official"], "randomness", "draws without seeds; allowed: clray"),
    ],
)
def test_what_holds_for_all_variants(sweep, changes, key, message):
    with pytest.raises(DeclarationError, match=message) as caught:
        load_sweep(SWEEPS[sweep], Selection(set=tuple(changes)))
    text = str(caught.value)
    assert text.startswith(tuple(f"--set {change}" for change in changes)), "the flag that is wrong is named"
    assert f"{key}: " in text


@pytest.mark.parametrize(
    ("sweep", "changes"),
    [
        ("stream", ["evaluate=100", "randomness=official", "seeds=[4294967295]"]),
        ("stream", ["engine=eager", TWO_LAYERS]),
        ("tasks", ["randomness=official"]),
        ("tasks", ["seeds=[4294967295]"]),
        ("episodes", ["evaluate=7", "engine=eager"]),
        ("language", ["engine=eager", "precision=bfloat16"]),
    ],
)
def test_what_there_is_passes(sweep, changes):
    assert load_sweep(SWEEPS[sweep], Selection(set=tuple(changes))).cells


def test_the_line_of_the_key_is_named(tiny):
    text = tiny.read_text().replace("seeds: [0, 1]", "seeds: [0, 1]\nengine: fused")
    tiny.write_text(text.replace("hidden: [20, 20]", "hidden: [20]"))
    line = next(i for i, one in enumerate(tiny.read_text().splitlines(), 1) if one.startswith("engine"))
    with pytest.raises(DeclarationError, match=rf"tiny\.yaml:{line}: engine: fused: the kernels"):
        load_sweep(tiny)


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        (["benchmark.validation=true", "benchmark.train_per_task=9"], "benchmark.train_per_task", "at least 10"),
        (["benchmark.train_per_task=1000000000000"], "benchmark.train_per_task", "less than or equal to"),
        (["benchmark.tasks=1000000000000"], "benchmark.tasks", "less than or equal to"),
        (["benchmark.epochs=1000000000000"], "benchmark.epochs", "less than or equal to"),
        (["benchmark.degrees=.inf"], "benchmark.degrees", "not a finite number"),
        (["benchmark.seed=4294967296"], "benchmark.seed", "less than"),
        (["model.hidden=[1000000000000]"], "model.hidden", "less than or equal to"),
        (["model.hidden=[true]"], "model.hidden.0", "expected a number"),
        (["model.dropout=.nan"], "model.dropout", "not a finite number"),
    ],
)
def test_numbers_task_by_task(changes, key, message):
    with pytest.raises(DeclarationError, match=message) as caught:
        load_sweep("tag/rotated_mnist", Selection(set=tuple(changes)))
    assert str(caught.value).startswith(f"--set {key.removesuffix('.0')}=")


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        (("validation=true", "train_per_class=9"), "benchmark.train_per_class", r"a tenth .* at least 10 \(it is 9\)"),
        (("drop_last=true", "train_per_class=4"), "batch", r"drop_last .* only 8 images: at most 8 \(it is 10\)"),
        (("drop_last=true", "train_per_class=5", "validation=false"), None, ""),
    ],
)
def test_numbers_class_by_class(changes, key, message):
    selection = Selection(set=tuple(f"benchmark.{change}" for change in changes), only=("er",), seeds=(0,))
    if key is None:
        assert load_sweep("online/mnist", selection).cells
        return
    with pytest.raises(DeclarationError, match=message) as caught:
        load_sweep("online/mnist", selection)
    assert key in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["variants.gem.memory=0.0001"], "0.0001 of the 2536 training examples of woz.en.*allowed: 0.000395 or"),
        (["benchmark.train_per_task=19"], "0.05 of the 19 training examples.*would be empty; allowed: 0.052632 or"),
    ],
)
def test_a_memory_of_text_without_an_example(changes, message):
    """GEM would be fine-tuning."""
    with pytest.raises(DeclarationError, match=message):
        load_sweep("lamol/two_tasks_small", Selection(only=("gem",), set=tuple(changes)))


def test_a_batch_that_no_task_fills():
    """mini-ImageNet and CUB leave out a last batch that is not full: the trial would learn nothing, unsaid."""
    changes = ("benchmark.train_per_task=9", "benchmark.validation=false")
    with pytest.raises(DeclarationError, match=r"batch: split-cub leaves out .* only 9 images: at most 9 \(it is 10\)"):
        load_sweep("tag/cub", Selection(set=changes))
    assert load_sweep("tag/cub", Selection(set=("benchmark.train_per_task=10",))).cells


HUGE = "1000000000000"
SENSELESS = ("true", ".inf", ".nan", "-.inf", "1e400", HUGE + "0" * 40)


@pytest.mark.parametrize("value", SENSELESS)
@pytest.mark.parametrize(
    ("variant", "setting"),
    [
        ("online", "lr"),
        ("independent", "lr"),
        ("task_input", "lr"),
        ("ewc", "lr"),
        ("ewc", "strength"),
        ("ewc", "memories_per_task"),
        ("gem", "lr"),
        ("gem", "margin"),
        ("gem", "ridge"),
        ("er", "lr"),
        ("er", "memories"),
        ("er", "replay_batch"),
        ("mer", "lr"),
        ("mer", "beta"),
        ("mer", "gamma"),
        ("mer", "memories"),
        ("mer", "batches_per_example"),
        ("mer7", "s"),
    ],
)
def test_numbers_of_streams_methods(tiny, variant, setting, value):
    with pytest.raises(DeclarationError, match=rf"variants\.{variant}\.{setting}[:=]"):
        load_sweep(tiny, Selection(only=(variant,), set=(f"variants.{variant}.{setting}={value}",)))


@pytest.mark.parametrize("value", SENSELESS)
@pytest.mark.parametrize(
    ("method", "settings", "setting"),
    [
        ("naive", "lr: 0.1", "lr"),
        ("naive", "lr: 0.1", "batch"),
        ("naive", "lr: 0.1, optimizer: tag-adam, b: 5", "b"),
        ("stable_sgd", "lr: 0.1", "lr"),
        ("stable_sgd", "lr: 0.1", "gamma"),
        ("stable_sgd", "lr: 0.1", "momentum"),
        ("stable_sgd", "lr: 0.1", "batch"),
        ("agem", "lr: 0.1, memories_per_class: 1", "memories_per_class"),
        ("er_reservoir", "lr: 0.1, memories_per_class: 1", "memories_per_class"),
        ("ewc_online", "lr: 0.1, strength: 1.0", "strength"),
        ("ewc_online", "lr: 0.1, strength: 1.0", "fisher_images"),
        ("multitask_cyclic", "lr: 0.1", "cycles"),
    ],
)
def test_numbers_of_methods_task_by_task(tmp_path, method, settings, setting, value):
    path = tmp_path / "one.yaml"
    path.write_text(f"""\
version: 1
paper: tag
title: one
track: vision
benchmark: {{name: rotated-mnist, tasks: 2, train_per_task: 20, source: embedded}}
model: {{name: mlp}}
seeds: [0]
variants:
  one: {{method: {method}, {settings}}}
""")
    assert load_sweep(path).cells
    with pytest.raises(DeclarationError, match=rf"variants\.one\.{setting}[:=]"):
        load_sweep(path, Selection(set=(f"variants.one.{setting}={value}",)))
