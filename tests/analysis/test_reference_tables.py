"""Reference runs in a table: in place of the store's own runs, or beside them, in every form."""

from __future__ import annotations

import csv as csv_format
import io
import json as json_format
import re
from pathlib import Path

import pytest
from made_records import EMBEDDED, REAL, measured, of
from rich.console import Console
from typer.testing import CliRunner

from clray import analysis, reference_runs, tracks
from clray.analysis import formatting
from clray.analysis.comparison import compare
from clray.analysis.orders import blocks
from clray.analysis.report import render
from clray.cli import app
from clray.commands.target import target_of
from clray.errors import DeclarationError
from clray.loading import load_sweep
from clray.record import Record
from clray.reproduction import load_reproduction
from clray.selection import Selection
from clray.store import Store

NEAR = [(87.6, 89.5), (87.8, 89.6), (87.5, 89.4), (87.7, 89.7), (87.6, 89.6)]
"""Near the published 89.56 and 87.62 (RA and LA of MER)."""
FAR = [(70.0, 60.0), (70.5, 61.0), (69.5, 59.5), (70.2, 60.4), (69.9, 60.1)]
NEAR_TEXT, FAR_TEXT = "89.56 ± 0.11 (5)", "60.20 ± 0.55 (5)"
SHOWN = [None, "own", "reference", "both"]
ORIGIN = "made on 2026-11-28 on a processor by code that gives the same bits as that of aaaaaaaaaa"


@pytest.fixture
def shipped(sweeps, make):
    """Reference runs of these pairs of LA and RA, by variant; by default MER near the published numbers."""

    def records(variant: str = "mer-5120", pairs=NEAR, **changes) -> list[Record]:
        made = [make(c, *pair, **changes) for c, pair in zip(of(sweeps["mer/rotations"], variant), pairs, strict=False)]
        for record in made:
            record.provenance |= {"saved": 1795867200.0, "device": "cpu", "machine": {"processor": "a processor"}}
        return made

    return records


@pytest.fixture
def own(store, sweeps, fill) -> Store:
    """A store with runs of MER far from the published numbers, and of EWC."""
    fill(sweeps["mer/rotations"], "mer-5120", FAR)
    fill(sweeps["mer/rotations"], "ewc", FAR)
    return store


@pytest.fixture
def compared(own, sweeps, reproduction, shipped):
    """``compared(shown)``: the store's runs with MER's reference runs."""
    return lambda shown: compare("mer_rotations", sweeps, own, reproduction, None, shipped(), shown)


def cell(comparison, variant: str = "mer-5120", metric: str = "RA"):
    return next(r.cells[metric] for r in comparison.tables[0].rows if r.variant == variant)


def mean(runs) -> float | None:
    return round(runs.sample("RA").mean, 2) if runs is not None and runs.values("RA") else None


def printed(comparison, width: int = 80) -> str:
    out = io.StringIO()
    Console(width=width, force_terminal=False, color_system=None, file=out).print(analysis.to_terminal(comparison))
    return out.getvalue()


def note(comparison, key: str = "reference") -> str:
    return dict(formatting.notes(comparison.tables[0])).get(key, "")


class TestWhichRunsFillWhichColumn:
    @pytest.mark.parametrize(
        ("shown", "ours", "reference"),
        [("own", 60.2, None), ("reference", 89.56, None), ("both", 60.2, 89.56), (None, 60.2, None)],
    )
    def test_where_the_store_has_runs(self, compared, shown, ours, reference):
        found = compared(shown)
        assert (mean(cell(found).runs), mean(cell(found).reference)) == (ours, reference)
        assert found.tables[0].shown == (shown or "own")
        assert (mean(cell(found, "ewc").runs) is None) == (shown == "reference"), "EWC ran in the store alone"

    @pytest.mark.parametrize(
        ("shown", "ours", "reference"),
        [("own", None, None), ("reference", 89.56, None), ("both", None, 89.56), (None, 89.56, None)],
    )
    def test_where_it_has_none(self, store, sweeps, reproduction, shipped, shown, ours, reference):
        found = compare("mer_rotations", sweeps, store, reproduction, None, shipped(), shown)
        assert (mean(cell(found).runs), mean(cell(found).reference)) == (ours, reference)
        assert {table.shown for table in found.tables} == {shown or "reference"}

    def test_one_begun_run_of_the_store_is_a_run_of_its_own(self, store, sweeps, reproduction, shipped, make):
        store.write(make(of(sweeps["mer/rotations"], "ewc")[0], 50.0, 50.0, status="running"))
        found = compare("mer_rotations", sweeps, store, reproduction, None, shipped())
        assert found.tables[0].shown == "own"
        assert note(found, "runs") == "0 of 30 finished, 1 half-done, on mnist (cache, 01234567)"

    def test_runs_of_other_trials_in_the_store_are_none_of_these(self, store, reproduction, sweeps, shipped, fill):
        fill(load_sweep("mer/rotations", Selection(set=("benchmark.seed=7",))), "mer-5120", FAR)
        found = compare("mer_rotations", sweeps, store, reproduction, None, shipped())
        assert mean(cell(found).runs) == 89.56

    @pytest.mark.parametrize("shown", SHOWN)
    def test_without_reference_runs_all_is_as_before(self, own, sweeps, reproduction, shown):
        plain = compare("mer_rotations", sweeps, own, reproduction)
        found = compare("mer_rotations", sweeps, own, reproduction, None, [], shown)
        if shown in (None, "own"):
            assert (printed(found), analysis.to_json(found)) == (printed(plain), analysis.to_json(plain))
            assert note(found) == ""
        else:
            assert note(found) == "none of these trials is a reference run that ships with clray"

    def test_reference_runs_need_no_store(self, sweeps, reproduction, shipped):
        found = compare("mer_rotations", sweeps, None, reproduction, None, shipped(), "reference")
        assert mean(cell(found).runs) == 89.56
        assert found.problems == []

    def test_artifacts_are_looked_for_where_the_runs_are(self, compared, own):
        assert [compared(shown).store for shown in ("own", "both", "reference")] == [own, own, None]

    def test_a_changed_experiment_has_no_reference_runs(self, store, reproduction, shipped):
        changed = reproduction.sweeps(Selection(quick=True))
        by_default = compare("mer_rotations", changed, store, reproduction, None, shipped())
        assert by_default.tables[0].shown == "own"
        assert note(by_default) == ""
        asked = compare("mer_rotations", changed, store, reproduction, None, shipped(), "reference")
        assert note(asked) == "none of these trials is a reference run that ships with clray"
        assert {c.judgement.outcome for _, c in asked.tables[0].cells} == {"not judged"}


class TestVerdicts:
    def test_they_are_on_the_own_runs_where_both_are_shown(self, compared):
        both, alone = compared("both"), compared("own")
        assert cell(both).judgement.outcome == "differs"
        for table, other in zip(both.tables, alone.tables, strict=True):
            assert [c.judgement for _, c in table.cells] == [c.judgement for _, c in other.cells]
            assert table.families == other.families
            assert formatting.summary(c for _, c in table.cells) == formatting.summary(c for _, c in other.cells)

    def test_they_are_on_the_reference_runs_where_these_alone_are_shown(self, compared):
        found = compared("reference")
        assert cell(found).judgement.outcome == "reproduced"
        assert cell(found, "ewc").judgement.reason == "no run of ours"

    def test_own_runs_on_embedded_data_are_not_judged_beside_reference_runs(
        self, store, sweeps, reproduction, shipped, fill
    ):
        fill(sweeps["mer/rotations"], "mer-5120", FAR, data=EMBEDDED)
        both = compare("mer_rotations", sweeps, store, reproduction, None, shipped(), "both")
        assert both.tables[0].warning == "NOT COMPARABLE WITH THE PAPER (embedded data)"
        assert (mean(cell(both).runs), mean(cell(both).reference)) == (60.2, 89.56)
        assert note(both).endswith("; on other data than yours: mnist (cache, 01234567)")
        only = compare("mer_rotations", sweeps, store, reproduction, None, shipped(), "reference")
        assert not only.tables[0].warning
        assert cell(only).judgement.outcome == "reproduced"


class TestWords:
    def test_titles(self, compared):
        first = {shown: formatting.column_titles(compared(shown).tables[0])[:-3] for shown in SHOWN[1:]}
        assert first == {
            "own": ["ours ± sd (n)"],
            "reference": ["reference ± sd (n)"],
            "both": ["reference ± sd (n)", "yours ± sd (n)"],
        }
        assert formatting.column_titles(compared("both").tables[0])[2:] == [
            "published ± sd (n)",
            "difference",
            "verdict",
        ]

    def test_each_number_stands_below_its_title(self, compared):
        texts = {shown: formatting.number_texts(found.tables[0], cell(found)) for shown in SHOWN[1:]
                 if (found := compared(shown))}  # fmt: skip
        assert texts["own"][:2] == [FAR_TEXT, f"{NEAR_TEXT}†"]
        assert texts["reference"][:2] == [NEAR_TEXT, f"{NEAR_TEXT}†"]
        assert texts["both"][:3] == [NEAR_TEXT, FAR_TEXT, f"{NEAR_TEXT}†"]
        assert {len(texts[shown]) for shown in ("own", "reference")} == {3}
        both = compared("both")
        assert formatting.number_texts(both.tables[0], cell(both, "ewc"))[:2] == ["–", FAR_TEXT]
        assert formatting.number_texts(both.tables[0], cell(both, "gem-5120"))[:2] == ["–", "–"]

    def test_the_notes_say_what_is_what(self, compared):
        assert "; ours: " not in note(compared("reference"), "±")
        assert note(compared("own"), "±").startswith("per cent; ours: mean ± ")
        assert note(compared("reference"), "±").startswith("per cent; reference: mean ± ")
        assert "difference: reference minus published" in note(compared("reference"), "±")
        assert note(compared("both"), "±").startswith("per cent; reference and yours: mean ± ")
        assert "difference: yours minus published" in note(compared("both"), "±")

    def test_the_note_on_their_origin(self, compared):
        said = f"5 runs that ship with clray, {ORIGIN}"
        assert (note(compared("reference")), note(compared("both"))) == (said, said)
        hint = "reference runs of this table ship with clray: --records both shows them beside these"
        assert note(compared("own")) == hint

    def test_days_processors_and_commits_are_each_named_once(self, store, sweeps, reproduction, shipped):
        records = shipped()
        records[0].provenance |= {"saved": 1795953600.0, "machine": {"gpu": "a GPU"}, "device": "cuda"}
        records[1].provenance["git"] = {"commit": "b" * 40, "uncommitted_changes": True}
        found = compare("mer_rotations", sweeps, store, reproduction, None, records)
        assert note(found) == (
            "5 runs that ship with clray, made from 2026-11-28 to 2026-11-29 on a GPU and a processor by code that "
            "gives the same bits as that of aaaaaaaaaa, bbbbbbbbbb + changes"
        )
        for record in records:
            record.provenance = {}
        silent = compare("mer_rotations", sweeps, store, reproduction, None, records)
        assert note(silent) == "5 runs that ship with clray, made"

    def test_only_the_table_that_has_some_speaks_of_them(self, compared, store, sweeps, reproduction, shipped):
        assert compared("own").tables[0].ships_reference
        assert not compare("mer_rotations", sweeps, store, reproduction, None, [], "own").tables[0].ships_reference
        other = load_sweep("mer/rotations", Selection(set=("benchmark.seed=7",)))
        changed = compare("mer_rotations", {"mer/rotations": other}, store, reproduction, None, shipped(), "own")
        assert note(changed) == ""

    @pytest.mark.parametrize("shown", ["reference", "both"])
    def test_stale_reference_runs_are_told_and_no_flag_is_advised_that_would_not_help(
        self, own, sweeps, reproduction, shipped, shown
    ):
        records = shipped()
        records[0].provenance["code"] = "0" * 16

        def is_current(record: Record) -> bool:
            return record.provenance["code"] != "0" * 16

        found = compare("mer_rotations", sweeps, own, reproduction, is_current, records, shown)
        assert note(found).endswith("; 1 of them are stale: other code made them than the code here")
        assert note(found, "stale") == ""
        assert "--rerun-stale" not in printed(found, 200)
        fresh = compare("mer_rotations", sweeps, own, reproduction, None, records, shown)
        assert "stale" not in note(fresh)

    def test_missing_reference_runs_are_told(self, store, sweeps, reproduction, shipped):
        found = compare("mer_rotations", sweeps, store, reproduction, None, shipped(pairs=NEAR[:3]), "reference")
        assert note(found, "runs").startswith("3 of 30 finished, on mnist")
        text = printed(found)
        assert "MER: 3 of 5 runs, without seeds 3, 4" in " ".join(text.split())

    def test_a_collapsed_or_diverged_reference_run_is_marked(self, own, sweeps, reproduction, shipped):
        collapsed = shipped(pairs=[*NEAR[:4], (10.0, 10.0)])
        both = compare("mer_rotations", sweeps, own, reproduction, None, collapsed, "both")
        assert formatting.number_texts(both.tables[0], cell(both))[0].endswith("(5)‡")
        assert formatting.ours_text(cell(both)) == FAR_TEXT
        diverged = shipped()
        for record in diverged:
            record.status, record.measurements = "diverged", []
        both = compare("mer_rotations", sweeps, own, reproduction, None, diverged, "both")
        assert formatting.number_texts(both.tables[0], cell(both))[0] == "–‡"


class TestForms:
    @pytest.mark.parametrize("shown", SHOWN[1:])
    @pytest.mark.parametrize("width", [60, 80, 120, 130, 160])
    def test_the_terminal_form_fits_and_loses_no_letter(self, compared, width, shown):
        text = printed(compared(shown), width)
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width
        words = text.split()
        titles = {"own": ["ours"], "reference": ["reference"], "both": ["reference", "yours"]}[shown]
        assert all(title in words for title in titles)
        assert "…" not in text
        # A verdict's reason stands beside it or below the table: all of its words are there.
        reasons = {c.judgement.reason for _, c in compared(shown).tables[0].over_all if c.claim}
        assert len(reasons) > 1
        assert {word for reason in reasons for word in re.findall(r"[a-z]{5,}", reason)} <= set(
            re.findall(r"\w+", text)
        )

    @pytest.mark.parametrize("width", [80, 130, 160])
    def test_the_terminal_form_has_the_runs_side_by_side(self, compared, width):
        lines = [" ".join(line.split()) for line in printed(compared("both"), width).splitlines()]
        assert any(f"RA {NEAR_TEXT} {FAR_TEXT} {NEAR_TEXT}†" in line for line in lines)
        head = next(i for i, line in enumerate(lines) if "yours ± sd (n)" in line)
        assert "reference ± sd (n) yours ± sd (n) published ± sd (n)" in lines[head]
        assert "difference verdict" in " ".join(lines[head : head + 2])
        flat = " ".join(lines)
        difference = formatting.difference_text(cell(compared("both")))
        assert difference.startswith("−29.36 [")
        assert f"{difference} differs†" in flat
        assert f"reference 5 runs that ship with clray, {ORIGIN}" in flat

    @pytest.mark.parametrize("width", [80, 130])
    def test_the_terminal_form_of_reference_runs_alone(self, compared, width):
        lines = [" ".join(line.split()) for line in printed(compared("reference"), width).splitlines()]
        assert any(f"RA {NEAR_TEXT} {NEAR_TEXT}† 0.00" in line and "reproduced†" in line for line in lines)
        assert not any("yours" in line or "ours ± sd" in line for line in lines)

    def test_markdown(self, compared):
        lines = analysis.to_markdown(compared("both")).splitlines()
        titles = (
            "| method | metric | reference ± sd (n) | yours ± sd (n) | published ± sd (n) | difference | verdict |  |"
        )
        head = lines.index(titles)
        assert lines[head + 1] == "| --- | --- | ---: | ---: | ---: | ---: | --- | --- |"
        assert any(line.startswith(f"| MER | RA | {NEAR_TEXT} | {FAR_TEXT} | {NEAR_TEXT}† | −29.36") for line in lines)
        assert f"- reference: 5 runs that ship with clray, {ORIGIN}" in lines
        alone = analysis.to_markdown(compared("reference")).splitlines()
        assert "| method | metric | reference ± sd (n) | published ± sd (n) | difference | verdict |  |" in alone
        assert any(line.startswith(f"| MER | RA | {NEAR_TEXT} | {NEAR_TEXT}† |") for line in alone)

    @pytest.mark.parametrize(("shown", "columns"), [("own", 6), ("reference", 6), ("both", 7)])
    def test_latex(self, compared, shown, columns):
        text = analysis.to_latex(compared(shown))
        assert text.count(r"\begin{") == text.count(r"\end{")
        head = text.split(r"\toprule")[1].split(r"\midrule")[0]
        body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
        assert {line.count(" & ") + 1 for line in [head, *body]} == {columns}
        assert text.count(rf"\begin{{tabular}}{{ll{'r' * (columns - 3)}l}}") == 3
        if shown == "both":
            assert r"reference $\pm$ sd (n) & yours $\pm$ sd (n) & published" in head
            assert r"RA & 89.56 $\pm$ 0.11 (5) & 60.20 $\pm$ 0.55 (5) & 89.56" in " ".join(body)

    def test_json_and_csv(self, compared):
        wanted = {
            "own": ("own runs", 60.2, 5, None, None, 0),
            "reference": ("reference runs", 89.56, 5, None, None, 0),
            "both": ("own runs", 60.2, 5, 89.56, 0.1140175, 5),
        }
        keys = ("ours_are", "ours_mean", "ours_runs", "reference_mean", "reference_sd", "reference_runs")
        for shown, values in wanted.items():
            found = compared(shown)
            content = json_format.loads(analysis.to_json(found))["tables"][0]
            line = next(c for c in content["cells"] if (c["variant"], c["metric"]) == ("mer-5120", "RA"))
            assert [line[key] for key in keys] == [v if isinstance(v, str) else pytest.approx(v) for v in values]
            [note] = [n for n in content["notes"] if n.startswith("reference: ")]
            assert ("5 runs that ship" in note) == (shown != "own")
            rows = csv_format.DictReader(analysis.to_csv(found).split("\n\n")[0].splitlines())
            row = next(r for r in rows if (r["variant"], r["metric"]) == ("mer-5120", "RA"))
            assert [row[key] for key in keys] == ["" if line[key] is None else str(line[key]) for key in keys]

    def test_a_single_reference_run_has_no_spread(self, own, sweeps, reproduction, shipped):
        both = compare("mer_rotations", sweeps, own, reproduction, None, shipped(pairs=NEAR[:1]), "both")
        assert formatting.number_texts(both.tables[0], cell(both))[0] == "89.50 (1)"
        content = json_format.loads(analysis.to_json(both))["tables"][0]
        line = next(c for c in content["cells"] if (c["variant"], c["metric"]) == ("mer-5120", "RA"))
        assert (line["reference_mean"], line["reference_sd"], line["reference_runs"]) == (pytest.approx(89.5), None, 1)

    def test_the_page(self, compared):
        both, alone, own = (render(compared(shown)) for shown in ("both", "reference", "own"))
        assert '<th scope="col" role="columnheader" class="number">reference ± sd (n)</th>' in both
        assert '<th scope="col" role="columnheader" class="number">yours ± sd (n)</th>' in both
        line = next(line for line in both.split("</tr>") if f"reference</span>{NEAR_TEXT}</td>" in line)
        labels = re.findall(r'<span class="label">(\w+)</span>([^<]*)', line)
        assert labels[:3] == [("reference", NEAR_TEXT), ("yours", FAR_TEXT), ("published", f"{NEAR_TEXT}†")]
        assert f'<span class="label">reference</span>{NEAR_TEXT}</td>' in alone
        assert '<span class="label">yours</span>' not in alone + own
        assert f'<span class="label">ours</span>{FAR_TEXT}</td>' in own
        assert '<span class="label">reference</span>' not in own
        for page in (both, alone):
            assert f"5 runs that ship with clray, {ORIGIN}" in page
        heads, cells = (both.count(f'<{tag} role="cell" class="number"') for tag in ("th", "td"))
        assert (heads, cells) == (0, 14 * 3 * 4), "four numbers in every line, as the head has them"

    def test_the_stores_problems_are_still_told(self, own, compared):
        Path(own.path("records", "eeeeeeeeeeeeeeee.parquet")).write_bytes(b"PAR1 torn")
        for shown in SHOWN:
            found = compared(shown)
            assert len(found.problems) == 1
            for form in (printed(found), analysis.to_markdown(found), analysis.to_json(found), render(found)):
                assert "eeeeeeeeeeeeeeee.parquet" in form.replace("\n", "")


class TestWithoutPublishedNumbers:
    """Some tables have no number to compare with; their columns are the metrics."""

    @pytest.fixture
    def unjudged(self, own, sweeps, reproduction, shipped):
        table = reproduction.tables[0]
        rows = [row.model_copy(update={"claims": {}, "also": {}}) for row in table.rows]
        plain = reproduction.model_copy(update={"tables": [table.model_copy(update={"rows": rows})]})
        return lambda shown: compare("mer_rotations", sweeps, own, plain, None, shipped(), shown)

    def test_markdown_has_a_column_for_each_kind_of_runs(self, unjudged):
        lines = analysis.to_markdown(unjudged("both")).splitlines()
        assert "| method | RA reference | RA yours | LA reference | LA yours | BTI reference | BTI yours |" in lines
        assert any(line.startswith(f"| MER | {NEAR_TEXT} | {FAR_TEXT} | 87.64 ±") for line in lines)
        for shown, text in (("own", FAR_TEXT), ("reference", NEAR_TEXT)):
            lines = analysis.to_markdown(unjudged(shown)).splitlines()
            assert "| method | RA | LA | BTI |" in lines
            assert any(line.startswith(f"| MER | {text} |") for line in lines)

    def test_every_other_form_has_both(self, unjudged):
        both = unjudged("both")
        assert r"MER & 89.56 $\pm$ 0.11 (5) & 60.20 $\pm$ 0.55 (5) & 87.64" in analysis.to_latex(both)
        assert f"MER {NEAR_TEXT} {FAR_TEXT} 87.64" in " ".join(printed(both, 160).split())
        page = " ".join(render(both).split())
        assert f'<th scope="row">MER</th><td class="number">{NEAR_TEXT}</td><td class="number"' in page
        assert page.count('<th scope="col" class="number">RA, reference ± sd (n)</th>') == 1
        assert page.count('<th scope="col" class="number">RA, yours ± sd (n)</th>') == 1

    @pytest.mark.parametrize("width", [80, 130])
    def test_the_terminal_form_fits_and_loses_no_number(self, unjudged, width):
        text = printed(unjudged("both"), width)
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width
        assert "…" not in text
        assert {"89.56", "60.20", "87.64", "70.02"} <= set(text.split())


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
    orders: {SST-SRL-WOZ: [sst, srl, woz.en], (ii): [2, 1, 0]}
    rows:
      - {label: Plain, variant: plain, claims: {ACC: 50.0}, by_order: {SST-SRL-WOZ: 60.0 ± 0.5, (ii): 40.0}}
      - {label: Replay, variant: replay, claims: {ACC: 80 ± 1}, by_order: {SST-SRL-WOZ: 80.0 ± 0.5}}
"""


class TestTaskOrders:
    OWN = {(0, 1, 2): [60.0, 62.0], (2, 1, 0): [40.0, 44.0], (1, 0, 2): [50.0, 53.0]}
    SHIPPED = {(0, 1, 2): [70.0, 71.0], (2, 1, 0): [30.0]}

    @pytest.fixture
    def compared(self, monkeypatch, tmp_path, store):
        monkeypatch.setitem(tracks.TRACKS, "language", "named_tasks")
        (tmp_path / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
        (tmp_path / "orders.yaml").write_text(REPRODUCTION.replace("SWEEP", str(tmp_path / "sweep.yaml")))
        reproduction = load_reproduction(tmp_path / "orders.yaml")
        sweeps = reproduction.sweeps(Selection())
        (sweep,) = sweeps.values()

        def records(accuracies: dict[tuple[int, ...], list[float]]) -> list[Record]:
            found = []
            for cell in of(sweep, "plain"):
                values = accuracies.get(tuple(cell.trial.task_order or range(3)), [])
                for value in values[cell.trial.seed - 1 : cell.trial.seed]:
                    measurements = measured(3, 85.0, value)
                    found.append(Record(cell.trial.id(REAL["fingerprint"]), cell.trial, dict(REAL), measurements))
            return found

        for record in records(self.OWN):
            store.write(record)
        return lambda shown: compare("orders", sweeps, store, reproduction, None, records(self.SHIPPED), shown)

    def test_each_cell_of_an_order_has_that_orders_reference_runs(self, compared):
        plain, replay = compared("both").tables[0].rows
        first, second = plain.orders["SST-SRL-WOZ"], plain.orders["(ii)"]
        assert list(first.values.values()) == pytest.approx([60, 62])
        assert list(first.reference.values("ACC").values()) == pytest.approx([70, 71])
        assert list(second.values.values()) == pytest.approx([40, 44])
        assert list(second.reference.values("ACC").values()) == pytest.approx([30])
        assert len(plain.cells["ACC"].reference.values("ACC")) == 3
        assert replay.orders["(ii)"].reference.values("ACC") == {}

    def test_alone_they_fill_the_orders(self, compared):
        plain = compared("reference").tables[0].rows[0]
        assert list(plain.orders["(ii)"].values.values()) == pytest.approx([30])
        assert plain.orders["(ii)"].reference is None
        assert list(compared("own").tables[0].rows[0].orders["(ii)"].values.values()) == pytest.approx([40, 44])

    def test_verdicts_are_on_the_own_runs(self, compared):
        judged = {
            shown: [c.judgement for _, c in compared(shown).tables[0].by_order]
            for shown in ("own", "both", "reference")
        }
        assert judged["both"] == judged["own"] != judged["reference"]

    def test_the_columns_of_the_orders_have_a_line_for_each_kind_of_runs(self, compared):
        lines = {shown: blocks(compared(shown).tables[0])[0].body for shown in ("own", "both", "reference")}
        assert [line[:4] for line in lines["both"][:3]] == [
            ["Plain", "reference", "70.50 ± 0.71 (2)", "30.00"],
            ["", "yours", "61.00 ± 1.41 (2)", "42.00 ± 2.83 (2)"],
            ["", "published", "60.00 ± 0.50 (3)", "40.00"],
        ]
        assert lines["reference"][0][:4] == ["Plain", "reference", "70.50 ± 0.71 (2)", "30.00"]
        assert lines["own"][0][:4] == ["Plain", "ours", "61.00 ± 1.41 (2)", "42.00 ± 2.83 (2)"]

    def test_json(self, compared):
        (table,) = json_format.loads(analysis.to_json(compared("both")))["tables"]
        found = {c["order"]: c for c in table["cells"] if (c["variant"], c["metric"]) == ("plain", "ACC")}
        assert (found["(ii)"]["reference_mean"], found["(ii)"]["reference_runs"]) == (pytest.approx(30), 1)
        assert (found["(ii)"]["ours_mean"], found["(ii)"]["ours_are"]) == (pytest.approx(42), "own runs")
        assert found[""]["reference_runs"] == 3

    @pytest.mark.parametrize("width", [80, 130])
    @pytest.mark.parametrize("shown", SHOWN[1:])
    def test_the_terminal_form_fits(self, compared, width, shown):
        text = printed(compared(shown), width)
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width
        assert "Plain" in text


class TestCommands:
    """Through the command line, with reference runs of two trials in a folder of the test."""

    @pytest.fixture(autouse=True)
    def packed(self, tmp_path, monkeypatch, shipped) -> None:
        monkeypatch.setattr(reference_runs, "path_of", lambda name: tmp_path / "packed" / f"{name}.parquet")
        monkeypatch.setenv("COLUMNS", "130")
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        reference_runs.write("mer_rotations", shipped(pairs=NEAR[:2]))

    def here(self, *arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    def shown_by(self, *flags: str) -> tuple[str, int, int]:
        content = json_format.loads(self.here("table", "mer_rotations", "--format", "json", *flags))
        line = next(c for c in content["tables"][0]["cells"] if (c["variant"], c["metric"]) == ("mer-5120", "RA"))
        return line["ours_are"], line["ours_runs"], line["reference_runs"]

    def test_table(self, own):
        assert self.shown_by() == ("reference runs", 2, 0), "the store named by default has nothing"
        results = ("--results", own.uri)
        assert self.shown_by(*results) == ("own runs", 5, 0)
        assert self.shown_by(*results, "--records", "own") == ("own runs", 5, 0)
        assert self.shown_by(*results, "--records", "reference") == ("reference runs", 2, 0)
        assert self.shown_by(*results, "--records", "both") == ("own runs", 5, 2)
        assert "reference ± sd (n)" in self.here("table", "mer_rotations", "--records", "both")

    def test_a_sweep_shows_the_reference_runs_of_its_trials(self, own):
        """They are those of any reproduction; a sweep of one's own may have trials of a shipped one."""

        def line(*flags: str) -> tuple[str, int, int]:
            content = json_format.loads(self.here("table", "mer/rotations", "--format", "json", *flags))
            cells = content["tables"][0]["cells"]
            found = next(c for c in cells if (c["variant"], c["metric"]) == ("mer-5120", "RA"))
            return found["ours_are"], found["ours_runs"], found["reference_runs"]

        assert line() == ("reference runs", 2, 0)
        results = ("--results", own.uri)
        assert line(*results) == ("own runs", 5, 0)
        assert line(*results, "--records", "both") == ("own runs", 5, 2)
        assert "--records both shows them beside these" in " ".join(
            self.here("table", "mer/rotations", *results).split()
        )
        assert "reference runs ship with clray for 2 of these trials" in self.here("plan", "mer/rotations")

    def test_report(self, own, tmp_path):
        page = tmp_path / "page.html"
        flags = ("--records", "both", "--results", own.uri, "-o", str(page))
        assert self.here("report", "mer_rotations", *flags).strip() == str(page)
        assert '<span class="label">reference</span>89.55 ± 0.07 (2)</td>' in page.read_text(encoding="utf-8")
        self.here("report", "mer_rotations", "-o", str(page))
        assert '<span class="label">yours</span>' not in page.read_text(encoding="utf-8")

    def test_stale_reference_runs_are_counted_by_the_code_here(self):
        text = " ".join(self.here("table", "mer_rotations").split())
        assert "2 of 2 runs stale" in text
        assert "2 of them are stale" in text

    @pytest.mark.parametrize("shown", ["reference", "both"])
    @pytest.mark.parametrize("name", ["mer_permutations", "mer/permutations"])
    def test_none_to_show_is_one_error_with_the_allowed_values(self, name, shown):
        with pytest.raises(DeclarationError) as caught:
            self.here("table", name, "--records", shown)
        assert str(caught.value) == (
            f"--records {shown}: no reference runs of {name} ship with clray; allowed: own, or a target with "
            "reference runs: a sweep that has their trials, or one of mer_rotations"
        )

    def test_where_no_reproduction_has_any(self, tmp_path):
        (tmp_path / "packed" / "mer_rotations.parquet").unlink()
        with pytest.raises(DeclarationError, match=r"or one of none$"):
            self.here("table", "mer_rotations", "--records", "both")
        assert self.shown_by() == ("own runs", 0, 0)

    def test_another_value_is_wrong_usage(self):
        result = CliRunner().invoke(app, ["table", "mer_rotations", "--records", "all"])
        assert result.exit_code == 2
        assert "'own', 'reference', 'both'" in result.output

    def test_a_torn_file_of_reference_runs_is_one_error(self, tmp_path):
        (tmp_path / "packed" / "mer_rotations.parquet").write_bytes(b"PAR1 torn")
        with pytest.raises(DeclarationError, match=r"mer_rotations\.parquet: not a file of reference runs: "):
            self.here("table", "mer_rotations")

    def test_plan_tells_how_many_trials_have_one(self):
        hint = "reference runs ship with clray for 2 of these trials: clray table mer_rotations --records reference"
        assert hint in self.here("plan", "mer_rotations").splitlines()
        part = self.here("plan", "mer_rotations", "--only", "mer-5120", "--seeds", "1,3")
        assert (
            "for 1 of these trials: clray table mer_rotations --only mer-5120 --seeds 1,3 --records reference" in part
        )
        for other in (("mer_rotations", "--only", "ewc"), ("mer_rotations", "--quick"), ("mer/permutations",)):
            assert "reference runs" not in self.here("plan", *other)

    def test_the_reference_count_of_a_target(self):
        target = target_of("mer_rotations", Selection())
        assert target.reference_count == 2
        assert target_of("mer/rotations", Selection()).reference_count == 2
        assert target_of("mer_permutations", Selection()).reference_count == 0
