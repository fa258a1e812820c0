"""The wheel has the same content as the checkout, and its command works anywhere."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, text=True)
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_every_declaration_and_template(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("sweeps", "reproduce"):
        for file in (ROOT / folder).rglob("*.yaml"):
            assert f"clray/declared/{file.relative_to(ROOT)}" in names
    assert "clray/analysis/templates/report.html.j2" in names
    assert "clray/py.typed" in names, "type checkers read the types of an installed clray"
    for file in (ROOT / "clray" / "commands" / "templates").iterdir():
        assert f"clray/commands/templates/{file.name}" in names, "what clray init writes"
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"clray"}, "no other name is taken"
    assert not [name for name in names if name.startswith(("tests/", "bench/", "docs/"))]


def test_a_source_distribution_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path), "-t"]
    subprocess.run([*build, "sdist"], cwd=ROOT, check=True, capture_output=True, text=True)
    (packed,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (folder,) = (p for p in tmp_path.iterdir() if p.is_dir())
    subprocess.run([*build, "wheel"], cwd=folder, check=True, capture_output=True, text=True)
    (again,) = tmp_path.glob("*.whl")
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())


def test_its_command_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def clray(*arguments: str) -> str:
        # -P and the site first: neither this checkout nor an installed clray may answer instead.
        where = f"import sys; sys.path.insert(0, {str(site)!r}); import clray; assert {str(site)!r} in clray.__file__; "
        code = where + f"sys.argv = ['clray', *{list(arguments)!r}]; from clray.cli import main; main()"
        run = subprocess.run(
            [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    listed = clray("list")
    assert "mer_rotations" in listed
    assert "mer/many_permutations" in listed
    plan = clray("plan", "mer_rotations", "--quick", "--only", "online", "--set", "benchmark.source=embedded")
    assert "3 trials" in plan
    assert "runs that ship with clray" in clray("table", "mer_rotations"), "the reference runs are in the wheel, too"
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_files_of_a_user_hide_nothing_of_clray(wheel: Path, tmp_path: Path) -> None:
    """``python -m`` looks in the current folder first: names that users give their own files must not be clray's."""
    (tmp_path / "mine").mkdir()
    for name in ("analysis", "sweeps", "reproduce", "results", "tests"):
        (tmp_path / "mine" / f"{name}.py").write_text("raise SystemExit('a file of the user was imported')\n")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    for installation in (ROOT, tmp_path / "site"):
        command = [sys.executable, "-m", "clray.reproduce", "mer_rotations", "--quick", "--only", "online", "--local"]
        command += ["--set", "benchmark.source=embedded", "--set", "benchmark.train_per_task=20"]
        command += ["--set", "engine=eager"]  # in the wheel no kernel is compiled yet
        environment = {**os.environ, "PYTHONPATH": str(installation)}
        run = subprocess.run(command, cwd=tmp_path / "mine", env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
        assert list((tmp_path / "mine" / "results" / "reports").glob("*.html"))
        shutil.rmtree(tmp_path / "mine" / "results")


def test_it_says_what_it_is_and_what_it_may_be_used_for(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    said = email.message_from_bytes(archive.read(name))
    assert said["License-Expression"] == "Apache-2.0"
    license_text = archive.read(name.replace("METADATA", "licenses/LICENSE")).decode()
    assert license_text == (ROOT / "LICENSE").read_text(encoding="utf-8")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["license"], cited["version"]) == ("Apache-2.0", said["Version"])
    assert f"## {said['Version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert {f"Operating System :: {name}" for name in ("POSIX :: Linux", "MacOS")} <= set(said.get_all("Classifier"))
    assert {"all", "cloud", "cluster", "language", "ray", "wandb"} <= set(said.get_all("Provides-Extra"))
    base = [need for need in said.get_all("Requires-Dist") if "extra ==" not in need]
    assert not [need for need in base if need.startswith(("ray", "wandb", "transformers", "obstore"))]
