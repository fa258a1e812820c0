"""``clray compare`` and ``clray leaderboard``: exit codes, one JSON document, and shipped runs on a fresh machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typed import here
from waiting import GUARD

from clray import reference_runs
from clray.errors import ClrayError
from clray.loading import declared_root, load_sweep
from clray.store import Store

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    return folder


def shipped(name: str, variant: str, metric: str) -> list[float]:
    """The values of a variant's reference runs in per cent, by seed."""
    records = [record for record in reference_runs.read(name) if record.variant == variant]
    return [100 * r.metrics[metric] for r in sorted(records, key=lambda r: r.trial.seed)]


@pytest.fixture
def mine(place) -> Path:
    """A user's sweep: a copy of online/mnist with a new variant, of which three seeds have been run."""
    shipped_file = declared_root() / "sweeps" / "online" / "mnist.yaml"
    new = "variants:\n  mine: {method: ocl_er, lr: 0.06, memories: 500}\n"
    path = place / "mine.yaml"
    path.write_text(shipped_file.read_text(encoding="utf-8").replace("variants:\n", new, 1))
    sweep, store = load_sweep(str(path)), Store(place / "results")
    measured = {r.trial.seed: r for r in reference_runs.read("online_mnist") if r.variant == "scr"}
    for cell in sweep.cells:
        if cell.variant == "mine" and cell.trial.seed < 3:
            like = measured[cell.trial.seed]
            id = cell.trial.id(like.data["fingerprint"])
            store.write(replace(like, id=id, trial=cell.trial, variant="mine", sweep="mine"))
    return path


class TestCompare:
    def test_the_shipped_runs_on_a_fresh_machine(self, place):
        text = here("compare", "online_mnist", "er_ace", "derpp")
        assert "ER-ACE" in text
        assert "10 of 10 runs ship with clray" in text
        line = next(line for line in text.splitlines() if line.startswith("DER++"))
        expected = stats.ttest_rel(shipped("online_mnist", "derpp", "ACC"), shipped("online_mnist", "er-ace", "ACC"))
        assert f"{expected.pvalue:.3f}" in line
        assert ("better" in line) == (expected.pvalue < 0.05)
        assert list(place.iterdir()) == []

    def test_json_is_one_document_with_the_same_content(self, place):
        arguments = ("compare", "online_mnist", "--metric", "ACC,F", "--metric", "AAA", "--against", "er-ace", "--json")
        data = json.loads(here(*arguments))
        assert list(data["metrics"]) == ["ACC", "F", "AAA"]
        assert data["family"] == len(data["comparisons"]) == 3 * 19
        found = next(c for c in data["comparisons"] if (c["variant"], c["metric"]) == ("scr", "F"))
        a, b = (np.array(shipped("online_mnist", v, "F")) for v in ("scr", "er-ace"))
        assert found["difference"] == pytest.approx((a - b).mean(), abs=1e-5)
        assert found["p"] == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-3)
        assert found["p_corrected"] >= found["p"]
        assert found["probability_of_improvement"] == pytest.approx(
            stats.mannwhitneyu(b, a).statistic / (len(a) * len(b))
        )

    def test_the_page_about_it_shows_what_is_printed(self, place):
        page = ROOT / "docs" / "comparing.md"
        if not page.exists():
            pytest.skip("docs/ is not part of an installed package")
        *_, shown = (block for block in page.read_text(encoding="utf-8").split("```") if "mean ± sd (n)  " in block)
        said = here("compare", "online_mnist", "er_ace", "derpp", "er", "scr", "hpcr")
        printed = [line.rstrip().removesuffix("to decide").rstrip() for line in said.splitlines()]
        for line in filter(None, shown.splitlines()):
            assert line in printed
        assert "+2.37 [−0.07, +4.81]" in here("compare", "online_class_orders", "er", "derpp")
        assert "+2.37 [−0.07, +4.81]" in page.read_text(encoding="utf-8")

    def test_by_default_every_variant_against_the_first(self, place):
        data = json.loads(here("compare", "mer_rotations", "--json"))
        assert {c["against"] for c in data["comparisons"]} == {"online"}
        assert len(data["comparisons"]) == 13
        pairs = json.loads(here("compare", "mer_rotations", "GEM", "MER", "ER", "--all-pairs", "--json"))
        assert len(pairs["comparisons"]) == 3
        shown = " ".join(here("compare", "mer_rotations", "Online", "Independent", "--all-pairs").split())
        assert "Independent 66.19 ± 2.42 (5) it is: vs Online 53.57 ± 0.85 (5) " in shown
        assert "against it:" not in shown, "there the lower line would be the better one"

    def test_variants_by_a_pattern(self, place):
        data = json.loads(here("compare", "mer_rotations", "online", "mer*", "--json"))
        assert {c["variant"] for c in data["comparisons"]} == {"mer-5120", "mer6-5120", "mer7-5120"}
        with pytest.raises(ClrayError, match=r"x\*: no variant of mer_rotations"):
            here("compare", "mer_rotations", "online", "x*")

    def test_a_new_variant_beside_baselines_that_ship(self, mine):
        data = json.loads(here("compare", mine, "er", "mine", "scr", "--json"))
        counts = {v["variant"]: (v["own_runs"], v["reference_runs"]) for v in data["variants"]}
        assert counts == {"er": (0, 5), "mine": (3, 0), "scr": (0, 5)}
        found = data["comparisons"][0]
        assert (found["variant"], found["test"], found["pairs"]) == ("mine", "paired", 3)
        a, b = shipped("online_mnist", "scr", "ACC")[:3], shipped("online_mnist", "er", "ACC")[:3]
        assert found["p"] == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-3)
        missing = next(v for v in data["variants"] if v["variant"] == "mine")["missing"]
        assert [run["seed"] for run in missing] == [3, 4]
        assert "mine: 3 of 5 runs, without seeds 3, 4" in here("compare", mine, "er", "mine")

    @pytest.mark.parametrize(("records", "counts"), [("own", (3, 0)), ("reference", (0, 5))])
    def test_records_alone(self, mine, records, counts):
        data = json.loads(here("compare", mine, "mine", "er", "--records", records, "--json"))
        assert tuple(v["finished_runs"] for v in data["variants"]) == counts

    def test_a_baseline_that_nobody_named_has_runs(self, mine):
        """The next variant takes the place of a first one without runs, unless the user named it."""
        shutil.rmtree("results")
        data = json.loads(here("compare", mine, "--json"))
        assert {c["against_label"] for c in data["comparisons"]} == {"naive"}
        assert "mine has no run yet, so that naive takes its place" in here("compare", mine)
        named = here("compare", mine, "--against", "mine")
        assert "takes its place" not in named
        assert "no run of mine" in named
        assert f"{np.mean(shipped('online_mnist', 'naive', 'ACC')):.2f} ± " in named

    def test_without_any_run_it_says_how_to_make_some(self, place):
        text = here("compare", "mer_rotations", "--quick")
        assert "0 of 42 finished" in text
        assert "`python -m clray.reproduce mer_rotations --quick` runs these trials" in text
        assert json.loads(here("compare", "mer_rotations", "--quick", "--json"))["comparisons"][0]["p"] is None

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("nothing",), "nothing: no such reproduction, sweep or file"),
            (("mer_rotations", "gem-512"), "gem-512: no variant of mer_rotations; did you mean 'gem-5120'?"),
            (("mer_rotations", "GEM"), "GEM: nothing to compare: it needs two different variants"),
            (("mer_rotations", "--against", "x"), "x: no variant of mer_rotations; allowed: online, "),
            (("mer_rotations", "--metric", "acc"), "--metric acc: no such metric"),
            (("mer_rotations", "--metric", ""), "--metric '': no such metric"),
            (
                ("mer_rotations", "--all-pairs", "--against", "GEM"),
                "--against GEM: with --all-pairs there is no baseline",
            ),
            (
                ("mer_rotations", "GEM", "MER", "--metric", "A_AUC"),
                "A_AUC: no run of mer/rotations has this metric; allowed: RA, LA, BTI, ",
            ),
            (("mer_rotations", "--seeds", "a"), "--seeds a: expected whole numbers"),
        ],
    )
    def test_wrong_use_exits_with_2(self, place, arguments, said):
        with pytest.raises(ClrayError) as caught:
            here("compare", *arguments)
        assert caught.value.exit_code == 2
        assert said in str(caught.value)
        assert list(place.iterdir()) == []


class TestLeaderboard:
    def test_own_runs_reference_runs_and_published_numbers(self, mine):
        data = json.loads(here("leaderboard", mine, "online_mnist", "mer_rotations", "--metric", "ACC", "--json"))
        first, second = data["leaderboards"]
        assert {e["source"] for e in first["entries"] if e["rank"]} == {"own", "reference"}
        assert sum(e["label"].startswith("scr") or e["label"] == "SCR" for e in first["entries"]) == 1
        assert first["differs_from_first"] == []
        assert any(text.startswith("benchmark.name mnist-rotations (") for text in second["differs_from_first"])
        means = [e["mean"] for e in first["entries"] if e["rank"]]
        assert means == sorted(means, reverse=True)

    def test_published_numbers_have_their_paper_and_table(self, place):
        text = here("leaderboard", "mer_rotations")
        line = next(line for line in text.splitlines() if "89.56 ± 0.11 (5)" in line)
        assert "published: Riemer et al., ICLR 2019, Table 1" in line
        assert any("reference runs" in line for line in text.splitlines())

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("mer_rotations", "nothing"), "nothing: no such reproduction, sweep or file"),
            (("mer_rotations", "--metric", "RA,LA"), "--metric RA,LA: a leaderboard is ranked by one metric"),
            (("mer_rotations", "--metric", "x"), "--metric x: no such metric"),
        ],
    )
    def test_wrong_use_exits_with_2(self, place, arguments, said):
        with pytest.raises(ClrayError) as caught:
            here("leaderboard", *arguments)
        assert caught.value.exit_code == 2
        assert said in str(caught.value)


class TestReport:
    def test_the_baseline_is_chosen(self, place):
        page = place / "page.html"
        here("report", "online_mnist", "--against", "er_ace", "-o", page)
        text = page.read_text(encoding="utf-8")
        assert "ACC minus that of ER-ACE, points; better is to the right" in text
        assert "clray report online_mnist --records reference --against er-ace" in text

    def test_an_unknown_one_is_refused_and_nothing_is_written(self, place):
        with pytest.raises(ClrayError, match="--against er-x: no variant of online_mnist; did you mean"):
            here("report", "online_mnist", "--against", "er-x", "-o", "page.html")
        assert list(place.iterdir()) == []


@pytest.mark.parametrize("command", [("compare", "mer_rotations", "MER", "GEM"), ("leaderboard", "mer_rotations")])
def test_stdout_and_exit_codes_of_the_real_command(tmp_path, command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "clray", *arguments]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=GUARD, env=environment)

    done = run(*command, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    json.loads(done.stdout)
    wrong = run(*command, "--metric", "nothing")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: --metric nothing: no such metric")
    assert wrong.stderr.count("\n") == 1
