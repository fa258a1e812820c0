"""From an installed wheel to a row in a leaderboard, by the commands of docs/your_method.md, as they are printed there.

The wheel is installed by pip in a virtual environment of its own, which sees the packages of the base installation and
none of the extras. The commands are typed in an empty folder, far from the checkout.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest
from bare import ROOT, others, sitecustomize
from waiting import GUARD

PAGE = ROOT / "docs" / "your_method.md"


def blocks() -> list[list[str]]:
    """The commands of the page's first section, block by block, without their comments."""
    first = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
    found = re.findall(r"^```\n(.*?)^```", first, re.M | re.S)
    return [[line.partition("  #")[0].strip() for line in block.splitlines()] for block in found]


class Desk:
    """A folder in which a user types commands, and the environment in which the wheel is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._home = folder / "work", folder / "venv"
        self.folder.mkdir()
        wheel = self._built(folder / "wheel")
        venv.create(self._home, with_pip=False)
        self.bin = self._home / "bin"
        site = Path(sysconfig.get_path("purelib", vars={"base": str(self._home), "platbase": str(self._home)}))
        install = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "--quiet", "--no-deps"]
        install += ["--no-index", "--disable-pip-version-check", str(wheel)]
        subprocess.run(install, check=True, capture_output=True, text=True, timeout=GUARD)
        # A path in a .pth file adds the packages there, but not the checkout that a .pth file among them may name.
        (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
        (site / "sitecustomize.py").write_text(sitecustomize(others()))

    def _built(self, folder: Path) -> Path:
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(build, cwd=ROOT, check=True, capture_output=True, text=True, timeout=GUARD)
        (wheel,) = folder.glob("*.whl")
        return wheel

    def type(self, command: str, **environment: str) -> str:
        """Type a command; returns what it prints."""
        left_out = ("PYTHONPATH", "VIRTUAL_ENV", "NUMBA_CACHE_DIR")
        env = {name: value for name, value in os.environ.items() if name not in left_out}
        env |= {
            "PATH": f"{self.bin}{os.pathsep}{env['PATH']}",
            "WANDB_MODE": "disabled",
            "COLUMNS": "200",
            **environment,
        }
        program, *arguments = shlex.split(command)
        found = shutil.which(program, path=env["PATH"])
        assert found == str(self.bin / program), f"{command}: {program} is the installed one"
        done = subprocess.run(
            [found, *arguments], cwd=self.folder, env=env, capture_output=True, text=True, timeout=GUARD
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def edit(self, old: str, new: str) -> None:
        """Change the method."""
        file = self.folder / "my-method" / "method.py"
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))


def rows(shown: str) -> dict[str, list[str]]:
    """The lines of a table by their first word that is no rank."""
    found = {}
    for line in shown.splitlines():
        words = [word for word in line.split() if not re.fullmatch(r"\d+(–\d+)?", word)]
        if words and words[0] in ("er-5120", "mine") and words[0] not in found:
            found[words[0]] = line.split()
    return found


def mean(row: list[str]) -> float:
    """The mean in a row of a leaderboard, after its rank and its label."""
    return float(row[2])


def test_the_page_installs_and_starts_as_it_says() -> None:
    first, edited, whole = blocks()
    assert first[0] == "pip install clray"
    assert [line.split()[:2] for line in first[1:]] == [
        ["clray", verb] for verb in ("init", "sweep", "compare", "leaderboard")
    ]
    assert [line.split()[:2] for line in edited] == [["clray", "plan"], ["clray", "sweep"]]
    assert [line.split()[:2] for line in whole] == [["clray", verb] for verb in ("sweep", "compare", "leaderboard")]


@pytest.mark.slow
def test_from_the_wheel_to_a_row_in_the_leaderboard(desk: Desk) -> None:
    first, edited, _ = blocks()
    where = "import clray; print(clray.__file__)"
    assert desk.type(f"python -c {shlex.quote(where)}").startswith(str(desk.bin.parent)), "not the checkout"
    assert not desk.type("clray doctor").count("extras: ray"), "the base installation has none"
    shown = {line.split()[1]: desk.type(line) for line in first[1:]}
    assert "6 of 6 finished" in shown["sweep"]
    assert "not decided" in shown["compare"]
    ranked = rows(shown["leaderboard"])
    assert ranked["mine"][0] == ranked["er-5120"][0] == "1–2"
    assert ranked["mine"][-2:] == ranked["er-5120"][-2:] == ["own", "runs"]
    assert mean(ranked["mine"]) == mean(ranked["er-5120"]), "a copy has the numbers of its original"

    desk.edit("    def learn(", "    # a comment is no change\n    def learn(")
    assert rows(desk.type(edited[0]))["mine"][1:5] == ["3", "·", "·", "·"]
    desk.edit("self._replays(), number)", "self._replays(), [number, number])")
    planned = rows(desk.type(edited[0]))
    assert planned["er-5120"][1:5] == ["3", "·", "·", "·"]
    assert planned["mine"][1:5] == ["·", "·", "·", "3"], "finished, half-done, to do, stale"
    assert "--rerun-stale runs them again" in " ".join(desk.type(first[-1]).split()), "the leaderboard says so, too"
    assert "3 trials to run, 3 finished before" in desk.type(edited[1])
    ranked = rows(desk.type(first[-1]))
    assert mean(ranked["er-5120"]) == mean(rows(shown["leaderboard"])["er-5120"])
    assert mean(ranked["mine"]) != mean(ranked["er-5120"])


@pytest.mark.slow
def test_the_whole_form_stands_beside_the_published_numbers(desk: Desk, mnist: dict[str, Any]) -> None:
    """With one of the five seeds, which takes a fifth of the time."""
    shutil.rmtree(desk.folder / "my-method", ignore_errors=True)
    first, _, whole = blocks()
    desk.type(first[1])
    shown = {line.split()[1]: desk.type(f"{line} --seeds 0") for line in whole}
    assert "1 of 1 finished" in shown["sweep"]
    ranked = rows(shown["leaderboard"])
    assert ranked["mine"][-2:] == ["own", "runs"]
    assert ranked["er-5120"][-2:] == ["reference", "runs"]
    assert mean(ranked["mine"]) == mean(ranked["er-5120"])
    assert "published: Riemer et al., ICLR 2019, Table 1" in shown["leaderboard"]
