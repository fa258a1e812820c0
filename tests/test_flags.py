"""Flags that make no sense, and ``clray init`` where it cannot write: one error, and no files left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from malformed import STREAM
from typer.testing import CliRunner

from clray.cli import app
from clray.commands.target import selected
from clray.errors import DeclarationError, StoreError


@pytest.fixture
def sweep(tmp_path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(STREAM)
    return path


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(result.exception, DeclarationError), (result.output, result.exception)
    return str(result.exception)


class TestFlags:
    @pytest.mark.parametrize("seeds", ["", ",", "a", "1.5", "0,,1", " ", "9" * 5000])
    def test_seeds_that_are_none(self, sweep, seeds):
        said = refused("plan", sweep, "--seeds", seeds)
        assert said.startswith("--seeds ")
        assert said.endswith("with commas between, or a range, such as 0,1,2 or 0-4: at most 10,000")

    @pytest.mark.parametrize("seeds", ["4-1", "0-10000", "0-", "0-1-2", "0-9" + "9" * 30, "0-x"])
    def test_ranges_that_are_none(self, sweep, seeds):
        assert refused("plan", sweep, "--seeds", seeds).startswith(f"--seeds {seeds}"[:40])

    def test_ranges_of_seeds(self):
        assert selected(False, None, "0-3,7, 9-9", None).seeds == (0, 1, 2, 3, 7, 9)

    def test_a_key_is_set_once(self, sweep):
        said = refused("plan", sweep, "--set", "benchmark.tasks=2", "--set", "benchmark.tasks=3")
        assert said == "--set benchmark.tasks=…: given twice; allowed: one value for each key"

    @pytest.mark.parametrize("only", ["", ",", ",,"])
    def test_only_of_nothing(self, sweep, only):
        assert refused("plan", sweep, "--only", only).startswith("--only ")

    @pytest.mark.parametrize(
        ("share", "said"),
        [
            ("inf", "finite number"),
            ("nan", "finite number"),
            ("1.5", "above 1 it must be a whole number of GPUs (it is 1.5)"),
            ("-1", "greater than or equal to 0"),
            ("1e400", "finite number"),
            ("1e-9", "Ray counts in steps of 0.0001"),
            ("5000", "less than or equal to 1000"),
        ],
    )
    def test_gpu_has_the_rule_of_the_file(self, sweep, tmp_path, share, said):
        text = refused("sweep", sweep, "--dry-run", f"--gpu={share}", "--results", tmp_path / "store")
        assert text.startswith("--gpu ")
        assert said in text

    @pytest.mark.parametrize("share", ["0", "0.25", "1", "2"])
    def test_gpu_that_makes_sense(self, sweep, tmp_path, share):
        arguments = ["sweep", str(sweep), "--dry-run", "--gpu", share, "--results", str(tmp_path / "store")]
        assert CliRunner().invoke(app, arguments).exit_code == 0

    @pytest.mark.parametrize("name", ["", "a" * 5000, "a\0b", "nosuch", "~nobody/x"])
    def test_a_name_that_is_nothing(self, name):
        said = refused("plan", name)
        assert said.isprintable()
        assert len(said) < 4000

    @pytest.mark.parametrize("name", ["", "a" * 5000, "nosuch", "[/x]", "x/y/z", "\x1b[31m"])
    def test_a_data_set_or_method_that_is_none(self, name):
        for command in (["data", "fetch", name], ["data", "verify", name], ["init", "nowhere", "--like", name]):
            said = refused(*command)
            assert said.isprintable()
            assert "allowed: " in said
            assert len(said) < 2000

    def test_a_store_in_the_home_of_nobody(self, sweep):
        result = CliRunner().invoke(app, ["plan", str(sweep), "--results", "~nosuchuser/x"])
        assert isinstance(result.exception, StoreError)
        assert str(result.exception).startswith("~nosuchuser/x: ")

    def test_a_folder_and_a_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path, tmp_path / "pipe"):
            assert refused("plan", path).startswith(f"{path}: ")

    def test_a_sweep_of_no_paper_in_table_and_report(self, sweep, tmp_path):
        sweep.write_text(STREAM.replace("paper: mer\n", ""))
        store = str(tmp_path / "store")
        (tmp_path / "store").mkdir()
        for command in (["plan"], ["table"], ["table", "--format", "json"], ["table", "--format", "md"], ["report"]):
            result = CliRunner().invoke(app, [command[0], str(sweep), *command[1:], "--results", store])
            assert result.exit_code == 0, (command, result.output, result.exception)


class TestInit:
    def test_into_a_file(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        assert "it exists already" in refused("init", tmp_path / "file")
        said = refused("init", tmp_path / "file" / "below" / "it")
        assert said == f"{tmp_path}/file/below/it: cannot be made: Not a directory; name a folder that you may write"
        assert (tmp_path / "file").read_text() == "mine"

    @pytest.mark.parametrize("name", ["a" * 300, "b/c/" + "a" * 300])
    def test_a_name_that_no_folder_can_have(self, tmp_path, name):
        assert "cannot be made" in refused("init", tmp_path / name)
        assert not list(tmp_path.iterdir()), "nothing is left behind"

    def test_a_link_to_nothing(self, tmp_path):
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        assert "it exists already" in refused("init", tmp_path / "link")
        assert (tmp_path / "link").is_symlink()

    def test_what_cannot_be_finished_is_taken_back(self, tmp_path, monkeypatch):
        write = Path.write_text

        def full(path: Path, *arguments: object, **options: object) -> int:
            if path.name == "method.py":
                raise OSError(28, "No space left on device")
            return write(path, *arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(Path, "write_text", full)
        assert "No space left on device" in refused("init", tmp_path / "new" / "one")
        assert not list(tmp_path.iterdir())

    @pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
    def test_into_a_folder_that_is_not_ours(self, tmp_path):
        tmp_path.chmod(0o500)
        try:
            assert "cannot be made: Permission denied" in refused("init", tmp_path / "new")
        finally:
            tmp_path.chmod(0o700)
