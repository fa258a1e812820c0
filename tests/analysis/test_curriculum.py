"""The Curriculum Designer's score, the F-score, and the study of class orders in tables and pages."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from made_records import REAL
from test_orders import printed

from clray import analysis
from clray.analysis import curriculum
from clray.analysis.comparison import compare
from clray.analysis.report import render
from clray.errors import DeclarationError
from clray.loading import load_sweep
from clray.metrics import Measurement
from clray.record import Record
from clray.selection import Selection
from clray.vision.datasets.embedded import embedded_digits
from clray.vision.prototypes import distances, prototypes

RECORDED = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "online" / "curriculum.json").read_text(encoding="utf-8")
)
BETWEEN = np.array(RECORDED["D"])
ALL = list(itertools.permutations(range(5)))


class TestScore:
    def test_distances_are_those_of_the_official_code(self):
        assert distances(np.array(RECORDED["features"])) == pytest.approx(BETWEEN, abs=1e-12)

    @pytest.mark.parametrize(("ranks", "key"), [(False, "scores_float"), (True, "scores_int")])
    def test_all_orders_score_as_in_the_official_code(self, ranks, key):
        recorded = RECORDED["var_ddof0_with_diagonal"][key]
        found = curriculum.scores(BETWEEN, ALL, ranks)
        assert len(recorded) == 120
        for order, score in zip(ALL, found, strict=True):
            assert score == pytest.approx(recorded["".join(map(str, order))], abs=1e-12)

    def test_f(self):
        for case in RECORDED["fscore"]["values"]:
            assert curriculum.f_score(case["a"], case["b"]) == pytest.approx(case["F"], abs=1e-15)

    def test_f_of_a_matrix(self):
        matrix = np.array([[0.9, 0.0, 0.0], [0.5, 0.8, 0.0], [0.3, 0.6, 0.9]])
        assert curriculum.f_of(matrix) == pytest.approx(2 * 0.6 / (0.6 * 0.6 + 1))

    def test_the_declared_distances_are_those_of_the_digits(self):
        """Training the teacher may round otherwise on another machine."""
        declared = load_sweep("online/class_orders").curriculum
        assert list(declared) == ["pixels", "teacher"]
        for name, close in (("pixels", 6e-5), ("teacher", 0.02)):
            found = distances(prototypes(embedded_digits(), name))
            assert found == pytest.approx(np.array(declared[name]), abs=close)


class TestStatistics:
    def test_correlation(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=50)
        y = x + rng.normal(size=50)
        r, low, high = curriculum.pearson(x, y)
        assert r == pytest.approx(np.corrcoef(x, y)[0, 1])
        assert math.atanh(high) - math.atanh(r) == pytest.approx(1.959964 / math.sqrt(47))
        assert low < r < high
        assert all(math.isnan(v) for v in curriculum.pearson(x, np.ones(50)))
        assert curriculum.pearson(x, -x)[0] == pytest.approx(-1)

    def test_the_interval_covers(self):
        rng, hits = np.random.default_rng(1), 0
        for _ in range(400):
            x = rng.normal(size=40)
            y = 0.5 * x + math.sqrt(0.75) * rng.normal(size=40)
            _, low, high = curriculum.pearson(x, y)
            hits += low <= 0.5 <= high
        assert 0.92 < hits / 400 < 0.98

    def test_quarter_in_top(self):
        score = np.arange(20.0)
        assert curriculum.quarter_in_top(score, score, 10) == 5
        assert curriculum.quarter_in_top(score, -score, 10) == 0
        assert curriculum.quarter_in_top(score, np.roll(score, 2), 3) == 1  # the best three by F are 0, 1 and 19

    def test_agreement(self):
        ranking = np.arange(20.0)
        assert curriculum.agreement(ranking, ranking**3) == 1
        assert curriculum.agreement(ranking, -ranking) == 0.2  # the middle fifth alone
        mean, high = curriculum.chance_agreement(120)
        assert mean == pytest.approx(0.2, abs=0.01)
        assert 0.25 < high < 0.3


def fill(store, sweep, worth) -> None:
    """A record of each trial, in which ``worth(variant, order)`` is the final accuracy on each task."""
    for cell in sweep.cells:
        trial = cell.trial
        order = tuple(trial.task_order or range(5))
        final = worth(cell.variant, order)
        rows = [
            Measurement(100 * (t + 1), t + 1, j, "accuracy", 1.0 if t < 4 else final)
            for t in range(5)
            for j in range(t + 1)
        ]
        store.write(Record(trial.id(REAL["fingerprint"]), trial, dict(REAL), rows))


@pytest.fixture
def study(store):
    sweep = load_sweep("online/class_orders", Selection(seeds=(0,)))
    between = np.array(sweep.curriculum["pixels"])
    of = dict(zip(ALL, curriculum.scores(between, ALL), strict=True))
    noise = dict(zip(ALL, np.random.default_rng(0).random(120), strict=True))
    fill(store, sweep, lambda variant, order: {"naive": of[order] / 5, "er": of[order] / 6}.get(variant, noise[order]))
    return compare("online/class_orders", {"online/class_orders": sweep}, store)


class TestTables:
    def test_a_score_that_decides_everything(self, study):
        (table,) = study.tables
        lines = {(line[0], line[1]): line[2:] for line in curriculum.score_lines(table)}
        assert len(lines) == 6
        assert lines["naive", "pixels"][0] == "120"
        assert float(lines["naive", "pixels"][3]) > 0.99
        assert lines["naive", "pixels"][5:] == ["10", "20", "30"]
        assert abs(float(lines["derpp", "pixels"][3])) < 0.25
        low, high = map(float, lines["derpp", "pixels"][4].split(" … "))
        assert low < float(lines["derpp", "pixels"][3]) < high
        agreed = {(one, other): share for one, other, _, share, _ in curriculum.agreement_lines(table)}
        assert agreed["naive", "er"] == "100.00"
        assert float(agreed["naive", "derpp"]) < 35

    def test_every_form_has_it(self, study):
        text = printed(study, 140)
        assert "Curriculum Designer's score and F-score" in text
        assert "Agreement of the rankings of orders" in text
        assert max(len(line.rstrip()) for line in printed(study, 80).splitlines()) <= 80
        page = render(study)
        assert "its interval" in page
        assert page.count("Score and F-score of each task order") == 1
        assert "its interval" in analysis.to_markdown(study)
        assert "its interval" in analysis.to_latex(study)
        data = json.loads(analysis.to_json(study))["tables"][0]["curriculum"]
        assert len(data) == 360
        assert set(data[0]) == {"table", "label", "order", "F", "score pixels", "score teacher"}
        assert "score pixels" in analysis.to_csv(study)

    def test_f_is_averaged_over_an_orders_runs(self, store):
        sweep = load_sweep("online/class_orders", Selection(set=("task_orders=[identity, [4, 3, 2, 1, 0]]",)))
        for i, cell in enumerate(c for c in sweep.cells if c.variant == "er"):
            rows = [
                Measurement(100, t + 1, j, "accuracy", 1.0 if t < 4 else 0.1 * (i + 1))
                for t in range(5)
                for j in range(t + 1)
            ]
            store.write(Record(cell.trial.id(REAL["fingerprint"]), cell.trial, dict(REAL), rows))
        (one,) = curriculum.studies(compare("x", {"x": sweep}, store).tables[0])
        expected = [
            np.mean([curriculum.f_score(a, 1 - a) for a in part]) for part in ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
        ]
        assert one.orders == [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0)]
        assert one.measured == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("[[0, 1], [1, 0]]", r"curriculum.own: expected a row of distances for each task \(tasks: 3\)"),
        ("[[0, 1], [1, 0], [1, 1]]", "curriculum.own: expected a row"),
        ("[[0, 1, 1], [1, 0.5, 1], [1, 1, 0]]", "curriculum.own.1: distances must be zero from a task to itself"),
        ("[[0, 1, 1], [2, 0, 1], [1, 1, 0]]", "curriculum.own.1: distances must be"),
        ("[[0, 0, 0], [0, 0, 1], [0, 1, 0]]", "curriculum.own.0: distances must be"),
        ("[[0, -1, 1], [-1, 0, 1], [1, 1, 0]]", "greater than or equal to 0"),
    ],
)
def test_wrong_distances_are_refused(tmp_path, rows, said):
    path = tmp_path / "sweep.yaml"
    path.write_text(
        "version: 1\ntrack: vision\nbenchmark: {name: mnist-rotations, tasks: 3, train_per_task: 20}\nseeds: [0]\n"
        f"variants: {{a: {{method: online, lr: 0.1}}}}\ncurriculum: {{own: {rows}}}\n"
    )
    with pytest.raises(DeclarationError, match=said):
        load_sweep(path)
