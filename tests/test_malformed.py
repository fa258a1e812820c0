"""Malformed declarations and flags: each is accepted, or gives one error of clray that names its place."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from malformed import REPRODUCTION, STREAM, SWEEPS, flags, malformed
from typer.testing import CliRunner

from clray.cli import app
from clray.errors import ClrayError
from clray.loading import load_sweep
from clray.reproduction import load_reproduction
from clray.selection import Selection
from clray.sweep import Sweep


@contextmanager
def guard() -> Iterator[None]:
    """A case that does not end is an error, not the end of the suite."""

    def expired(*_: Any) -> None:
        raise TimeoutError("the case does not end")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(120)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, int | float):
        yield value


def makes_sense(sweep: Sweep, tmp_path: Path) -> None:
    """Check an accepted sweep: its trials are valid, no variant has a trial twice, and the sweep can be planned."""
    from clray.planning import plan
    from clray.store import Store

    seen = set()
    for cell in sweep.cells:
        dumped = cell.trial.model_dump(mode="json")
        json.dumps(dumped, allow_nan=False)
        assert all(math.isfinite(n) and (isinstance(n, float) or abs(n) < 2**63) for n in numbers(dumped))
        assert cell.variant.isprintable()
        assert (cell.variant, cell.trial.declaration) not in seen
        seen.add((cell.variant, cell.trial.declaration))
    if len(sweep.cells) < 200:
        planned = plan({"sweep": sweep}, Store(str(tmp_path / "store")))
        assert all(math.isfinite(trial.seconds) for trial in planned.trials)


def attempt(path: Path, number: int, tmp_path: Path) -> str:
    """The result of reading a sweep file: "accepted", or the text of the error."""
    try:
        with guard():
            makes_sense(load_sweep(path), tmp_path)
            if number % len(SWEEPS) == 0:  # STREAM has a quick form
                makes_sense(load_sweep(path, Selection(quick=True)), tmp_path)
    except ClrayError as error:
        return str(error)
    return "accepted"


def check_sweep(number: int, tmp_path: Path) -> None:
    which = list(SWEEPS)[number % len(SWEEPS)]
    case = malformed(number, SWEEPS[which])
    path = tmp_path / f"case-{number}.yaml"
    path.write_bytes(case.content)
    try:
        said = attempt(path, number, tmp_path)
    except Exception as error:
        raise AssertionError(f"case {number} ({which}, {case.kind}):\n{case.content[:3000]!r}") from error
    assert said == "accepted" or str(path) in said or "CLRAY_DATA" in said, (number, case.kind, said)
    assert len(said) < 20_000, (number, case.kind)


def check_reproduction(number: int, tmp_path: Path) -> None:
    case = malformed(number, REPRODUCTION)
    path = tmp_path / f"case-{number}.yaml"
    path.write_bytes(case.content)
    said = None
    try:
        with guard():
            load_reproduction(path).sweeps()
    except ClrayError as error:
        said = str(error)
    except Exception as error:
        raise AssertionError(f"case {number} ({case.kind}):\n{case.content[:3000]!r}") from error
    assert said is None or path.stem in said or said.startswith("table '"), (number, said)


def check_flags(number: int, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(STREAM)
    command, *rest = flags(number)
    with guard():
        result = CliRunner().invoke(app, [command, str(path), *rest, "--results", str(tmp_path / "store")])
    flag = next(word for word in rest if word in ("--set", "--seeds", "--only", "--gpu"))
    if isinstance(result.exception, ClrayError):
        assert flag in str(result.exception), (number, rest, str(result.exception))
    else:
        assert result.exception is None or isinstance(result.exception, SystemExit), (number, rest, result.exception)
        assert result.exit_code in (0, 2), (number, rest, result.output)


@pytest.mark.parametrize("number", range(100))
def test_a_malformed_sweep_is_accepted_or_one_error(number, tmp_path):
    check_sweep(number, tmp_path)


@pytest.mark.parametrize("number", range(40))
def test_a_malformed_reproduction_is_accepted_or_one_error(number, tmp_path):
    check_reproduction(number, tmp_path)


@pytest.mark.parametrize("number", range(50))
def test_malformed_flags_are_accepted_or_one_error(number, tmp_path):
    check_flags(number, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 3000, 100))
def test_many_malformed_sweeps(start, tmp_path):
    for number in range(start, start + 100):
        check_sweep(number, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 1500, 100))
def test_many_malformed_reproductions(start, tmp_path):
    for number in range(start, start + 100):
        check_reproduction(number, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 1300, 50))
def test_many_malformed_flags(start, tmp_path):
    for number in range(start, start + 50):
        check_flags(number, tmp_path)


def test_a_number_gives_the_same_case_for_ever():
    assert [malformed(n, STREAM) for n in range(50)] == [malformed(n, STREAM) for n in range(50)]
    assert len({malformed(n, STREAM).content for n in range(200)}) > 150


@pytest.mark.parametrize("text", SWEEPS.values(), ids=SWEEPS)
def test_without_a_mistake_there_is_no_error(text, tmp_path):
    """The text that the generator changes is valid. Otherwise every case would be refused for the same reason."""
    (tmp_path / "sweep.yaml").write_text(text)
    makes_sense(load_sweep(tmp_path / "sweep.yaml"), tmp_path)


def test_the_reproduction_without_a_mistake(tmp_path):
    (tmp_path / "test.yaml").write_text(REPRODUCTION)
    assert set(load_reproduction(tmp_path / "test.yaml").sweeps()) == {"mer/rotations", "tag/cifar100_grid"}
