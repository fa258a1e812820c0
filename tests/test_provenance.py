"""The digest of the code that made a record: what it counts and what it does not."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from clray import provenance

METHODS = ("online", "er", "gem")
TASK_METHODS = ("naive", "agem")


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A copy of the package's sources that a test may change, and the digest looks at."""
    copied = tmp_path / "clray"
    shutil.copytree(Path(provenance.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "_PACKAGE", copied)
    return copied


def digests() -> dict[str, str]:
    provenance.code_digest.cache_clear()
    found = {method: provenance.code_digest("vision", method) for method in (*METHODS, *TASK_METHODS)}
    provenance.code_digest.cache_clear()
    return found


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def test_it_is_the_same_wherever_the_package_lies(package):
    copied = digests()
    provenance.code_digest.cache_clear()
    assert len(set(copied.values())) == len(METHODS) + len(TASK_METHODS)
    assert all(len(digest) == 16 for digest in copied.values())


@pytest.mark.parametrize("file", ["vision/methods/er.py", "vision/engines.py", "vision/kernels/mlp.py", "metrics.py"])
def test_comments_docstrings_and_layout_do_not_count(package, file):
    before = digests()
    append(package / file, "\n\n# a comment\n\n")
    path = package / file
    source = path.read_text(encoding="utf-8")
    assert source.startswith('"""')
    path.write_text('"""Another docstring."""\n' + source[source.index('"""', 3) + 3 :], encoding="utf-8")
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


@pytest.mark.parametrize(
    "file", ["stream_training.py", "engines.py", "kernels/mlp.py", "randomness.py", "benchmarks.py"]
)
def test_what_methods_share_counts_for_those_who_use_it(package, file):
    before = digests()
    append(package / "vision" / file, "\nx = 1\n")
    changed = {method for method, digest in digests().items() if digest != before[method]}
    assert changed == {*METHODS, *(TASK_METHODS if file == "benchmarks.py" else ())}


@pytest.mark.parametrize("file", ["task_training.py", "tag.py", "learner.py", "networks.py", "hessian.py"])
def test_the_other_loop_counts_for_its_own_methods(package, file):
    before = digests()
    append(package / "vision" / file, "\nx = 1\n")
    assert {method for method, digest in digests().items() if digest != before[method]} == set(TASK_METHODS)


@pytest.mark.parametrize(
    "file",
    [
        "cli.py", "results.py", "planning.py", "cluster/launch.py", "metrics.py", "sweep.py",
        "vision/methods/__init__.py", "vision/training.py", "vision/data.py", "vision/datasets/__init__.py",
    ],
)  # fmt: skip
def test_what_determines_no_number_does_not(package, file):
    before = digests()
    append(package / file, "\nx = 1\n")
    assert digests() == before


def test_a_number_in_the_code_counts(package):
    before = digests()
    path = package / "vision/methods/gem.py"
    source = path.read_text(encoding="utf-8")
    assert "(products >= 0)" in source
    path.write_text(source.replace("(products >= 0)", "(products >= 1)"), encoding="utf-8")
    assert digests()["gem"] != before["gem"]


def test_the_whole_of_it_can_be_stored():
    facts = provenance.provenance("vision", "er")
    assert json.loads(json.dumps(facts)) == facts
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["machine"]["host"]
    assert facts["packages"]["numpy"]
    assert facts["code"] == provenance.code_digest("vision", "er")


def test_the_checkout_is_named(tmp_path, monkeypatch):
    provenance.git_state.cache_clear()
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path / "clray")
    assert provenance.git_state() == {}
    provenance.git_state.cache_clear()
