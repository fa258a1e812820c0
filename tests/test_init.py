"""``clray init`` makes a folder whose sweep and test run where one stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clray.cli import app
from clray.errors import ClrayError
from clray.loading import load_sweep
from clray.selection import Selection
from clray.tracks import TRACKS, track


def here(*arguments: str) -> str:
    """Run a command in the present folder; errors are raised."""
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False).output


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def every_method() -> list[tuple[str, str]]:
    """Every method of every track, after the name of its track."""
    return [(name, method) for name in TRACKS for kind in track(name).kinds() for method in kind.methods]


def test_it_makes_something_to_start_from(place):
    shown = here("init", "mine")
    assert "try: clray sweep mine/sweep.yaml --quick\n" in shown
    assert {file.name for file in (place / "mine").iterdir()} == {
        "method.py",
        "sweep.yaml",
        "test_method.py",
        "README.md",
    }
    assert (place / "mine" / "sweep.yaml").read_text().startswith("# clray sweep mine/sweep.yaml\n")
    with pytest.raises(ClrayError, match="exists already"):
        here("init", "mine")
    assert "6 trials" in here("plan", "mine/sweep.yaml", "--quick", "--set", "benchmark.source=embedded")


def test_two_methods_have_sweeps_and_pages_of_their_own(place):
    """Both files are called sweep.yaml; the page of the second must not overwrite that of the first."""
    (place / "results").mkdir()
    pages = []
    for folder in ("first", "second"):
        here("init", folder)
        assert load_sweep(f"{folder}/sweep.yaml").name == folder
        pages.append(here("report", f"{folder}/sweep.yaml", "--quick").strip())
    assert [Path(page).name for page in pages] == ["first-quick.html", "second-quick.html"]
    assert all(Path(page).is_file() for page in pages)


def test_a_sweep_in_the_present_folder_is_named_after_it(place, monkeypatch):
    here("init", "mine")
    monkeypatch.chdir(place / "mine")
    assert load_sweep("sweep.yaml").name == "mine"
    Path("sweep.yaml").rename("other.yaml")
    assert load_sweep("other.yaml").name == "other"


def test_it_starts_with_the_settings_of_the_variant_that_was_named(place):
    here("init", "mine", "--like", "lamol", "--variant", "lamol-0.2-task")
    first, *_, last = load_sweep("mine/sweep.yaml", Selection(quick=True)).cells
    assert (first.variant, last.variant) == ("lamol-0.2-task", "mine")
    assert last.trial.hyperparameters == first.trial.hyperparameters
    assert last.trial.hyperparameters["gamma"] == 0.2
    with pytest.raises(ClrayError, match=r"--variant gem: no variant of lamol in .*; .*allowed: lamol-0, ") as caught:
        here("init", "other", "--like", "lamol", "--variant", "gem")
    assert caught.value.exit_code == 2
    assert not (place / "other").exists()


@pytest.mark.parametrize("typed", ["mine", "mine/swep.yaml"])
def test_a_mistyped_file_is_told_the_files_that_are_there(place, typed):
    here("init", "mine")
    with pytest.raises(ClrayError) as caught:
        here("plan", typed)
    assert caught.value.exit_code == 2
    assert str(caught.value).endswith("did you mean 'mine/sweep.yaml'? allowed: mine/sweep.yaml")


def test_a_sweep_where_a_reproduction_is_needed_is_called_a_sweep():
    here("init", "mine")
    with pytest.raises(ClrayError, match=r"mine/sweep\.yaml: it is a sweep, and a reproduction is needed; clray list"):
        here("verify", "mine/sweep.yaml")


@pytest.mark.parametrize(("of", "method"), every_method())
def test_every_method_can_be_started_from(of, method):
    """The copy has the settings of the original, quick and whole, and its own code."""
    here("init", "new one", "--like", f"{of}/{method}")
    for quick in (False, True):
        first, *_, last = load_sweep("new one/sweep.yaml", Selection(quick=quick)).cells
        assert (first.trial.track, first.trial.method) == (of, method)
        assert last.variant == "mine"
        assert last.trial.method.startswith("new one/method.py:")
        assert last.trial.hyperparameters == first.trial.hyperparameters
        assert last.trial.benchmark == first.trial.benchmark
    compile((Path("new one") / "test_method.py").read_text(), "test_method.py", "exec")


@pytest.mark.parametrize(("of", "kind"), [(name, i) for name in TRACKS for i in range(len(track(name).kinds()))])
def test_the_first_sweep_to_start_from_needs_no_file(monkeypatch, of, kind):
    monkeypatch.delenv("CLRAY_DATA", raising=False)
    offered = track(of).kinds()[kind]
    sweep = load_sweep(offered.sweeps[0])
    method = next(c.trial.method for c in sweep.cells if c.trial.method in offered.methods)
    here("init", "mine", "--like", f"{of}/{method}")
    shown = here("sweep", "mine/sweep.yaml", "--quick", "--dry-run", "--local", "--wandb", "off")
    assert "left to run: " in shown


OTHER_RATE = """    def __init__(self, settings, *others):
        super().__init__(settings.model_copy(update={"lr": 3 * settings.lr}), *others)
"""


@pytest.mark.slow
def test_its_tests_pass_and_fail_when_the_method_changes(place, monkeypatch):
    """Also in a folder whose name has a space, and without a data set."""
    monkeypatch.delenv("CLRAY_DATA", raising=False)
    here("init", "my own", "--like", "ocl_er")
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "my own"]
    done = subprocess.run(tests, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    file = place / "my own" / "method.py"
    name = load_sweep("my own/sweep.yaml").cells[-1].trial.method.rpartition(":")[2]
    file.write_text(f"{file.read_text()}\n\nclass {name}({name}):\n{OTHER_RATE}")
    failed = subprocess.run(tests, capture_output=True, text=True)
    assert failed.returncode == 1, failed.stdout
    assert "test_it_is_what_it_was_copied_from" in failed.stdout


def test_a_name_that_several_tracks_have_is_spelt_out(place):
    owned = [method for _, method in every_method()]
    shared = next(method for method in owned if owned.count(method) > 1)
    with pytest.raises(ClrayError, match=f"{shared}: a method of several tracks: write .*/{shared} or .*/{shared}"):
        here("init", "mine", "--like", shared)
    assert list(place.iterdir()) == []


def test_an_unknown_method_names_the_others():
    with pytest.raises(ClrayError, match=r"merr: no such method; did you mean 'mer'\? allowed: online"):
        here("init", "mine", "--like", "merr")
    with pytest.raises(ClrayError, match="episodes/mer: no such method"):
        here("init", "mine", "--like", "episodes/mer")
