"""Task orders: a column for each, ours beside the published number, and how much the order matters."""

from __future__ import annotations

import csv as csv_format
import io
import json as json_format
import math
import statistics
from pathlib import Path

import pytest
from made_records import REAL, measured, of
from rich.console import Console

from clray import analysis, tracks
from clray.analysis import plots
from clray.analysis.comparison import compare
from clray.analysis.gather import gather, read
from clray.analysis.orders import blocks, sensitivities, sensitivity
from clray.analysis.report import render
from clray.analysis.runs import order_name
from clray.errors import DeclarationError
from clray.loading import load_sweep
from clray.record import Record
from clray.reproduction import load_reproduction
from clray.selection import Selection
from clray.store import Store

SWEEP = """\
version: 1
paper: mer
title: In some orders
track: language
benchmark: {name: stream, tasks: [sst, srl, woz.en]}
seeds: [1, 2]
task_orders: [[sst, srl, woz.en], [woz.en, srl, sst], [1, 0, 2]]
metrics: [ACC, F]
variants:
  plain: {method: finetune}
  replay: {method: lamol}
  never: {method: ewc}
quick:
  task_orders: [[srl, sst, woz.en], [srl, woz.en, sst]]
"""
REPRODUCTION = """\
version: 1
paper: mer
title: By order
runs: 3
spread: sd
known: paper
margins: {ACC: {points: 5.0, reason: enough}}
tables:
  - title: Orders
    sweep: SWEEP
    source: Table 3
    metrics: [ACC, F]
    orders: {SST-SRL-WOZ: [sst, srl, woz.en], (ii): [2, 1, 0], SRL-SST-WOZ: [srl, sst, woz.en]}
    rows:
      - {label: Plain, variant: plain, claims: {ACC: 50.0}, by_order: {SST-SRL-WOZ: 60.0 ± 0.5, (ii): 40.0}}
      - label: Replay
        variant: replay
        claims: {ACC: 80 ± 1}
        by_order: {SST-SRL-WOZ: 80.0 ± 0.5, (ii): {mean: 10.0, spread: 0.1, known: recalled, note: a doubt}}
      - {label: Never, variant: never, note: not in the paper}
"""
PLAIN = {(0, 1, 2): [60.0, 62.0], (2, 1, 0): [40.0, 44.0], (1, 0, 2): [50.0, 53.0]}
REPLAY = {(0, 1, 2): [80.1, 79.9], (2, 1, 0): [79.0, 80.0], (1, 0, 2): [81.0]}


@pytest.fixture(autouse=True)
def named_tasks(monkeypatch):
    monkeypatch.setitem(tracks.TRACKS, "language", "named_tasks")


@pytest.fixture
def declared(tmp_path: Path):
    """``declared((old, new), …)`` is the reproduction with some of its text or its sweep's replaced."""

    def write(*changes: tuple[str, str]):
        sweep, reproduction = SWEEP, REPRODUCTION.replace("SWEEP", str(tmp_path / "sweep.yaml"))
        for old, new in changes:
            assert old in sweep + reproduction
            sweep, reproduction = sweep.replace(old, new), reproduction.replace(old, new)
        (tmp_path / "sweep.yaml").write_text(sweep, encoding="utf-8")
        (tmp_path / "orders.yaml").write_text(reproduction, encoding="utf-8")
        return load_reproduction(tmp_path / "orders.yaml")

    return write


def fill_orders(store: Store, sweep, variant: str, accuracies: dict[tuple[int, ...], list[float]]) -> None:
    """Records with these final accuracies, by task order a run a seed."""
    for cell in of(sweep, variant):
        trial = cell.trial
        order = tuple(trial.task_order or range(3))
        values = dict(zip(sweep.seeds, accuracies.get(order, []), strict=False))
        if trial.seed in values:
            store.write(Record(trial.id(REAL["fingerprint"]), trial, dict(REAL), measured(3, 85.0, values[trial.seed])))


@pytest.fixture
def compared(declared, store):
    def of_runs(*changes: tuple[str, str], selection: Selection | None = None):
        reproduction = declared(*changes)
        sweeps = reproduction.sweeps(selection or Selection())
        (sweep,) = sweeps.values()
        fill_orders(store, sweep, "plain", PLAIN)
        fill_orders(store, sweep, "replay", REPLAY)
        return compare("orders", sweeps, store, reproduction)

    return of_runs


def printed(comparison, width: int = 80) -> str:
    out = io.StringIO()
    Console(width=width, force_terminal=False, color_system=None, file=out).print(analysis.to_terminal(comparison))
    return out.getvalue()


def row_of(comparison, label: str):
    return next(row for row in comparison.tables[0].rows if row.label == label)


class TestColumns:
    def test_each_order_has_its_runs_and_its_claim(self, compared):
        table = compared().tables[0]
        assert table.orders == ["SST-SRL-WOZ", "(ii)", "SRL-SST-WOZ"]
        plain = table.rows[0].orders
        assert list(plain["SST-SRL-WOZ"].values.values()) == pytest.approx([60, 62])
        assert list(plain["(ii)"].values.values()) == pytest.approx([40, 44])
        assert plain["(ii)"].claim.mean == 40
        assert plain["SRL-SST-WOZ"].claim is None
        assert {cell.metric for cell in plain.values()} == {"ACC"}

    def test_the_metric_over_all_orders_stands_beside_them(self, compared):
        cell = row_of(compared(), "Plain").cells["ACC"]
        assert (cell.ours.n, cell.ours.mean) == (6, pytest.approx(statistics.mean([60, 62, 40, 44, 50, 53])))
        assert cell.claim.mean == 50

    def test_orders_are_judged_as_other_cells_are(self, compared):
        comparison = compared()
        plain, replay = row_of(comparison, "Plain").orders, row_of(comparison, "Replay").orders
        assert replay["SST-SRL-WOZ"].judgement.outcome == "reproduced"
        assert (replay["(ii)"].judgement.outcome, replay["(ii)"].dagger) == ("differs", "†")
        assert (plain["(ii)"].judgement.outcome, plain["(ii)"].judgement.reason) == (
            "not judged",
            "no published spread",
        )
        assert plain["(ii)"].judgement.difference == pytest.approx(2.0)
        # Replay's mean, and three of the claims by order: they are corrected for together
        assert comparison.tables[0].families == {"ACC": 4}
        assert row_of(comparison, "Never").orders["(ii)"].judgement.reason == "no published number"

    def test_one_run_of_an_order_has_no_spread(self, compared):
        last = ("by_order: {SST-SRL-WOZ: 80.0 ± 0.5,", "by_order: {SRL-SST-WOZ: 80.0 ± 0.5,")
        assert (
            row_of(compared(last), "Replay").orders["SRL-SST-WOZ"].judgement.reason == "one run of ours has no spread"
        )

    def test_identity_is_the_benchmarks_own_order(self, compared):
        comparison = compared(("SST-SRL-WOZ: [sst, srl, woz.en]", "SST-SRL-WOZ: identity"))
        assert list(row_of(comparison, "Plain").orders["SST-SRL-WOZ"].values.values()) == pytest.approx([60, 62])

    def test_a_changed_sweep_shows_the_orders_that_it_has(self, declared, store):
        reproduction = declared()
        quick = compare("orders", reproduction.sweeps(Selection(quick=True)), store, reproduction).tables[0]
        assert quick.orders == ["SRL-SST-WOZ"]
        assert quick.warning

    def test_a_record_of_named_tasks_is_measured_on_all_of_them(self, compared):
        assert compared().problems == []


class TestSensitivity:
    def test_of_a_variant(self, compared):
        row, one = sensitivities(compared().tables[0])[0]
        assert row.label == "Plain"
        assert one.means == pytest.approx({"SST-SRL-WOZ": 61.0, "(ii)": 42.0, "SRL-SST-WOZ": 51.5})
        assert one.mean == pytest.approx((61 + 42 + 51.5) / 3)
        assert one.sd == pytest.approx(statistics.stdev([61, 42, 51.5]))
        assert one.within == pytest.approx(math.sqrt((2 + 8 + 4.5) / 3))
        assert (one.best, one.worst) == ("SST-SRL-WOZ", "(ii)")

    def test_an_order_counts_once_however_many_runs_it_has(self, compared):
        one = {row.label: found for row, found in sensitivities(compared().tables[0])}["Replay"]
        assert one.runs == {"SST-SRL-WOZ": 2, "(ii)": 2, "SRL-SST-WOZ": 1}
        assert one.mean == pytest.approx((80 + 79.5 + 81) / 3)

    def test_of_a_metric_that_is_better_when_lower(self, compared):
        runs = row_of(compared(), "Plain").runs
        one = sensitivity(runs, "F", {})
        assert one.best == "sst → srl → woz.en"
        assert one.means[one.best] == min(one.means.values())
        assert one.means[one.worst] == max(one.means.values())

    def test_a_missing_order_is_told(self, declared, store):
        reproduction = declared()
        sweeps = reproduction.sweeps()
        fill_orders(store, *sweeps.values(), "plain", {(0, 1, 2): [60.0], (2, 1, 0): [40.0]})
        comparison = compare("orders", sweeps, store, reproduction)
        ((_, one),) = sensitivities(comparison.tables[0])
        assert (len(one.means), one.expected) == (2, 3)
        assert math.isnan(one.within)
        text = " ".join(printed(comparison, 120).split())
        assert "Plain 2 of 3 50.00 14.14 – SST-SRL-WOZ 60.00 (ii) 40.00" in text
        assert "all of it where an order has one run" in text
        absent = row_of(comparison, "Plain").runs.absent
        assert absent == (
            "without seed 2 of orders sst → srl → woz.en, woz.en → srl → sst and seeds 1, 2 of order srl → sst → woz.en"
        )

    def test_a_sweep_alone_tells_it_with_the_tasks_names(self, declared, store, tmp_path):
        declared()
        sweep = load_sweep(tmp_path / "sweep.yaml")
        fill_orders(store, sweep, "plain", PLAIN)
        comparison = compare("sweep", {"sweep": sweep}, store)
        assert comparison.tables[0].orders == ()
        (block,) = blocks(comparison.tables[0])
        assert block.body[0][-1] == "woz.en → srl → sst 42.00"

    def test_tasks_without_names_are_numbered(self, store, make):
        orders = "task_orders=[identity, [1, 0]]"
        sweep = load_sweep("mer/rotations", Selection(quick=True, only=("online",), set=("benchmark.tasks=2", orders)))
        for i, cell in enumerate(of(sweep, "online")):
            store.write(make(cell, 80, 70 + i))
        ((_, one),) = sensitivities(compare("mer/rotations", {"mer/rotations": sweep}, store).tables[0])
        assert list(one.means) == ["identity", "1-0"]

    def test_one_order_has_none(self, store, sweeps, reproduction, fill):
        fill(sweeps["mer/rotations"], "mer-5120", [(87.6, 89.5), (87.8, 89.6)])
        comparison = compare("mer_rotations", sweeps, store, reproduction)
        assert [blocks(table) for table in comparison.tables] == [[], [], []]
        assert "sensitivity" not in printed(comparison) + analysis.to_markdown(comparison) + render(comparison)
        assert "order_sensitivity" in analysis.to_json(comparison)


def test_orders_in_words():
    assert order_name(None) == "identity"
    assert order_name((1, 0)) == "1-0"
    assert order_name((4, 3, 2, 1, 0, 5, 6)) == "4-3-2-1…"
    assert order_name(None, ["a", "b"]) == "a → b"
    assert order_name((1, 0), ["a", "b"]) == "b → a"


class TestForms:
    @pytest.mark.parametrize("width", [60, 80, 160])
    def test_the_terminal_form_fits(self, compared, width):
        text = printed(compared(), width)
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width
        lines = [" ".join(line.split()) for line in text.splitlines()]
        if width == 160:
            assert "Plain ours 61.00 ± 1.41 (2) 42.00 ± 2.83 (2) 51.50 ± 2.12 (2) 51.50 ± 8.67 (6)" in lines
            assert "published 60.00 ± 0.50 (3) 40.00 – 50.00" in lines
            assert "verdict reproduced differs† not judged" in lines  # all orders together are no independent runs
        else:
            assert "ours published difference verdict" in lines
            assert "SST-SRL-WOZ 80.00 ± 0.14 (2) 80.00 ± 0.50 (3) 0.00 reproduced" in lines or width < 80
        flat = " ".join(text.split())
        assert "(ii): woz.en → srl → sst" in flat
        assert "SRL-SST-WOZ: srl" not in flat  # such a title says it by itself
        assert "Replay (ii): a doubt" in flat

    def test_markdown(self, compared):
        lines = analysis.to_markdown(compared()).splitlines()
        assert "#### ACC by task order" in lines
        assert "| method |  | SST-SRL-WOZ | (ii) | SRL-SST-WOZ | all orders |" in lines
        assert "| --- | --- | ---: | ---: | ---: | ---: |" in lines
        assert any(line.startswith("| Plain | 3 | 51.50 | 9.50 |") for line in lines)

    def test_latex_is_balanced_and_ascii(self, compared):
        text = analysis.to_latex(compared(("label: Replay", "label: 'Replay, γ 0.2'")))
        assert text.count(r"\begin{") == text.count(r"\end{") == 6
        assert text.isascii()
        assert r"Replay, $\gamma$ 0.2 & ours & 80.00 $\pm$ 0.14 (2)" in text

    def test_csv(self, compared):
        cells, orders = analysis.to_csv(compared()).split("\n\n")
        found = list(csv_format.DictReader(cells.splitlines()))
        assert len(found) == 3 * (2 + 3)
        line = next(x for x in found if x["variant"] == "plain" and x["order"] == "(ii)")
        assert (float(line["ours_mean"]), float(line["published_mean"])) == (pytest.approx(42), 40)
        assert (line["ours_runs"], line["expected_runs"], len(line["trials"].split())) == ("2", "2", 2)
        first, _ = csv_format.DictReader(orders.splitlines())
        assert (first["best_order"], first["worst_order"], float(first["sd_over_orders"])) == (
            "SST-SRL-WOZ",
            "(ii)",
            pytest.approx(9.5),
        )

    def test_json(self, compared):
        (table,) = json_format.loads(analysis.to_json(compared()))["tables"]
        assert table["orders"]["(ii)"] == "woz.en → srl → sst"
        assert [c["order"] for c in table["cells"][:5]] == ["", "", "SST-SRL-WOZ", "(ii)", "SRL-SST-WOZ"]
        assert table["order_sensitivity"][0]["means"] == pytest.approx(
            {"SST-SRL-WOZ": 61, "(ii)": 42, "SRL-SST-WOZ": 51.5}
        )
        assert table["order_sensitivity"][1]["runs_by_order"]["SRL-SST-WOZ"] == 1

    def test_the_page_has_columns_sensitivity_and_a_dot_an_order(self, compared):
        comparison = compared()
        page = render(comparison)
        table = comparison.tables[0]
        assert '<td class="number differs">differs†</td>' in page
        assert "ACC: sensitivity to the task order" in page
        assert plots.orders_alt(table) in page
        assert "Plain 51.50, best SST-SRL-WOZ 61.00, worst (ii) 42.00" in plots.orders_alt(table)
        assert "<td>woz.en → srl → sst</td>" in page
        assert page == render(comparison)

    def test_an_empty_store_has_all_forms(self, declared, store):
        reproduction = declared()
        comparison = compare("orders", reproduction.sweeps(), store, reproduction)
        assert "80.00 ± 0.50 (3)" in printed(comparison)
        json_format.loads(analysis.to_json(comparison))
        assert "ACC by task order" in analysis.to_markdown(comparison)
        assert "sensitivity" not in render(comparison)


class TestDeclarations:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (("{SST-SRL-WOZ: 60.0 ± 0.5", "{SST-SRL: 60.0 ± 0.5"),
             r"tables.0: rows.0.by_order: 'SST-SRL' is not an order of this table; did you mean 'SST-SRL-WOZ'\? allow"),
            (("[2, 1, 0]", "[2, 1, 1]"), r"orders.\(ii\): a task stands twice in \[2, 1, 1\]"),
            (("[2, 1, 0]", "[sst, srl, woz.en]"), r"orders.\(ii\): the same order as 'SST-SRL-WOZ'"),
            (("[2, 1, 0]", "[]"), r"tables.0.orders.\(ii\)"),
            (("    orders: {SST-SRL-WOZ: [sst, srl, woz.en], (ii): [2, 1, 0], SRL-SST-WOZ: [srl, sst, woz.en]}\n", ""),
             "rows.0.by_order: 'SST-SRL-WOZ' is not an order of this table; allowed: none"),
        ],
    )  # fmt: skip
    def test_of_a_table(self, declared, change, message):
        with pytest.raises(DeclarationError, match=message):
            declared(change)

    @pytest.mark.parametrize(
        "order", ["[0, 2, 1]", "[sst, woz.en, srl]", "[sst, srl]", "[sst, srl, wox.en]", "[7, 8, 9]"]
    )
    def test_an_order_that_the_sweep_lacks_is_an_error(self, declared, order):
        message = (
            r"\.yaml:\d+: tables\.0\.orders\.\(ii\): not a task order of \w+; allowed: \[\['sst', 'srl', 'woz.en'\], "
        )
        with pytest.raises(DeclarationError, match=message):
            declared(("[2, 1, 0]", order)).sweeps()

    def test_orders_of_the_store_are_kept_apart(self, declared, store):
        (sweep,) = declared().sweeps().values()
        fill_orders(store, sweep, "plain", PLAIN)
        runs = gather(sweep, ["plain"], read(store)).variants["plain"]
        assert runs.orders == [None, (2, 1, 0), (1, 0, 2)]
        assert [r.order for r in runs.at(None).runs] == [None, None]
        assert runs.at((2, 1, 0)).counted == "2 of 2 runs"


def test_what_was_measured_only_at_the_end_is_drawn(declared, store):
    """As a variant is that learns all tasks at once."""
    reproduction = declared()
    sweeps = reproduction.sweeps()
    (sweep,) = sweeps.values()
    cell = of(sweep, "plain")[0]
    end = [m for m in measured(3, 85.0, 80.0) if m.trained_tasks == 3]
    store.write(Record(cell.trial.id(REAL["fingerprint"]), cell.trial, dict(REAL), end))
    comparison = compare("orders", sweeps, store, reproduction)
    assert comparison.problems == []
    page = render(comparison)
    assert "Plain: mean accuracy matrix of 1 runs over 3 tasks; 80.0% after the last task" in page
    assert "nan" not in page
