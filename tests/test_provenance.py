"""The digest of the code that made a record: the code that it covers, and the code that it does not."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import GUARD

from clray import provenance
from clray.loading import load_sweep, sweep_names
from clray.trial import Trial

METHODS = ("online", "er", "gem")
TASK_METHODS = ("naive", "agem")


@functools.cache
def trials() -> dict[str, Trial]:
    """A shipped trial of each of these methods."""
    found = {}
    for sweep in ("mer/rotations", "tag/rotated_mnist"):
        for cell in load_sweep(sweep).cells:
            found.setdefault(cell.trial.method, cell.trial)
    return {method: found[method] for method in (*METHODS, *TASK_METHODS)}


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A copy of the package's sources that a test may change, and the digest looks at."""
    copied = tmp_path / "clray"
    shutil.copytree(Path(provenance.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "_PACKAGE", copied)
    return copied


def digests() -> dict[str, str]:
    return {method: provenance.loaded_digest(trial) for method, trial in trials().items()}


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def test_it_is_the_same_wherever_the_package_lies(package, monkeypatch):
    copied = digests()
    monkeypatch.undo()
    assert digests() == copied == {method: provenance.code_digest(trial) for method, trial in trials().items()}
    assert len(set(copied.values())) == len(METHODS) + len(TASK_METHODS)
    assert all(len(digest) == 16 for digest in copied.values())


@pytest.mark.parametrize("file", ["vision/methods/er.py", "vision/memory.py", "vision/kernels/mlp.py", "metrics.py"])
def test_comments_docstrings_and_layout_do_not_count(package, file):
    before = digests()
    append(package / file, "\n\n# a comment\n\n")
    path = package / file
    source = path.read_text(encoding="utf-8")
    assert source.startswith('"""')
    path.write_text('"""Another docstring."""\n' + source[source.index('"""', 3) + 3 :], encoding="utf-8")
    assert digests() == before


def test_a_docstring_below_an_attribute_does_not_count(package):
    before = digests()
    path = package / "vision/methods/er.py"
    source = path.read_text(encoding="utf-8")
    assert '"""Learning rate, constant."""' in source
    path.write_text(source.replace("Learning rate, constant.", "The rate."), encoding="utf-8")
    assert digests() == before


def test_a_method_s_own_code_counts_for_it_alone(package):
    before = digests()
    append(package / "vision/methods/er.py", "\nx = 1\n")
    after = digests()
    assert after["er"] != before["er"]
    assert (after["online"], after["gem"]) == (before["online"], before["gem"])


@pytest.mark.parametrize("file", ["training.py", "optim.py"])
def test_what_tracks_share_counts_for_those_who_use_it(package, file):
    before = digests()
    append(package / file, "\nx = 1\n")
    changed = {method for method, digest in digests().items() if digest != before[method]}
    assert changed == ({"gem"} if file == "optim.py" else {*METHODS, *TASK_METHODS})


SHARED = {
    ("trial.py", "plan.py", "evaluation.py", "stream.py", "draws.py", "benchmarks/pixels.py"): METHODS + TASK_METHODS,
    ("learners/perceptron.py", "learners/perceptron_fused.py", "kernels/mlp.py", "benchmarks/mer.py"): METHODS,
    ("learners/module.py", "tag.py", "hessian.py", "landscape.py", "networks/mlp.py"): TASK_METHODS,
    ("benchmarks/rearranged_mnist.py", "benchmarks/in_epochs.py", "networks/layers.py"): TASK_METHODS,
    ("networks/reduced_resnet18.py", "benchmarks/split.py", "official/mer.py"): (),
}


@pytest.mark.parametrize(("file", "methods"), [(file, methods) for of, methods in SHARED.items() for file in of])
def test_what_methods_share_counts_for_those_who_use_it(package, file, methods):
    before = digests()
    append(package / "vision" / file, "\nx = 1\n")
    assert {method for method, digest in digests().items() if digest != before[method]} == set(methods)


@pytest.mark.parametrize(
    "file",
    [
        "cli.py", "store.py", "planning.py", "cluster/tune.py", "metrics.py", "sweep.py",
        "vision/methods/__init__.py", "vision/training.py", "vision/data.py", "vision/datasets/__init__.py",
        "vision/methods/mer.py", "tracks.py", "trial.py", "settings.py",
    ],
)  # fmt: skip
def test_what_determines_no_number_does_not(package, file):
    before = digests()
    append(package / file, "\nx = 1\n")
    assert digests() == before


def test_a_number_in_the_code_counts(package):
    before = digests()
    path = package / "vision/kernels/gem.py"
    source = path.read_text(encoding="utf-8")
    assert "products[k] >= 0" in source
    path.write_text(source.replace("products[k] >= 0", "products[k] >= 1"), encoding="utf-8")
    assert digests()["gem"] != before["gem"]


def test_what_is_done_with_the_data_after_it_was_read_counts(package):
    five = load_sweep("tag/5_dataset").cells[0].trial
    before = digests(), provenance.loaded_digest(five)
    append(package / "vision/resize.py", "\nx = 1\n")  # which enlarges the images of that benchmark
    assert digests() == before[0]
    assert provenance.loaded_digest(five) != before[1]


def test_what_only_a_type_checker_imports_does_not(package):
    before = digests()
    (package / "vision/unused.py").write_text("x = 1\n", encoding="utf-8")
    source = (package / "vision/memory.py").read_text(encoding="utf-8")
    for_checkers = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from clray.vision import unused\n"
    (package / "vision/memory.py").write_text(source + for_checkers, encoding="utf-8")
    changed = digests()
    assert changed["er"] != before["er"]
    (package / "vision/unused.py").write_text("x = 2\n", encoding="utf-8")
    assert digests() == changed


def test_what_is_imported_from_the_core_is_decided_on():
    """A new module of the core that a trial imports counts; one that changes no number is to be listed as such."""
    counted = set()
    for name in sweep_names():
        for trial in {cell.trial.method: cell.trial for cell in load_sweep(name).cells}.values():
            files = provenance.files_of(trial)
            assert len(files) > 5
            counted |= {file.name for file in files if file.parent.name == "clray"}
    assert counted == {"training.py", "optim.py", "divergence.py"}


def test_the_whole_of_it_can_be_stored():
    facts = provenance.provenance("0123456789abcdef")
    assert json.loads(json.dumps(facts)) == facts
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["machine"]["host"]
    assert facts["packages"]["numpy"]
    assert facts["code"] == "0123456789abcdef"


class TestLoadedCode:
    """A file that is edited after this process imported it does not change what its records name."""

    def run(self, package: Path, code: str) -> list[str]:
        environment = {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
        root = Path(provenance.__file__).parents[1]
        for folder in ("sweeps", "reproduce"):
            shutil.copytree(root / folder, package.parent / folder, dirs_exist_ok=True)
        begin = """
from pathlib import Path
import clray
from clray.loading import load_sweep
from clray.provenance import code_digest, loaded_digest
trial = load_sweep("mer/rotations").cells[0].trial
file = Path(clray.__file__).parent / "vision" / "trial.py"
def edit():
    file.write_text(file.read_text() + "\\nx = 1\\n")
"""
        command = [sys.executable, "-c", begin + code]
        done = subprocess.run(
            command, env=environment, cwd=package.parent, capture_output=True, text=True, timeout=GUARD
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def test_it_is_the_text_that_was_imported(self, package):
        code = """
import clray.vision.trial
before = loaded_digest(trial)
edit()
print(before, loaded_digest(trial), code_digest(trial))
"""
        assert len(set(self.run(package, code))) == 1

    def test_an_edit_before_the_import_is_noticed(self, package):
        code = """
planned = code_digest(trial)
edit()
import clray.vision.trial
print(planned, code_digest(trial), loaded_digest(trial))
"""
        planned, kept, loaded = self.run(package, code)
        assert planned == kept != loaded


def test_the_checkout_is_named(tmp_path, monkeypatch):
    provenance.git_state.cache_clear()
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path / "clray")
    assert provenance.git_state() == {}
    provenance.git_state.cache_clear()
