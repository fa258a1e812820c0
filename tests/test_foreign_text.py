"""Names, labels, paths and failures written by other people are shown by every command, and never executed."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typed import here
from typer.testing import CliRunner

from clray.cli import app, main
from clray.commands.target import selected, target_of
from clray.errors import ClrayError
from clray.output import visible
from clray.planning import plan
from clray.store import Store

ROOT = str(Path(__file__).resolve().parents[1])
NAMES = ["a[red]", "a[b]", ":smile:", "$x_{", "_hidden", "two, three", "no", "1"]
FAILURES = [
    "weights not found, looked in [/scratch/me/w.pt]",
    "mat1 and [batch, 784]",
    "torn \x1b[31m at s3://AK:SECRET@b",
]
SWEEP = """\
version: 1
paper: mer
title: "odd [/t] $x_{"
track: vision
benchmark: {name: mnist-rotations, tasks: 2, train_per_task: 20, source: embedded}
model: {name: mlp, hidden: [5]}
seeds: [0]
variants:
"""  # fmt: skip


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep file with such names, in a folder with a space in its own name, below the working folder."""
    file = tmp_path / "my sweeps" / "odd.yaml"
    file.parent.mkdir()
    variants = [f"  {json.dumps(name)}: {{method: online, lr: 0.0{i + 1}}}\n" for i, name in enumerate(NAMES)]
    file.write_text(SWEEP + "".join(variants))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return Path("my sweeps/odd.yaml")


@pytest.mark.usefixtures("kernels")
class TestEveryCommand:
    def test_names_are_shown_as_they_are(self, odd: Path) -> None:
        launch = ("sweep", odd, "--local", "--wandb", "off")
        texts = {"plan": here("plan", odd), "sweep": here(*launch), "table": here("table", odd)}
        texts["again"] = here(*launch)
        for name in NAMES:
            for text in texts.values():
                assert visible(name) in text, name
            assert f"{visible(name)} seed 0: RA " in texts["sweep"]
        page = Path("page.html")
        assert here("report", odd, "-o", page) == "page.html\n"
        content = page.read_text(encoding="utf-8")
        for name in NAMES:
            # In the legends of two curves, and at the ticks of the spreads.
            assert content.count(f">{visible(name)}</text>") >= 3, name
        found = {record.variant: record.id for record in Store("results").records()[0]}
        assert sorted(found) == sorted(NAMES)
        for name, id in found.items():
            assert json.loads(here("show", id))["variant"] == name
        shown = [here("status"), *texts.values(), *(here("table", odd, "--format", f) for f in ("md", "latex", "csv"))]
        assert not [text for text in shown if "\x1b" in text]
        data = json.loads(here("table", odd, "--format", "json"))
        assert [cell["label"] for cell in data["tables"][0]["cells"][::3]] == NAMES

    def test_failures_are_shown_as_they_are(self, odd: Path) -> None:
        """And a table lists the trials as failed, whether it knows of any data or not."""
        store = Store("results")
        trials = plan(target_of(str(odd), selected(False, None, None, None)).sweeps, store).trials
        for trial, text in zip(trials, FAILURES, strict=False):
            note = {
                "error": text,
                "kind": "ValueError",
                "traceback": f"Traceback [/x]\nValueError: {text}",
                "host": "h[/]",
            }
            store.write_failure(trial.id, {**note, "time": 0.0, "declaration": trial.trial.declaration})
        wanted = [*FAILURES[:2], "torn \\x1b[31m at s3://***@b"]
        texts = [here("plan", odd), here("status"), here("table", odd), here("sweep", odd, "--dry-run", "--local")]
        for text in [*texts, here("table", odd, "--format", "md")]:
            plain = " ".join(text.replace("\\_", "_").replace("\\\\", "\\").replace("\\*", "*").split())
            assert all(failure in plain for failure in wanted)
            assert "\x1b" not in text
            assert "SECRET" not in text
        assert f"failed a[red] seed 0: ValueError: {FAILURES[0]}" in " ".join(texts[2].split())
        assert "not begun: $x_{; _hidden; " in texts[2]
        for trial, text in zip(trials, wanted, strict=False):
            assert f"its last attempt failed on h[/]:\nTraceback [/x]\nValueError: {text}\n" in here("show", trial.id)
        # None of it stands in the way of a launch, and what succeeds is a failure no longer.
        assert "[1/1] a[red] seed 0: RA " in here("sweep", odd, "--local", "--wandb", "off", "--only", "a[red]")
        assert FAILURES[0] not in here("plan", odd)
        assert f"failed a[b] seed 0: ValueError: {FAILURES[1]}" in " ".join(here("table", odd).split())

    def test_a_failure_while_it_runs(self, odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from clray.vision.methods import online

        def broken(*_: object) -> None:
            raise ValueError(FAILURES[0])

        monkeypatch.setattr(online.Online, "learn", broken)
        result = CliRunner().invoke(
            app, ["sweep", str(odd), "--local", "--wandb", "off", "--only", "a[red]", "--results", "my results"]
        )
        assert result.exit_code == 1
        [line] = [line for line in result.stdout.splitlines() if "(clray show" in line]
        assert f": ValueError: {FAILURES[0]}   (clray show " in line
        assert f"failed a[red] seed 0: ValueError: {FAILURES[0]}" in " ".join(result.stdout.split())
        # The command that is named can be typed.
        assert FAILURES[0] in here(*shlex.split(line.rpartition("(")[2].removesuffix(")"))[1:])


class TestPrintedCommands:
    def commands(self, *arguments: object) -> list[str]:
        """Those that a sweep's plan and table name."""
        planned, table = here("plan", *arguments), here("table", "--format", "json", *arguments)
        [run] = [line.removeprefix("run it: ") for line in planned.splitlines() if line.startswith("run it: ")]
        return [run, *json.loads(table)["commands"]]

    def test_they_can_be_typed_as_they_stand(self, odd: Path) -> None:
        flags = ["--only", "two, three", "--only", "$x_{", "--seeds", "3,4", "--set", "variants.a[b].lr=0.5"]
        Path("my results").mkdir()
        commands = self.commands(odd, *flags, "--results", "my results")
        assert [command.split()[1] for command in commands] == ["sweep", "sweep", "table", "report"]
        for command in commands:
            program, _, *typed = shlex.split(command)
            assert (program, typed) == ("clray", [str(odd), *flags, "--results", "my results"])
        typed = shlex.split(commands[0])[1:]
        assert "odd: 4 trials" in here(*typed, "--dry-run", "--local", "--wandb", "off")
        assert "Error" not in here(*shlex.split(commands[2])[1:])

    def test_a_plain_one_is_plain(self, odd: Path) -> None:
        odd.rename("-x.yaml")
        assert self.commands("--", "-x.yaml") == [
            f"clray {verb} ./-x.yaml" for verb in ("sweep", "sweep", "table", "report")
        ]
        here(*shlex.split(self.commands("--", "-x.yaml")[0])[1:], "--dry-run", "--local")
        asked = target_of("mer_rotations", selected(True, None, None, None), "s3://KEY:SECRET@bucket/x")
        assert asked.run == "python -m clray.reproduce mer_rotations --quick --results 's3://***@bucket/x'"

    def test_a_publication_names_all_that_it_needs(self, odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from clray.commands.publish import _publications

        monkeypatch.setenv("WANDB_ENTITY", "my team")
        monkeypatch.delenv("WANDB_PROJECT", raising=False)
        target, store = target_of(str(odd), selected(False, ["a[b]"], "0", None)), Store("some where")
        [one] = _publications(target, store, "offline", project="p q", page=False)
        assert shlex.split(one.again) == [
            "clray", "publish", str(odd), "--only", "a[b]", "--seeds", "0", "--results", store.uri, "--wandb",
            "offline", "--project", "p q", "--entity", "my team", "--no-dashboard",
        ]  # fmt: skip
        [again] = _publications(target, store, "offline")
        assert "--project" not in again.again
        assert again.again.endswith(" --entity 'my team'")


class TestSelection:
    @pytest.mark.parametrize(
        ("only", "chosen"),
        [
            (["two, three"], ["two, three"]),
            (["no,two, three,1"], ["two, three", "no", "1"]),
            (["no", "1"], ["no", "1"]),
            (["no, 1"], ["no", "1"]),
            (["1,"], ["1"]),
        ],
    )
    def test_a_comma_in_a_name_is_no_list(self, odd: Path, only: list[str], chosen: list[str]) -> None:
        target = target_of(str(odd), selected(False, only, None, None))
        assert list(target.sweeps["odd"].variants) == sorted(chosen, key=NAMES.index)

    def test_the_points_of_a_grid_have_commas_too(self, odd: Path) -> None:
        odd.write_text(odd.read_text() + "grid: {model.hidden: [[5, 6], [7]]}\n")
        target = target_of(str(odd), selected(False, ["no@model.hidden=[5, 6],1@model.hidden=[7]"], None, None))
        assert list(target.sweeps["odd"].variants) == ["no@model.hidden=[5, 6]", "1@model.hidden=[7]"]
        with pytest.raises(ClrayError, match="--only two: no such variant"):
            target_of(str(odd), selected(False, ["two,1"], None, None))

    @pytest.mark.usefixtures("kernels")
    def test_one_variant_is_never_a_list(self, odd: Path) -> None:
        assert "two, three seed 0, trial " in here("run", odd, "--variant", "two, three")
        with pytest.raises(ClrayError, match="no,1: no such variant"):
            here("run", odd, "--variant", "no,1")

    def test_rows_of_a_reproduction(self) -> None:
        target = target_of("mer_rotations", selected(False, ["online,mer-5120", "gem-5120"], None, None))
        assert target.selection.only == ("online", "mer-5120", "gem-5120")

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (("--only", ""), "--only '': names no variant"),
            (("--only", " , "), "--only ' , ': names no variant"),
            (("--only", "no", "--only", ""), "--only '': names no variant"),
            (("--seeds", ""), "--seeds '': expected whole numbers"),
            (("--seeds", ","), "--seeds ,: expected whole numbers"),
            (("--results", ""), "--results '': names no store"),
        ],
    )
    def test_what_names_nothing_is_refused(self, odd: Path, flags: tuple[str, ...], said: str) -> None:
        with pytest.raises(ClrayError) as caught:
            here("plan", odd, *flags)
        assert caught.value.exit_code == 2
        assert str(caught.value).startswith(said)

    @pytest.mark.parametrize("id", ["../../x", "", "0" * 15, "0" * 17, "G" * 16, "0" * 16 + "\n", "[/x]"])
    def test_an_id_is_an_id(self, odd: Path, id: str) -> None:
        for command in ("samples", "export"):
            with pytest.raises(ClrayError, match="not the id of a trial; allowed: 16 of the letters 0-9 and a-f"):
                here(command, id)
        parts_of_ids = ("0" * 15, "0" * 17)
        said = "not the id of a trial" if id in parts_of_ids else "no such reproduction, sweep or file"
        with pytest.raises(ClrayError, match=said):
            here("show", id)


@pytest.mark.usefixtures("kernels")
class TestOutput:
    @pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
    def test_it_may_lack_letters(self, odd: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A launch with its plan, lines, table and report; then everything that looks at it."""
        odd.write_text(odd.read_text().replace("a[b]", "数 → é").replace("seeds: [0]", "seeds: [0, 1]"))

        def ended(*command: object) -> tuple[int, str]:
            out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
            for name, value in (("stdout", out), ("stderr", err), ("argv", ["clray", *map(str, command)])):
                monkeypatch.setattr(sys, name, value)
            with pytest.raises(SystemExit) as end:
                main()
            err.flush()
            assert b"Traceback" not in err.buffer.getvalue()  # type: ignore[attr-defined]
            return end.value.code, out.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined, return-value]

        several = ("--only", "数 → é,no")
        launch = ("sweep", odd, "--local", "--wandb", "off", *several)
        for command in (("plan", odd), launch, ("status",), ("data", "list"), ("run", "--help")):
            assert ended(*command)[0] == 0
        assert ended("plan", odd, "--only", "é")[0] == 2
        plus = "±".encode(encoding, "ignore").decode(encoding) or "+/-"
        for form in ("text", "md", "latex", "csv"):
            code, table = ended("table", odd, *several, "--format", form)
            assert code == 0
            assert f" {plus} " in table or form in ("latex", "csv")
            assert "\\u6570 -> " in table or form == "latex"
        code, text = ended("table", odd, *several, "--format", "json")
        assert json.loads(text)["tables"][0]["cells"][0]["label"] == "数 → é"
        code, text = ended("run", odd, "--variant", "数 → é", "--json")
        assert json.loads(text)["metrics"]["RA"] > 0

    def test_a_reproduction_in_ascii(self, tmp_path: Path) -> None:
        command = "-m clray.reproduce mer_rotations --quick --local --wandb off --only online --seeds 0"
        done = subprocess.run(
            [sys.executable, *command.split(), "--set", "benchmark.source=embedded"],
            cwd=tmp_path, capture_output=True, timeout=300,
            env={**os.environ, "PYTHONPATH": ROOT, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert b"Report: " in done.stdout
        assert b" +/- " in done.stdout

    @pytest.mark.parametrize("command", ["data list", "plan 'my sweeps/odd.yaml'"])
    def test_its_reader_may_end(self, odd: Path, command: str) -> None:
        done = subprocess.run(
            ["bash", "-c", f"{shlex.quote(sys.executable)} -m clray {command} | true; echo ${{PIPESTATUS[0]}}"],
            capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": ROOT},
        )  # fmt: skip
        assert done.stderr == ""
        assert done.stdout in ("0\n", "1\n")

    def test_it_may_be_full(self, odd: Path) -> None:
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "clray", "table", odd, "--format", "csv"], stdout=full, stderr=subprocess.PIPE,
                text=True, timeout=120, env={**os.environ, "PYTHONPATH": ROOT},
            )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr == "error: the output cannot be written: No space left on device\n"

    def test_a_page_that_cannot_be_written_is_one_error(self, odd: Path) -> None:
        Path("full").symlink_to("/dev/full")
        for path, reason in (
            ("no/x.html", f"there is no folder {Path.cwd() / 'no'}"),
            ("full", "No space left on device"),
            (".", "it is a folder: name a file"),
            ("", "it is a folder: name a file"),
        ):
            with pytest.raises(ClrayError) as caught:
                here("report", odd, "-o", path)
            assert str(caught.value).endswith(f": cannot be written: {reason}")
        assert sorted(os.listdir()) == ["full", "my sweeps"]

    def test_a_launch_goes_on_without_its_page(self, odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Path("results").mkdir()
        Path("results/reports").write_text("a file where the folder would be")
        shown = here("sweep", odd, "--only", "no", "--local", "--wandb", "off")
        assert "1 of 1 finished" in shown
        assert f"Report: not written: {Path('results/reports').absolute()}" in shown
        assert shown.rstrip().endswith("; later: clray report 'my sweeps/odd.yaml' --only no")

        def broken(*_: object) -> None:
            raise ValueError("no such\nfont")

        monkeypatch.setattr("clray.analysis.plots._figure", broken)
        os.remove("results/reports")
        shown = here("sweep", odd, "--only", "no", "--local", "--wandb", "off")
        assert "Report: not written: ValueError: no such font; later: clray report " in shown
