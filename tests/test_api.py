"""clray from Python: results as data frames, selections, runs in this process, and tables that show themselves."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_store import record
from typed import here
from waiting import GUARD

import clray
from clray import reference_runs
from clray.api import Results, TrialsFailed
from clray.api.arguments import seeds_of, target
from clray.api.frames import PandasMissing
from clray.errors import ClrayError, DeclarationError, StoreError
from clray.metrics import METRICS
from clray.record import Record
from clray.store import Store

SHIPPED = reference_runs.count("mer_rotations")
COLUMNS = ["id", "track", "sweep", "variant", "method", "benchmark", "seed", "task_order", "data", "data_source"]
LAST = ["status", "seconds", "fresh", "source"]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    return folder


@pytest.fixture(scope="module")
def shipped() -> Results:
    return clray.load(reference="mer_rotations")


def without_ends(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


class TestThePackage:
    def test_its_functions_are_known_before_they_are_loaded(self, tmp_path):
        code = (
            "import clray, sys; before = [n for n in ('clray.api', 'rich', 'pydantic', 'pandas') if n in sys.modules]; "
            "print(before, sorted({'load', 'run', 'table', 'compare', 'leaderboard'} - set(dir(clray)))); "
            "clray.load; print('pandas' in sys.modules, 'torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=GUARD, cwd=tmp_path)
        assert done.stdout.splitlines() == ["[] []", "False False"], done.stderr

    def test_another_name_is_no_attribute(self):
        with pytest.raises(AttributeError, match="module 'clray' has no attribute 'loda'"):
            _ = clray.loda  # type: ignore[attr-defined]

    def test_modules_are_not_hidden_by_functions(self):
        """``clray.sweep`` and its like are modules: no function may have the name of one."""
        package = Path(clray.__file__).parent
        assert not [name for name in clray.__all__ if (package / f"{name}.py").exists() or (package / name).is_dir()]

    def test_every_public_function_has_types_and_a_docstring(self):
        from clray import api

        for name in api.__all__:
            each = getattr(api, name)
            assert each.__doc__, name
            methods = [m for n, m in vars(each).items() if callable(m) and not n.startswith("__")]
            for one in methods if isinstance(each, type) else [each]:
                hints = getattr(one, "__annotations__", {})
                assert "return" in hints, one


class TestLoad:
    def test_reference_runs(self, shipped):
        records = reference_runs.read("mer_rotations")
        assert len(shipped) == len(records) == SHIPPED
        assert {r.id for r in shipped} == {r.id for r in records}
        assert all(isinstance(r, Record) for r in shipped)
        assert repr(shipped) == f"<{SHIPPED} trials: {SHIPPED} of mer/rotations; {SHIPPED} ship with clray>"

    def test_several_reproductions(self, shipped):
        both = clray.load(reference=["mer_rotations", "online_mnist"])
        assert len(both) == SHIPPED + len(reference_runs.read("online_mnist"))
        assert {r.sweep for r in both} == {"mer/rotations", "online/mnist"}

    def test_a_store(self, place):
        one, begun = record(), record(status="running")
        assert one.id == begun.id
        store = Store(place / "results")
        store.write(one)
        found = clray.load()
        assert [r.id for r in found] == [one.id]
        assert found.records[0].measurements == one.measurements
        assert list(found.to_pandas()["source"]) == ["own"]
        assert [r.status for r in clray.load("results", running=True)] == ["finished"]

    def test_trials_in_progress(self, place):
        begun = record(status="running")
        Store(place / "results").write(begun)
        assert len(clray.load("results")) == 0
        assert list(clray.load("results", running=True).to_pandas()["status"]) == ["running"]

    def test_foreign_files_are_named(self, place):
        Store(place / "results").write(record())
        (place / "results" / "records" / "x.parquet").write_bytes(b"torn")
        with pytest.warns(UserWarning, match=r"x\.parquet: skipped: .*; see \.problems"):
            found = clray.load("results")
        assert len(found) == 1
        assert "1 files could not be used" in repr(found)
        assert found.problems[0].path.endswith("x.parquet")

    @pytest.mark.parametrize(
        ("arguments", "keywords", "kind", "said"),
        [
            (("nowhere",), {}, StoreError, "nowhere: there is no such folder"),
            (("",), {}, DeclarationError, "results='': names no store"),
            ((3,), {}, DeclarationError, "results=3: expected text or a path"),
            (("what://x",), {}, StoreError, "what://x"),
            ((), {"reference": "mer_rotation"}, DeclarationError, "did you mean 'mer_rotations'?"),
            ((), {"reference": 3}, DeclarationError, "reference=3: expected a name, or a list of names"),
            (("results",), {"reference": "mer_rotations"}, DeclarationError, "takes one of them"),
        ],
    )
    def test_wrong_input(self, place, arguments, keywords, kind, said):
        with pytest.raises(kind) as caught:
            clray.load(*arguments, **keywords)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
        assert list(place.iterdir()) == []

    def test_joined(self, place, shipped):
        mine = dataclasses.replace(shipped.records[0], sweep="mine")
        joined = Results((mine,)) + shipped
        assert len(joined) == SHIPPED
        kept = joined.select(sweep="mine")
        assert [r.id for r in kept] == [mine.id]
        assert list(kept.to_pandas()["source"]) == ["own"]
        assert len(joined.select(source="reference")) == SHIPPED - 1
        assert len(shipped + shipped) == SHIPPED
        with pytest.raises(TypeError):
            shipped + 1  # type: ignore[operator]


class TestSelect:
    def test_each_key(self, shipped):
        assert len(shipped.select(variant="online")) == 5
        assert len(shipped.select(variant=["online", "ewc"], seed=range(2))) == 4
        assert len(shipped.select(seed=np.arange(2))) == 28
        assert (
            len(shipped.select(method="er", track="vision", benchmark="mnist-rotations", sweep="mer/rotations")) == 25
        )
        assert len(shipped.select(id=shipped.records[3].id)) == 1
        assert len(shipped.select(source="reference", status="finished")) == SHIPPED
        assert len(shipped.select(variant="online").select(seed=0).select(method="online")) == 1
        assert len(shipped.select()) == SHIPPED

    def test_a_seed_or_a_status_that_none_has_is_empty(self, shipped):
        assert len(shipped.select(seed=99)) == len(shipped.select(status="diverged")) == 0
        assert len(shipped.select(seed=[])) == 0
        empty = shipped.select(source="own")
        assert repr(empty) == "<0 trials>"
        assert list(empty.to_pandas().columns) == COLUMNS + LAST
        assert list(empty.measurements().columns)[-2:] == ["metric", "value"]

    def test_a_metric_chooses_columns_and_leaves_out_no_trial(self, shipped):
        chosen = shipped.select(metric=["LA", "RA", "A_AUC"])
        frame = chosen.to_pandas()
        assert list(frame.columns) == [*COLUMNS, "LA", "RA", "A_AUC", *LAST]
        assert len(frame) == SHIPPED
        assert frame["A_AUC"].isna().all()
        assert list(chosen.select(seed=0).to_pandas().columns) == list(frame.columns)

    def test_a_variant_takes_the_points_of_its_grid(self, shipped):
        points = [dataclasses.replace(r, variant=f"er@lr={i}") for i, r in enumerate(shipped.records[:3])]
        results = Results((*points, dataclasses.replace(shipped.records[3], variant="er2")))
        assert len(results.select(variant="er")) == 3
        assert len(results.select(variant="er@lr=1")) == 1

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            (
                {"varient": "online"},
                "select(varient=…): no such key; did you mean 'variant'? allowed: variant, metric, ",
            ),
            ({"variant": "onlin"}, "select(variant='onlin'): no trial here has it; did you mean 'online'?"),
            ({"variant": ["online", "no"]}, "select(variant='no'): no trial here has it"),
            ({"variant": 3}, "variant=3: expected a name, or a list of names"),
            ({"metric": "RAA"}, "metric=RAA: no such metric; did you mean 'RA'?"),
            ({"seed": "0"}, "seed='0': expected a whole number, or a list of whole numbers"),
            ({"seed": 0.5}, "seed=0.5: expected a whole number"),
            ({"seed": True}, "seed=True: expected a whole number"),
            ({"status": "done"}, "select(status='done'): allowed: finished, diverged, running"),
            ({"source": "mine"}, "select(source='mine'): allowed: own, reference"),
        ],
    )
    def test_wrong_input(self, shipped, keys, said):
        with pytest.raises(DeclarationError) as caught:
            shipped.select(**keys)
        assert str(caught.value).startswith(said)


class TestFrames:
    def test_a_row_a_trial_with_the_metrics_in_per_cent(self, shipped):
        frame = shipped.to_pandas()
        assert list(frame.columns[: len(COLUMNS)]) == COLUMNS
        assert list(frame.columns[-len(LAST) :]) == LAST
        shown = list(frame.columns[len(COLUMNS) : -len(LAST)])
        assert shown == [name for name in METRICS if name in shown]
        assert {"RA", "LA", "BTI"} <= set(shown)
        for row, one in zip(frame.to_dict("records"), shipped, strict=True):
            assert (row["id"], row["seed"], row["variant"]) == (one.id, one.trial.seed, one.variant)
            assert row["RA"] == pytest.approx(100 * one.metrics["RA"], abs=1e-6)
            assert row["seconds"] == one.provenance["seconds"]
        assert frame["seed"].dtype == "int64"
        assert frame["RA"].dtype == frame["seconds"].dtype == "float64"
        assert frame["fresh"].all()
        assert set(frame["source"]) == {"reference"}
        assert set(frame["task_order"]) == {"identity"}
        assert "per cent" in frame.attrs["units"]

    def test_the_means_are_those_of_the_table(self, shipped):
        means = shipped.to_pandas().groupby("variant")["RA"].mean()
        cells = clray.table("mer_rotations", records="reference").to_pandas()
        for cell in cells[cells["metric"] == "RA"].to_dict("records"):
            assert means[cell["variant"]] == pytest.approx(cell["ours_mean"], abs=1e-9)

    def test_measurements_are_as_measured(self, shipped):
        one = shipped.select(variant="online", seed=0)
        frame = one.measurements()
        assert len(frame) == len(one.records[0].measurements)
        assert list(frame["value"]) == [m.value for m in one.records[0].measurements]
        assert list(frame["step"]) == [m.step for m in one.records[0].measurements]
        last = frame[(frame["trained_tasks"] == frame["trained_tasks"].max())].groupby("eval_task")["value"].last()
        assert 100 * last.mean() == pytest.approx(one.to_pandas()["RA"].item(), abs=1e-6)
        assert set(one.measurements("accuracy")["metric"]) == {"accuracy"}
        with pytest.raises(
            DeclarationError, match=r"measurements\('acuracy'\): nothing of that name was measured; did"
        ):
            one.measurements("acuracy")

    def test_a_trial_that_diverged_has_no_metrics(self, shipped):
        one = dataclasses.replace(shipped.records[0], status="diverged")
        frame = Results((one, shipped.records[1])).to_pandas()
        assert list(frame["status"]) == ["diverged", "finished"]
        assert math.isnan(frame["RA"][0])
        assert frame["RA"][1] > 0

    def test_code_that_is_no_more_is_not_fresh(self, shipped):
        old = dataclasses.replace(shipped.records[0], provenance={**shipped.records[0].provenance, "code": "0" * 16})
        assert list(Results((old, shipped.records[1])).to_pandas()["fresh"]) == [False, True]

    def test_a_task_order_is_told(self, shipped):
        first = shipped.records[0]
        other = dataclasses.replace(first, trial=first.trial.model_copy(update={"task_order": [2, 0, 1]}))
        assert list(Results((other,)).to_pandas()["task_order"]) == ["2-0-1"]

    def test_without_pandas(self, shipped, monkeypatch):
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(PandasMissing, match=r"^a data frame needs pandas, .*'clray\[pandas\]'$") as caught:
            shipped.to_pandas()
        assert isinstance(caught.value, ClrayError)
        assert isinstance(caught.value, ImportError)
        for ask in (shipped.measurements, clray.table("mer_rotations").to_pandas):
            with pytest.raises(PandasMissing):
                ask()
        assert shipped._repr_html_() is None
        assert len(shipped.select(variant="online")) == 5

    def test_a_notebook_shows_the_frame(self, shipped):
        assert "<table" in (shipped.select(seed=0)._repr_html_() or "")


class TestTables:
    def test_they_print_what_the_commands_print(self, place):
        table = clray.table("mer_rotations", variant=["online", "mer-5120"])
        typed = ("table", "mer_rotations", "--only", "online,mer-5120")
        assert without_ends(str(table)) == without_ends(here(*typed))
        forms = {"json": table.to_json(), "md": table.to_markdown(), "latex": table.to_latex(), "csv": table.to_csv()}
        for form, text in forms.items():
            assert text.rstrip("\n") == here(*typed, "--format", form).rstrip("\n")
        compared = clray.compare("online_mnist", "er_ace", "derpp", metric="ACC")
        assert without_ends(str(compared)) == without_ends(here("compare", "online_mnist", "er_ace", "derpp"))
        assert compared.to_json() == here("compare", "online_mnist", "er_ace", "derpp", "--json").rstrip("\n")
        board = clray.leaderboard("mer_rotations", metric="RA")
        assert without_ends(str(board)) == without_ends(here("leaderboard", "mer_rotations", "--metric", "RA"))
        assert board.to_json() == here("leaderboard", "mer_rotations", "--metric", "RA", "--json").rstrip("\n")
        assert list(place.iterdir()) == []

    def test_the_frames(self, place):
        cells = clray.table("mer_rotations").to_pandas()
        one = cells[(cells["variant"] == "mer-5120") & (cells["metric"] == "RA")].iloc[0]
        assert (one["verdict"], one["published_mean"], one["ours_runs"]) == ("reproduced", 89.56, 5)
        assert cells["ours_mean"].dtype == cells["reference_mean"].dtype == "float64"
        pairs = clray.compare("online_mnist", "er-ace", "derpp", "scr", all_pairs=True).to_pandas()
        assert len(pairs) == 3
        assert (pairs["interval_low"] < pairs["difference"]).all()
        assert pairs["pairs"].dtype == "Int64"
        board = clray.leaderboard("mer_rotations", "online_mnist", metric="ACC").to_pandas()
        assert set(board["board"]) == {0, 1}
        assert set(board["source"]) >= {"reference"}
        assert board["rank"].dtype == "Int64"

    def test_the_page_about_them_names_every_column(self, place, shipped):
        page = Path(__file__).resolve().parents[1] / "docs" / "python.md"
        if not page.exists():
            pytest.skip("docs/ is not part of an installed package")
        text = page.read_text(encoding="utf-8")
        columns = {*clray.table("mer_rotations").to_pandas().columns, *shipped.measurements().columns, *COLUMNS, *LAST}
        assert [name for name in sorted(columns) if f"`{name}`" not in text] == []

    def test_a_notebook_shows_the_text_with_colours(self, place):
        html = clray.table("mer_rotations", variant=["mer-5120", "ewc"])._repr_html_()
        assert html.startswith("<pre")
        assert "differs" in html
        assert "color:" in html

    def test_a_kernel_of_a_notebook_changes_no_text(self, place, monkeypatch, capsys):
        """A kernel sets FORCE_COLOR, and ``rich`` shows there what is printed to any file."""
        plain = str(clray.compare("mer_rotations", "GEM", "MER"))
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
        assert str(clray.compare("mer_rotations", "GEM", "MER")) == plain
        assert "\x1b" not in plain
        assert clray.compare("mer_rotations", "GEM", "MER")._repr_html_().count("<pre") == 1
        assert capsys.readouterr().out == ""

    def test_foreign_names_are_text_in_a_notebook(self, place, tiny):
        tiny.write_text(tiny.read_text().replace("A sweep of seconds", "'<script>alert(1)</script>'"))
        html = clray.table(tiny)._repr_html_()
        assert "<script" not in html
        assert "&lt;script&gt;" in html

    def test_one_of_them_has_changes(self, place):
        changed = clray.table("mer_rotations", quick=True, set={"benchmark.tasks": 3}, seed=0)
        reasons = changed.to_dict()["tables"][0]["not_comparable_because"]
        assert reasons[:2] == ["--quick", "--set benchmark.tasks=3"]

    @pytest.mark.parametrize(
        ("ask", "said"),
        [
            (lambda: clray.table("mer_rotation"), "mer_rotation: no such reproduction, sweep or file; did you mean"),
            (lambda: clray.table("mer_rotations", records="all"), "records='all': allowed: own, reference, both"),  # type: ignore[arg-type]
            (
                lambda: clray.table("lamol/three_tasks", records="both"),
                "no reference runs of lamol/three_tasks ship with clray",
            ),
            (lambda: clray.table("mer_rotations", variant="gem-512"), "did you mean 'gem-5120'"),
            (lambda: clray.table("mer_rotations", set={"tasks": 3}), "--set tasks=3: "),
            (lambda: clray.table("mer_rotations", set=["tasks=3"]), "expected a mapping of dotted keys to values"),  # type: ignore[arg-type]
            (lambda: clray.table("mer_rotations", set={"benchmark.tasks": object()}), "expected a number, text, true"),
            (lambda: clray.table("mer_rotations", set={"benchmark.tasks": math.nan}), "expected a number, text, true"),
            (lambda: clray.table(3), "name=3: expected text or a path"),  # type: ignore[arg-type]
            (lambda: clray.compare("mer_rotations", "nothing"), "nothing: no variant of mer_rotations"),
            (lambda: clray.compare("mer_rotations", metric="RAA"), "metric=RAA: no such metric; did you mean 'RA'?"),
            (lambda: clray.leaderboard(), "leaderboard(): name a reproduction"),
            (lambda: clray.leaderboard("mer_rotations", metric=["RA", "LA"]), "a leaderboard is ranked by one metric"),  # type: ignore[arg-type]
        ],
    )
    def test_wrong_input(self, place, ask, said):
        with pytest.raises(DeclarationError) as caught:
            ask()
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)


class TestSettings:
    def test_values_reach_the_trial_as_they_are(self, tiny):
        changes = {
            "variants.online.lr": 1e-5, "engine": "eager", "model.hidden": np.array([7, 8]), "seeds": (3,),
            "benchmark.train_per_task": np.int64(20),
        }  # fmt: skip
        (sweep,) = target(tiny, "results", False, "online", None, changes).sweeps.values()
        (cell,) = sweep.cells
        assert cell.trial.hyperparameters["lr"] == 1e-5
        assert cell.trial.model["hidden"] == [7, 8]
        assert (cell.trial.engine, cell.trial.seed, cell.trial.benchmark["train_per_task"]) == ("eager", 3, 20)

    @pytest.mark.parametrize("word", ["no", "on", "null", "1e3", "0x1F", "a: b", "~", "", "ja", "2026-11-29"])
    def test_text_stays_text(self, tiny, word):
        (sweep,) = target(tiny, "results", False, None, None, {"title": word}).sweeps.values()
        assert sweep.title == word

    def test_seeds(self):
        assert seeds_of(None) == ()
        assert seeds_of(3) == seeds_of(np.int32(3)) == (3,)
        assert seeds_of([2, 0, 2]) == (2, 0)


@pytest.mark.usefixtures("kernels")
class TestRun:
    def test_one_trial_as_the_command_runs_it(self, place, tiny, capsys):
        made = clray.run(tiny, variant="er", seed=1, results=place / "r")
        assert capsys.readouterr().out == ""
        assert [(r.variant, r.trial.seed, r.status) for r in made] == [("er", 1, "finished")]
        assert made.to_pandas()["fresh"].all()
        here("run", tiny, "--variant", "er", "--seed", "1", "--results", "s")
        (same,) = clray.load("s")
        assert same.id == made.records[0].id
        assert same.measurements == made.records[0].measurements

        again = clray.run(tiny, variant="er", seed=1, results=place / "r")
        assert again.records[0].provenance == made.records[0].provenance, "a finished trial is not run again"

    def test_a_sweep_with_changes(self, place, tiny, capsys, monkeypatch):
        monkeypatch.setenv("FORCE_COLOR", "1")  # as in the kernel of a notebook: lines, and no bars
        made = clray.run(
            tiny, variant=["online", "er"], quick=True, set={"benchmark.tasks": 3, "variants.er.lr": 0.02},
            results="r", progress=True,
        )  # fmt: skip
        said = capsys.readouterr().out
        assert "2 trials to run, 0 finished before" in said
        assert "[2/2] er seed 0: " in said
        assert "\x1b" not in said
        assert [r.variant for r in made] == ["online", "er"]
        assert made.records[1].trial.hyperparameters["lr"] == 0.02
        assert made.records[1].trial.benchmark["tasks"] == 3
        assert len(clray.load("r")) == 2
        again = {"quick": True, "set": {"benchmark.tasks": 3, "variants.er.lr": 0.02}, "results": "r"}
        cells = clray.table(tiny, **again).to_pandas()  # type: ignore[arg-type]
        assert list(cells["ours_runs"]) == [1] * 6

    def test_names_are_those_of_this_sweep(self, place, tiny):
        """A record keeps the names of the sweep that ran it first."""
        clray.run(tiny, variant="online", seed=0, results="r")
        other = place / "other.yaml"
        other.write_text(tiny.read_text().replace("  online: {", "  mine: {").replace("[online, er]", "[mine, er]"))
        (found,) = clray.run(other, variant="mine", seed=0, results="r")
        assert (found.sweep, found.variant) == ("other", "mine")
        assert [r.variant for r in clray.load("r")] == ["online"]

    def test_trials_that_fail_leave_the_others(self, place, tiny, monkeypatch):
        from clray.vision.methods import er

        def broken(self, numbers):
            raise ValueError("no such luck")

        monkeypatch.setattr(er.Er, "learn", broken)
        with pytest.raises(TrialsFailed, match="er seed 0 failed: ValueError: no such luck") as caught:
            clray.run(tiny, variant=["er", "online"], seed=0, results="r")
        assert [r.variant for r in caught.value.results] == ["online"]
        assert len(caught.value.failed) == 1
        assert caught.value.exit_code == 1

    def test_an_interrupt_keeps_what_there_is(self, place, tiny, monkeypatch):
        from clray import launch

        def interrupted(*_: object) -> launch.Outcome:
            return launch.Outcome(interrupted=True)

        monkeypatch.setattr(launch, "run_here", interrupted)
        with pytest.raises(KeyboardInterrupt):
            clray.run(tiny, variant="online", results="r")

    def test_an_edited_method_is_run_again_where_that_is_asked_for(self, place, tiny):
        here("init", "mine", "--like", "er")
        code = place / "mine" / "method.py"
        sweep = {"variant": "mine", "seed": 0, "quick": True, "results": "r", "set": {
            "benchmark.source": "embedded", "benchmark.tasks": 2, "benchmark.train_per_task": 30}}  # fmt: skip
        first = clray.run("mine/sweep.yaml", **sweep)
        code.write_text(code.read_text().replace("    def learn(self", "    altered = True\n\n    def learn(self"))
        stale = clray.run("mine/sweep.yaml", **sweep)
        assert list(stale.to_pandas()["fresh"]) == [False]
        assert stale.records[0].provenance == first.records[0].provenance
        fresh = clray.run("mine/sweep.yaml", rerun_stale=True, **sweep)
        assert list(fresh.to_pandas()["fresh"]) == [True]
        assert fresh.records[0].provenance["code"] != first.records[0].provenance["code"]

    def test_a_method_of_ones_own_that_was_not_loaded_is_neither_fresh_nor_stale(self, place, tiny):
        here("init", "mine", "--like", "er")
        chosen = {"benchmark.source": "embedded", "benchmark.tasks": 2, "benchmark.train_per_task": 30}
        clray.run("mine/sweep.yaml", variant="mine", seed=0, quick=True, results="r", set=chosen)
        code = "import clray\nprint(list(clray.load('r').to_pandas()['fresh'].isna()))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout.strip() == "[True]"

    @pytest.mark.parametrize(
        ("keywords", "said"),
        [
            ({"variant": "nothing"}, "--only nothing: no such variant"),
            ({"seed": -1}, "greater than or equal to 0"),
            ({"set": {"benchmark.tasks": 0}}, "benchmark.tasks"),
            ({"results": " "}, "results=' ': names no store"),
        ],
    )
    def test_wrong_input(self, place, tiny, keywords, said):
        with pytest.raises(DeclarationError) as caught:
            clray.run(tiny, **keywords)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
        assert list(place.iterdir()) == []

    @pytest.mark.slow
    def test_on_ray(self, place, tiny):
        made = clray.run(tiny, variant=["online", "er"], results="r", ray=True)
        alone = clray.run(tiny, variant=["online", "er"], results="s")
        assert len(made) == 4
        assert [r.measurements for r in made] == [r.measurements for r in alone]


class TestBuckets:
    def test_a_store_in_s3(self, tmp_path):
        pytest.importorskip("moto", reason="the stand-in for S3: pip install -c constraints.txt -e '.[dev]'")
        import s3

        with s3.serve(tmp_path) as bucket:
            one = record()
            Store(bucket.uri).write(one)
            found = clray.load(bucket.uri)
            assert [r.id for r in found] == [one.id]
            assert found.to_pandas()["RA"].item() == pytest.approx(100 * one.metrics["RA"], abs=1e-6)
            assert found.records[0].measurements == one.measurements
