"""The command line: exit codes, standard output, one-line errors, and the modules that ``--help`` loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typed import here
from typer.testing import CliRunner
from waiting import GUARD

from clray.cli import DATA_COMMANDS, RECORDS_COMMANDS, app
from clray.errors import ClrayError
from clray.store import Store
from clray.tracks import TRACKS

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
BELOW = [[group, name] for group, names in (("data", DATA_COMMANDS), ("records", RECORDS_COMMANDS)) for name in names]
"""The commands that stand below another one."""
ROOT = str(Path(__file__).resolve().parents[1])
HEAVY = ("torch", "ray", "wandb", "transformers", "numba", "pandas", "matplotlib", "scipy")


def clray(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": ROOT, "WANDB_MODE": "disabled", "COLUMNS": "200", **environment}
    command = [sys.executable, "-m", "clray", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=GUARD, env=environment)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    return folder


class TestHelp:
    def test_every_command_has_one_and_loads_nothing_heavy(self, tmp_path):
        """All in one process that reports what it loaded."""
        code = f"""
import sys
from typer.testing import CliRunner
from clray.cli import app
for command in {[[c] for c in COMMANDS] + BELOW + [[]]!r}:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0, (command, result.output)
    assert "Usage" in result.output and len(result.output) > 200, command
print(" ".join(name for name in {HEAVY!r} if name in sys.modules))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=GUARD, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == ""

    def test_the_commands_that_the_design_names(self):
        named = "list show plan sweep reproduce run table report verify records data status doctor init publish"
        assert set(named.split()) <= set(COMMANDS)

    def test_importing_the_package_loads_nothing_heavy(self, tmp_path):
        loaded = f"print([n for n in {HEAVY!r} if n in sys.modules])"
        code = f"import clray, clray.cli, clray.loading, clray.reproduction, sys; {loaded}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=GUARD, cwd=tmp_path)
        assert done.stdout.strip() == "[]", done.stderr

    def test_the_reproduce_module(self, tmp_path):
        done = subprocess.run(
            [sys.executable, "-m", "clray.reproduce", "--help"], capture_output=True, text=True, timeout=GUARD,
            cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0
        assert "--quick" in done.stdout


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("plan", "mer/rotation"), "did you mean 'mer/rotations'"),
            (("plan", "no.yaml"), "no.yaml: no such reproduction, sweep or file"),
            (("table", "mer_rotations", "--only", "gem-512"), "did you mean 'gem-5120'"),
            (("plan", "mer/rotations", "--seeds", "0,x"), "--seeds 0,x: expected whole numbers"),
            (("plan", "mer/rotations", "--set", "tasks"), "--set tasks: expected KEY=VALUE"),
            (("plan", "mer/rotations", "--set", "benchmark.tasks=none"), "expected a whole number"),
            (("run", "mer/rotations", "--variant", "nothing"), "--variant nothing: no such variant"),
            (("sweep", "mer/rotations", "--local", "--seeds", "-1", "--dry-run"), "greater than or equal to 0"),
            (("data", "fetch", "cifar"), "cifar: no such data set; "),
            (("table", "mer_rotations", "--results", "nowhere"), "--results nowhere: no such folder"),
            (("status", "--results", "nowhere"), "--results nowhere: no such folder"),
            (("compare", "mer_rotations", "--results", "nowhere"), "--results nowhere: no such folder"),
            (("leaderboard", "mer_rotations", "--results", "nowhere"), "--results nowhere: no such folder"),
            (("show", "nothing"), "nothing: no such reproduction, sweep or file"),
            (("show", "0225f8"), "0225f8: not the id of a trial; allowed: 16 of the letters 0-9 and a-f"),
        ],
    )
    def test_wrong_declarations_exit_with_2(self, place, arguments, said):
        with pytest.raises(ClrayError) as caught:
            here(*arguments)
        assert caught.value.exit_code == 2
        assert said in str(caught.value)
        assert list(place.iterdir()) == []

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (("plan", "mer/rotation"), 2, "error: mer/rotation: no such reproduction"),
            (("show", "0" * 16), 1, f"error: {'0' * 16}: no record, checkpoint or failure"),
        ],
    )
    def test_one_message_and_no_traceback(self, place, arguments, code, said):
        done = clray(*arguments, cwd=place)
        assert done.returncode == code
        assert done.stderr.startswith(said)
        assert len(done.stderr.strip().splitlines()) == 1
        assert done.stdout == ""

    @pytest.mark.parametrize(
        "arguments",
        [
            ("plan",),
            ("plan", "a", "--what"),
            ("frobnicate",),
            ("run", "mer/rotations"),
            ("table", "x", "--format", "pdf"),
        ],
    )
    def test_wrong_usage_exits_with_2(self, place, arguments):
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 2
        assert "Traceback" not in result.output

    def test_a_wrong_file_names_its_line(self, place, tiny):
        tiny.write_text(tiny.read_text().replace("tasks: 3", "tasks: 0"))
        done = clray("run", tiny, "--variant", "online", "--json", cwd=place)
        assert done.returncode == 2
        line = next(i for i, text in enumerate(tiny.read_text().splitlines(), 1) if "tasks: 0" in text)
        assert done.stderr.startswith(f"error: {tiny}:{line}: benchmark.tasks: ")
        assert done.stdout == ""

    def test_data_that_is_not_here_exits_with_1(self, place, tiny, monkeypatch):
        monkeypatch.setenv("CLRAY_DATA", str(place / "nothing"))
        tiny.write_text(tiny.read_text().replace("source: embedded", "source: files"))
        with pytest.raises(ClrayError, match=r"CLRAY_DATA=.*: no such folder") as caught:
            here("plan", tiny)
        assert caught.value.exit_code == 1

    def test_a_folder_that_is_none(self, place, tiny):
        (place / "results").write_text("a file")
        with pytest.raises(ClrayError) as caught:
            here("run", tiny, "--variant", "online")
        assert caught.value.exit_code == 2
        assert str(caught.value) == "--results results: is a file; allowed: a folder, s3://…, gs://…"


@pytest.mark.usefixtures("kernels")
class TestRun:
    def test_json_is_one_object_and_nothing_else(self, place, tiny):
        done = clray("run", tiny, "--variant", "er", "--seed", "1", "--json", "--results", "elsewhere", cwd=place)
        assert done.returncode == 0, done.stderr
        [line] = done.stdout.splitlines()
        facts = json.loads(line)
        assert set(facts) == {"trial", "metrics", "seconds", "record"}
        assert 0 < facts["metrics"]["RA"] < 1
        assert Path(facts["record"]) == place / "elsewhere" / "records" / f"{facts['trial']}.parquet"
        record = Store(place / "elsewhere").read(facts["trial"])
        assert record.metrics == facts["metrics"]
        assert record.trial.seed == 1

    def test_a_finished_trial_is_not_run_again(self, place, tiny):
        first = json.loads(here("run", tiny, "--variant", "online", "--json"))
        changed = Path(first["record"]).stat().st_mtime_ns
        assert json.loads(here("run", tiny, "--variant", "online", "--json")) == first
        assert Path(first["record"]).stat().st_mtime_ns == changed
        assert "finished before" in here("run", tiny, "--variant", "online")

    def test_set_makes_another_trial(self, place, tiny):
        plain = json.loads(here("run", tiny, "--variant", "online", "--json"))
        other = json.loads(here("run", tiny, "--variant", "online", "--json", "--set", "variants.online.lr=0.02"))
        assert plain["trial"] != other["trial"]

    def test_a_variant_that_stands_for_several_trials(self, place, tiny):
        tiny.write_text(tiny.read_text().replace("seeds: [0, 1]", "seeds: [0, 1]\ntask_orders: {random: 2}"))
        with pytest.raises(ClrayError, match="2 trials, since it has several task orders"):
            here("run", tiny, "--variant", "online")


@pytest.mark.usefixtures("kernels")
class TestSweep:
    OPTIONS = ("--local", "--wandb", "off", "--only", "online,er", "--results")

    def test_it_runs_once_and_everything_after_comes_from_the_store(self, place, tiny):
        """One launch through a process of its own; then again, and every command that looks."""
        store = place / "there" / "store"
        first = clray("sweep", tiny, *self.OPTIONS, store, cwd=place)
        assert first.returncode == 0, first.stderr
        assert "4 trials to run, 0 finished before" in first.stdout
        assert "RA" in first.stdout
        assert list(place.iterdir()) == [place / "there"]
        records = {p: p.stat().st_mtime_ns for p in (store / "records").iterdir()}
        assert len(records) == 4
        assert not list(store.rglob("*.ckpt*"))

        again = here("sweep", tiny, *self.OPTIONS, store)
        assert "left to run: 0 trials" in again
        assert {p: p.stat().st_mtime_ns for p in (store / "records").iterdir()} == records

        # A wider launch runs what is missing, and that alone.
        wider = here("sweep", tiny, "--seeds", "0", "--only", "ewc", *self.OPTIONS, store)
        assert "1 trial to run, 2 finished before" in wider
        assert {p: t for p, t in records.items() if p.stat().st_mtime_ns == t} == records

        self.look(tiny, store, place)

    def look(self, tiny: Path, store: Path, place: Path) -> None:
        found, _ = Store(store).records()
        mine = next(r for r in found if r.variant == "er" and r.trial.seed == 0)

        planned = here("plan", tiny, "--only", "online,gem", "--results", store)
        assert "tiny: 4 trials" in planned
        assert "left to run: 2 trials" in planned
        assert "from embedded" in planned

        shown = json.loads(here("show", mine.id, "--results", store))
        assert (shown["id"], shown["status"], shown["variant"]) == (mine.id, "finished", "er")
        assert shown["metrics"] == mine.metrics
        assert shown["provenance"]["code"] == mine.provenance["code"]

        assert "5 finished trials, 0 begun" in here("status", "--results", store)

        def table(form: str) -> str:
            return here("table", tiny, "--only", "er", "--format", form, "--results", store)

        assert mine.id in json.dumps(json.loads(table("json")))
        forms = {form: table(form) for form in ("text", "md", "latex", "csv")}
        assert "|" in forms["md"]
        assert "tabular" in forms["latex"]
        assert "," in forms["csv"]
        assert all("er" in form and "RA" in form for form in forms.values())

        page = place / "page.html"
        assert here("report", tiny, "--only", "er,online", "--results", store, "-o", page).strip() == str(page)
        assert mine.id in page.read_text(encoding="utf-8")

    def test_a_dry_run_writes_nothing(self, place, tiny):
        assert "left to run: 20 trials" in here("sweep", tiny, "--dry-run", "--local", "--wandb", "off")
        assert list(place.iterdir()) == []

    def test_a_trial_that_fails_exits_with_1_and_leaves_the_others(self, place, tiny):
        """Replay's code is made to raise an error."""
        code = """
import sys
from clray.vision.methods import er
def broken(self, numbers):
    raise ValueError("no such luck")
er.Er.learn = broken
from clray.cli import main
sys.argv[0] = "clray"
main()
"""
        done = subprocess.run(
            [sys.executable, "-c", code, "sweep", str(tiny), *self.OPTIONS, "results"], cwd=place, capture_output=True,
            text=True, timeout=GUARD, env={**os.environ, "PYTHONPATH": ROOT},
        )  # fmt: skip
        assert done.returncode == 1, done.stdout + done.stderr
        assert "2 trials failed" in done.stdout
        assert "ValueError: no such luck" in done.stdout
        assert "Traceback" not in done.stdout + done.stderr
        store = Store(place / "results")
        assert {r.variant for r in store.records()[0]} == {"online"}
        failed = next(line.split()[0].rstrip(":") for line in done.stdout.splitlines() if "(clray show" in line)
        assert "no such luck" in here("show", failed)
        assert "failed last time: er seed 0: ValueError: no such luck" in here("plan", tiny, "--only", "er")

    def test_quick_says_that_it_is_not_comparable(self, place, tiny):
        shown = here("sweep", tiny, "--quick", "--local", "--wandb", "off", "--results", "r")
        assert "Not comparable with the paper" in shown
        assert {(r.variant, r.trial.seed) for r in Store(place / "r").records()[0]} == {("online", 0), ("er", 0)}


class TestLooking:
    def test_list_names_what_there_is(self, place):
        shown = here("list")
        for word in ("mer_rotations", "mer/permutations", "task_input", "mnist-many-permutations", "0/"):
            assert word in shown
        for word in (
            "Track vision, task by task: ",
            "split-cifar100",
            "agem",
            "scan_length",
            "meta_seq2seq",
            "seq2seq",
        ):
            assert word in shown
        assert all(f"Track {track}" in shown for track in TRACKS)
        assert list(place.iterdir()) == []

    def test_plan_names_each_trial_with_its_id(self, place):
        lines = here("plan", "mer/rotations", "--only", "online", "--seeds", "0,1", "--trials").splitlines()
        told = json.loads(here("plan", "mer/rotations", "--only", "online", "--seeds", "0,1", "--json"))["trials"]
        assert len(told) == 2
        for trial in told:
            assert f"{trial['id']}  online seed {trial['seed']}: to do" in lines

    def test_plan_of_a_reproduction(self, place):
        assert "mer_rotations: " in here("plan", "mer_rotations", "--quick", "--set", "benchmark.source=embedded")

    def test_show_a_sweep(self, place):
        assert json.loads(here("show", "mer/rotations"))["mer/rotations"]["paper"] == "mer"

    def test_show_a_reproduction(self, place):
        found = json.loads(here("show", "mer_rotations"))
        assert found["reproduction"]["tables"][0]["rows"][0]["claims"]["RA"]["mean"] == 53.38
        assert list(found["sweeps"]) == ["mer/rotations"]

    def test_show_a_reference_run(self, place):
        from clray import reference_runs

        shipped = reference_runs.read("mer_rotations", measurements=False)[0]
        found = json.loads(here("show", shipped.id))
        assert (found["id"], found["source"]) == (shipped.id, "reference run, which ships with clray")
        assert found["provenance"] == shipped.provenance

    def test_the_list_has_whole_names(self, place):
        from clray.loading import reproduction_names

        lines = here("list").splitlines()
        assert all(any(line.startswith(name + " ") for line in lines) for name in reproduction_names())

    def test_a_plan_says_that_there_is_a_phase_before(self, place):
        said = here("plan", "online/tuning_mnist", "--seeds", "0", "--only", "er")
        assert "`clray tune online/tuning_mnist --only er --seeds 0 --dry-run` plans them" in " ".join(said.split())

    def test_status_of_nothing(self, place):
        assert "0 finished trials, 0 begun" in here("status")

    def test_status_names_foreign_files(self, place):
        (place / "results" / "records").mkdir(parents=True)
        (place / "results" / "records" / "x.parquet").write_bytes(b"torn")
        assert "x.parquet: skipped" in here("status")

    def test_data_list(self, place):
        shown = here("data", "list")
        assert "mnist" in shown
        assert "train-images-idx3-ubyte.gz" in shown
        assert "scan: needs no file: its grammar makes it" in shown
        assert all(f"Track {track}:\n" in shown for track in TRACKS)

    def test_data_of_the_episodes_track(self, place, monkeypatch, tmp_path):
        monkeypatch.delenv("CLRAY_DATA", raising=False)
        assert "scan-simple: not here\n  put simple_split/ of github.com/brendenlake/SCAN into" in here("data", "list")
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path / "data"))
        split = tmp_path / "data" / "scan" / "simple_split"
        split.mkdir(parents=True)
        (split / "tasks_train_simple.txt").write_text("IN: jump OUT: I_JUMP\n")
        missing = f"scan-simple: {split.parent}: incomplete: missing simple_split/tasks_test_simple.txt"
        assert missing in here("data", "list")
        (split / "tasks_test_simple.txt.gz").write_bytes(b"torn")
        assert f"scan-simple: CLRAY_DATA: {split.parent}\n  simple_split/tasks_train_simple.txt, " in here(
            "data", "list"
        )
        with pytest.raises(ClrayError, match="not the published file"):
            here("data", "verify", "scan-simple")
        with pytest.raises(ClrayError, match="clray cannot download it: put simple_split/"):
            here("data", "fetch", "scan-simple")
        assert "scan: made by its grammar, fingerprint " in here("data", "verify", "episodes/scan")

    def test_data_verify(self, place, mnist):
        assert f"fingerprint {mnist['fingerprint']}" in here("data", "verify", "mnist")

    def test_doctor(self, place):
        done = clray("doctor", cwd=place)
        assert done.returncode == 0, done.stderr
        for word in ("Python", "cores", "GPUs", "Ray", "mnist", "scan-simple", "W&B", "results"):
            assert word in done.stdout

    def test_version(self, place):
        assert here("--version").startswith("clray ")


def test_a_device_that_is_not_here_is_one_error(tiny: Path, tmp_path: Path) -> None:
    for device in ("cuda:99", "gpu"):
        command = ["run", str(tiny), "--variant", "online", "--device", device, "--results", str(tmp_path)]
        with pytest.raises(ClrayError, match=f"--device {device}: not a device of this machine; allowed: cpu"):
            CliRunner().invoke(app, command, catch_exceptions=False)
