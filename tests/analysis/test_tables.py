"""The comparison and its forms."""

from __future__ import annotations

import csv as csv_format
import io
import json as json_format
import re

import pytest
from made_records import EMBEDDED, of
from rich.console import Console

from clray import analysis
from clray.analysis import export_data, formatting
from clray.analysis.comparison import compare, tally
from clray.analysis.formatting import number, summary
from clray.analysis.report import render
from clray.loading import load_sweep
from clray.reproduction import BenchmarkSpread, Margin, load_reproduction
from clray.selection import Selection

# near the published 89.56 and 87.62 (RA and LA of MER), far from EWC's 57.96 and 78.38
MER = [(87.6, 89.5), (87.8, 89.6), (87.5, 89.4), (87.7, 89.7), (87.6, 89.6)]
EWC = [(70.0, 50.0), (70.5, 51.0), (69.5, 49.5), (70.2, 50.4), (69.9, 50.1)]


@pytest.fixture
def filled(store, sweeps, fill):
    fill(sweeps["mer/rotations"], "mer-5120", MER)
    fill(sweeps["mer/rotations"], "ewc", EWC)
    fill(sweeps["mer/rotations"], "online", [(58.0, 53.0), None, (60.0, 54.0)])
    fill(sweeps["mer/rotations"], "er-5120", MER)
    return store


@pytest.fixture
def comparison(filled, sweeps, reproduction):
    return compare("mer_rotations", sweeps, filled, reproduction)


def cell(comparison, label: str, metric: str, table: int = 0):
    return next(r.cells[metric] for r in comparison.tables[table].rows if r.label == label)


def printed(comparison, width: int) -> str:
    out = io.StringIO()
    Console(width=width, force_terminal=False, color_system=None, file=out).print(analysis.to_terminal(comparison))
    return out.getvalue()


def test_every_row_and_cell_of_the_file_is_there(comparison, reproduction):
    for ours, theirs in zip(comparison.tables, reproduction.tables, strict=True):
        assert [r.label for r in ours.rows] == [r.label for r in theirs.rows]
        assert all(list(r.cells) == theirs.metrics for r in ours.rows)


def test_the_verdicts(comparison):
    assert cell(comparison, "MER", "RA").judgement.outcome == "reproduced"
    assert cell(comparison, "EWC", "RA").judgement.outcome == "differs"
    assert cell(comparison, "Online", "RA").judgement.outcome == "consistent"
    assert cell(comparison, "GEM", "RA").judgement.reason == "no run of ours"
    assert cell(comparison, "Independent", "BTI").judgement.reason == "no published number"
    # 1.8 points apart: five draws of the angles leave more open than that
    assert cell(comparison, "ER", "RA", table=1).judgement.outcome == "inconclusive"
    assert cell(comparison, "ER", "LA", table=1).judgement.reason == "no published number"


def test_the_tests_are_corrected_for_all_claims_of_a_metric(comparison):
    # 6 rows of 3 metrics, of which Independent has no BTI; the authors' two re-runs have RA alone, without Task Input
    assert comparison.tables[0].families == {
        "RA": 6,
        "LA": 6,
        "BTI": 5,
        "RA, other machines": 5,
        "RA, 25 other seeds": 5,
    }


def test_a_family_may_be_the_whole_table_without_what_follows_from_the_rest(filled, sweeps, reproduction):
    whole = [table.model_copy(update={"family": "table"}) for table in reproduction.tables]
    compared = compare("mer_rotations", sweeps, filled, reproduction.model_copy(update={"tables": whole})).tables[0]
    assert {k: v for k, v in compared.families.items() if ", " not in k} == {"the table": 12, "BTI": 5}


def test_a_metric_that_follows_from_others_is_shown_and_not_counted(comparison):
    table = comparison.tables[0]
    bti = cell(comparison, "MER", "BTI")
    assert bti.derived
    assert not cell(comparison, "MER", "RA").derived
    assert formatting.verdict_text(bti) == "(reproduced†)"
    assert sum(c.total() for c in tally(c for _, c in table.cells)) == 12
    assert ("( )", "BTI follows from RA and LA: its verdict is shown and not counted") in formatting.notes(table)
    alone = compared_metrics(comparison, ["BTI"])
    assert not any(c.derived for _, c in alone.cells)


def test_a_row_whose_settings_are_not_the_papers_is_shown_and_not_counted(filled, sweeps, reproduction):
    first, *others = reproduction.tables
    searched = {"uncounted": "found by a search"}
    rows = [row.model_copy(update=searched if row.label == "MER" else {}) for row in first.rows]
    changed = reproduction.model_copy(update={"tables": [first.model_copy(update={"rows": rows}), *others]})
    compared = compare("mer_rotations", sweeps, filled, changed)
    table, ra = compared.tables[0], cell(compared, "MER", "RA")
    assert formatting.verdict_text(ra) == f"({ra.judgement.outcome}{ra.dagger})"
    assert sum(c.total() for c in tally(c for _, c in table.cells)) == 10
    # it takes no part in the correction of the others' tests
    assert (table.families["RA"], table.families["RA, rows that are not counted"]) == (5, 1)
    assert ("( )", "MER RA, LA, BTI: found by a search; the verdicts are shown and not counted") in formatting.notes(
        table
    )
    lines = json_format.loads(export_data.to_json(compared))["tables"][0]["cells"]
    assert {line["label"] for line in lines if line["counted"] is False and line["metric"] == "RA"} == {"MER"}


def compared_metrics(comparison, metrics: list[str]):
    """The first table with these columns alone."""
    table = comparison.reproduction.tables[0].model_copy(update={"metrics": metrics})
    one = comparison.reproduction.model_copy(update={"tables": [table]})
    return compare("mer_rotations", one.sweeps(Selection()), comparison.store, one).tables[0]


# -- other sources -------------------------------------------------------------------------------------------------


def test_other_sources_stand_beside_the_first_with_verdicts_of_their_own(comparison):
    others = cell(comparison, "MER", "RA").others
    assert list(others) == ["other machines", "25 other seeds"]
    assert (others["25 other seeds"].claim.mean, others["25 other seeds"].claim.runs) == (89.58, 25)
    assert others["25 other seeds"].judgement.outcome == "reproduced"
    assert others["25 other seeds"].claim.source == "Table 7, 25 other seeds"
    assert cell(comparison, "EWC", "RA").others["other machines"].judgement.outcome == "differs"
    assert not cell(comparison, "MER", "LA").others


def test_every_form_shows_the_other_sources(comparison):
    for form in (
        printed(comparison, 80),
        printed(comparison, 140),
        analysis.to_markdown(comparison),
        render(comparison),
    ):
        flat = " ".join(form.split())
        for needed in ("Other published numbers for these cells", "25 other seeds", "89.58 ± 0.19 (25)"):
            assert needed in flat
    assert r"89.58 $\pm$ 0.19 (25)" in analysis.to_latex(comparison)
    found = json_format.loads(analysis.to_json(comparison))["tables"][0]["other_sources"]
    line = next(x for x in found if (x["variant"], x["other_source"]) == ("mer-5120", "25 other seeds"))
    assert (line["published_mean"], line["published_runs"], line["verdict"]) == (89.58, 25, "reproduced")
    assert "other_source" in analysis.to_csv(comparison)


def test_other_sources_are_no_part_of_the_tally(comparison, filled, sweeps, reproduction):
    rows = [row.model_copy(update={"also": {}}) for row in reproduction.tables[0].rows]
    without = reproduction.model_copy(update={"tables": [reproduction.tables[0].model_copy(update={"rows": rows})]})
    alone = compare("mer_rotations", sweeps, filled, without).tables[0]
    assert summary(c for _, c in alone.cells) == summary(c for _, c in comparison.tables[0].cells)
    for one, other in zip(alone.rows, comparison.tables[0].rows, strict=True):
        assert [c.judgement for c in one.cells.values()] == [c.judgement for c in other.cells.values()]


# -- what is not judged, and what is said --------------------------------------------------------------------------

HALF = {"name": "mnist", "source": "cache", "fingerprint": "0123456789abcdef", "partial": "train-images"}
MIXED = {"name": "mnist, svhn", "source": "CLRAY_DATA, embedded", "fingerprint": "0123456789abcdef"}


@pytest.mark.parametrize(
    ("data", "bar"),
    [(HALF, "only a part of the data: train-images"), (MIXED, "embedded data in place of a part")],
)
def test_partial_and_half_embedded_data_is_never_judged(store, sweeps, reproduction, fill, data, bar):
    fill(sweeps["mer/rotations"], "mer-5120", MER, data=data)
    found = compare("mer_rotations", sweeps, store, reproduction)
    assert found.tables[0].warning == f"NOT COMPARABLE WITH THE PAPER ({bar})"
    assert cell(found, "MER", "RA").judgement.outcome == "not judged"
    assert cell(found, "MER", "RA").others["25 other seeds"].judgement.outcome == "not judged"
    assert bar in printed(found, 200)


def test_a_table_says_how_many_of_its_runs_are_stale(filled, sweeps, reproduction):
    def is_current(record):
        return record.variant != "mer-5120" or record.trial.seed > 1

    stale = compare("mer_rotations", sweeps, filled, reproduction, is_current)
    assert cell(stale, "MER", "RA").judgement.outcome == "reproduced", "judged, and said"
    for form in (printed(stale, 80), analysis.to_markdown(stale), analysis.to_latex(stale), render(stale)):
        assert "2 of 12 runs" in " ".join(form.split())
        assert "stale" in form
    content = json_format.loads(analysis.to_json(stale))["tables"][0]
    assert content["stale_runs"] == 2
    assert [c["stale_runs"] for c in content["cells"] if c["variant"] == "mer-5120"] == [2, 2, 2]
    fresh = compare("mer_rotations", sweeps, filled, reproduction, lambda _: True)
    assert "stale" not in printed(fresh, 200)


@pytest.fixture
def diverged(filled, sweeps, make):
    """A store in which seed 3 of Online diverged."""
    one = of(sweeps["mer/rotations"], "online")[3]
    record = make(one, 50.0, 50.0, status="diverged")
    record.measurements = []
    record.provenance["diverged"] = {"step": 3512, "task": 3, "what": "weights"}
    filled.write(record)
    return filled


def test_a_diverged_run_is_marked_and_no_part_of_the_mean(diverged, sweeps, reproduction):
    found = compare("mer_rotations", sweeps, diverged, reproduction)
    online = cell(found, "Online", "RA")
    assert online.ours.n == 2
    assert online.runs.counted == "2 of 5 runs, 1 diverged"
    assert [seed for seed, _ in online.runs.missing] == [1, 4]
    for form in (printed(found, 80), printed(found, 140), analysis.to_markdown(found), render(found)):
        flat = " ".join(form.split())
        assert "53.50 ± 0.71 (2)‡" in flat
        assert "seed 3 in task 4 after 3,512 examples diverged" in flat
        assert "12 of 30 finished, 1 diverged" in flat
    assert json_format.loads(analysis.to_json(found))["tables"][0]["cells"][0]["diverged_seeds"] == [3]
    assert not found.problems


def test_a_row_of_which_every_run_diverged_has_no_number_but_a_mark(store, sweeps, reproduction, make):
    for one in of(sweeps["mer/rotations"], "online"):
        record = make(one, 50.0, 50.0, status="diverged")
        record.measurements = []
        store.write(record)
    found = compare("mer_rotations", sweeps, store, reproduction)
    assert formatting.ours_text(cell(found, "Online", "RA")) == "–‡"
    assert "Online" not in dict(formatting.notes(found.tables[0])).get("missing", "")


def test_a_declared_spread_of_the_stream_is_part_of_the_tests(filled, sweeps, reproduction):
    measured = {"draws": 5, "reason": "five draws of the angles", "variants": {"mer-5120": {"RA": 2.0}}}
    table = reproduction.tables[0].model_copy(update={"benchmark_sd": BenchmarkSpread(**measured)})
    found = compare("mer_rotations", sweeps, filled, reproduction.model_copy(update={"tables": [table]}))
    judged = cell(found, "MER", "RA").judgement
    assert judged.outcome == "consistent"
    assert judged.interval[1] - judged.interval[0] > 10
    assert cell(found, "MER", "LA").judgement.outcome == "reproduced"
    assert "five draws of the angles" in printed(found, 200)


def test_recalled_numbers_are_counted_apart_with_a_dagger(comparison):
    read_there, others = tally(c for _, c in comparison.tables[0].cells)
    assert read_there.total() == 0
    assert others.total() == 12
    assert re.fullmatch(
        r"\d+ of 12 reproduced†, \d+ consistent \(not decidable\)†, \d+ differs?†, 6 not judged†",
        summary(c for _, c in comparison.tables[0].cells),
    )


def test_numbers_read_in_the_paper_have_no_dagger_and_stand_first(filled, sweeps, reproduction):
    table = reproduction.tables[0]
    read = [c.model_copy(update={"known": "paper"}) for c in table.rows[-1].claims.values()]
    last = table.rows[-1].model_copy(update={"claims": dict(zip(("RA", "LA", "BTI"), read, strict=True))})
    known = reproduction.model_copy(update={"tables": [table.model_copy(update={"rows": [*table.rows[:-1], last]})]})
    mixed = compare("mer_rotations", sweeps, filled, known).tables[0]
    assert formatting.verdict_text(mixed.rows[-1].cells["RA"]) == "reproduced"
    assert summary(c for _, c in mixed.cells).startswith("2 of 2 reproduced; 0 of 10 reproduced†")


def test_the_quick_form_is_labelled_and_never_judged(store, reproduction, fill):
    sweeps = reproduction.sweeps(Selection(quick=True))
    fill(sweeps["mer/rotations"], "mer-5120", MER[:3])
    quick = compare("mer_rotations", sweeps, store, reproduction)
    assert quick.tables[0].warning == "NOT COMPARABLE WITH THE PAPER (--quick)"
    assert {c.judgement.outcome for _, c in quick.tables[0].cells} == {"not judged"}
    assert cell(quick, "MER", "RA").judgement.difference is None
    assert quick.commands[0] == "python -m clray.reproduce mer_rotations --quick"
    for form in (printed(quick, 80), analysis.to_markdown(quick), analysis.to_latex(quick)):
        assert "NOT COMPARABLE WITH THE PAPER" in form
    assert not json_format.loads(analysis.to_json(quick))["tables"][0]["comparable"]


def test_a_changed_setting_is_labelled_with_the_flag(store, reproduction):
    sweeps = reproduction.sweeps(Selection(set=("benchmark.seed=7",)))
    changed = compare("mer_rotations", sweeps, store, reproduction)
    assert changed.tables[0].warning == "NOT COMPARABLE WITH THE PAPER (--set benchmark.seed=7)"


def test_embedded_data_is_never_judged(store, sweeps, reproduction, fill):
    fill(sweeps["mer/rotations"], "mer-5120", MER, data=EMBEDDED)
    embedded = compare("mer_rotations", sweeps, store, reproduction)
    assert embedded.tables[0].warning == "NOT COMPARABLE WITH THE PAPER (embedded data)"
    assert cell(embedded, "MER", "RA").judgement.outcome == "not judged"
    assert "embedded" in printed(embedded, 80)


def test_a_selection_leaves_rows_out_but_not_out_of_the_correction(filled, reproduction, comparison):
    sweeps = reproduction.sweeps(Selection(only=("mer-5120",)))
    part = compare("mer_rotations", sweeps, filled, reproduction)
    assert [[r.label for r in t.rows] for t in part.tables] == [["MER"]]
    assert part.tables[0].families == comparison.tables[0].families
    assert "Online; Independent" in dict(formatting.notes(part.tables[0]))["left out"]
    alone, among = cell(part, "MER", "LA").judgement, cell(comparison, "MER", "LA").judgement
    assert alone.outcome == among.outcome
    assert part.commands[0].endswith("--only mer-5120")


def test_a_claim_without_spread_is_not_judged(store, fill):
    orders = load_reproduction("stable_sgd_1")
    assert {c.spread for table in orders.tables for row in table.rows for c in row.claims.values()} == {None}
    empty = compare("stable_sgd_1", orders.sweeps(Selection()), store, orders)
    assert "86.47 ± ? (4)" in printed(empty, 80)


def test_a_sweep_alone_has_no_claims(filled, rotations):
    plain = compare("mer/rotations", {"mer/rotations": rotations}, filled)
    (table,) = plain.tables
    assert len(table.rows) == len(rotations.variants)
    assert list(table.metrics) == ["RA", "LA", "BTI"]
    assert not table.judged
    assert not table.warning
    assert plain.commands[0] == "clray sweep mer/rotations"
    text = printed(plain, 80)
    assert "mer-5120" in text
    assert "published" not in text


def test_problems_are_shown(filled, sweeps, reproduction):
    with open(filled.path("records", "eeeeeeeeeeeeeeee.parquet"), "wb") as file:
        file.write(b"PAR1 torn")
    torn = compare("mer_rotations", sweeps, filled, reproduction)
    assert len(torn.problems) == 1
    for form in (printed(torn, 80), analysis.to_markdown(torn), analysis.to_json(torn)):
        assert "eeeeeeeeeeeeeeee.parquet" in form.replace("\n", "")


def test_an_empty_store_gives_a_table_of_dashes(store, sweeps, reproduction):
    empty = compare("mer_rotations", sweeps, store, reproduction)
    text = printed(empty, 80)
    assert "0 of 30 finished" in text
    assert "89.56 ± 0.11 (5)†" in text
    cells, others = analysis.to_csv(empty).split("\n\n")
    assert len(cells.splitlines()) == 1 + 18 + 12 + 12
    assert len(others.splitlines()) == 1 + 2 * 5 + 2 * 4
    json_format.loads(analysis.to_json(empty))


# -- forms ---------------------------------------------------------------------------------------------------------


def test_numbers():
    assert number(-13.756) == "−13.76"
    assert number(0.031, sign=True) == "+0.03"
    assert number(-0.001) == number(-0.001, sign=True) == "0.00"
    assert number(float("nan")) == "?"


@pytest.mark.parametrize("width", [80, 140])
def test_the_terminal_form_fits_and_says_everything(comparison, width):
    text = printed(comparison, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    line = next(line for line in text.splitlines() if "89.56" in line)
    # ours, published with its number of runs and dagger, difference with interval, verdict: on one line
    assert re.search(r"89\.56 ± 0\.11 \(5\) +89\.56 ± 0\.11 \(5\)†", line)
    assert re.search(r"[+−]?\d\.\d\d \[[+−]\d\.\d\d, [+−]\d\.\d\d\] +reproduced†", line)
    flat = " ".join(text.split())
    for needed in (
        "Online: 2 of 5 runs, without seeds 1, 3, 4",
        "12 of 30 finished",
        "mnist (cache, 01234567)",
        "RA ±1: half the 1.98 points",
        "by Holm's method within a family of claims (RA 6, LA 6, BTI 5)",
        "published ± sd (n)",
        "standard deviation",
        "recalled: not read in the paper",
    ):
        assert needed in flat


def test_many_metrics_without_claims_are_several_tables_in_a_narrow_terminal(rotations, store, fill):
    sweep = rotations.model_copy(update={"metrics": ["ACC", "LA", "RA", "BWT", "F", "AAA"], "paper": ""})
    fill(sweep, "online", [(90.0, 60.0), (91.0, 62.0)])
    comparison = compare("x", {"x": sweep}, store)
    narrow, wide = printed(comparison, 80), printed(comparison, 200)
    times = [sum(line.startswith("mer-200 ") for line in text.splitlines()) for text in (narrow, wide)]
    assert times[0] > times[1] == 1
    assert not any("…" in text.split("runs")[0] for text in (narrow, wide))
    heads = [line.split() for line in narrow.splitlines() if line.split() and set(line.split()) <= set(sweep.metrics)]
    assert [name for head in heads for name in head] == sweep.metrics
    assert max(len(line.rstrip()) for line in narrow.splitlines()) <= 80


def test_a_terminal_narrower_than_a_line_folds_it(comparison):
    text = printed(comparison, 60)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 60
    assert "reproduced†" in text


def test_labels_are_not_markup(filled, sweeps, reproduction):
    table = reproduction.tables[0]
    row = table.rows[-1].model_copy(update={"label": "[bold]M_E*R | 5% & <b>"})
    odd = reproduction.model_copy(update={"tables": [table.model_copy(update={"rows": [row]})]})
    result = compare("mer_rotations", sweeps, filled, odd)
    assert "[bold]M_E*R | 5% & <b>" in printed(result, 140)
    assert r"[bold]M\_E\*R \| 5% & &lt;b>" in analysis.to_markdown(result)
    assert r"[bold]M\_E*R | 5\% \& $<$b$>$" in analysis.to_latex(result)


def test_csv_parses_and_holds_the_numbers(comparison, sweeps):
    lines = list(csv_format.DictReader(analysis.to_csv(comparison).split("\n\n")[0].splitlines()))
    assert len(lines) == (6 + 4 + 4) * 3
    line = next(x for x in lines if x["variant"] == "mer-5120" and x["metric"] == "RA")
    assert float(line["ours_mean"]) == pytest.approx(89.56)
    assert float(line["published_mean"]) == 89.56
    assert (line["published_kind"], line["published_known"], line["verdict"]) == ("sd", "recalled", "reproduced")
    assert float(line["difference_low"]) < 0 < float(line["difference_high"])
    ids = [c.trial.id("0123456789abcdef") for c in of(sweeps["mer/rotations"], "mer-5120")]
    assert line["trials"].split() == ids
    empty = next(x for x in lines if x["variant"] == "gem-5120" and x["metric"] == "RA")
    assert (empty["ours_mean"], empty["ours_runs"], empty["trials"]) == ("", "0", "")


def test_json_holds_each_run(comparison):
    content = json_format.loads(analysis.to_json(comparison))
    first = content["tables"][0]
    entry = next(c for c in first["cells"] if c["variant"] == "online" and c["metric"] == "LA")
    values = [(v["seed"], pytest.approx(v["value"])) for v in entry["values"]]
    assert values == [(0, 58.0), (2, 60.0)]
    assert first["missing"]["online"] == [{"seed": s, "task_order": None, "failed": None} for s in (1, 3, 4)]
    assert first["margins"]["RA"]["points"] == 1.0
    assert content["paper"]["arxiv"] == "1810.11910"
    assert len(content["differences"]) > 5


def test_markdown_is_a_table(comparison):
    lines = [x for x in analysis.to_markdown(comparison).splitlines() if x.startswith("|")]
    first = lines[: 2 + 18]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in first} == {8}
    assert any("| RA | 89.56 ± 0.11 (5) | 89.56 ± 0.11 (5)† |" in line for line in first)


def test_latex_is_balanced_and_escaped(comparison):
    text = analysis.to_latex(comparison)
    assert text.count(r"\begin{") == text.count(r"\end{") == 10
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count("\\" + rule) == 5
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == 18
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {5}
    assert not re.search(r"[±−†‡–…]", text)
    without_comments = "\n".join(x for x in text.splitlines() if not x.startswith("%"))
    assert not re.search(r"(?<!\\)[%#_]", without_comments)
    depth = 0
    for c in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if c == "{" else -1
        assert depth >= 0
    assert depth == 0


def test_the_collapsed_seed_is_marked_in_every_form(store, sweeps, reproduction, fill):
    fill(sweeps["mer/rotations"], "mer-5120", [*MER[:4], (10.0, 10.0)])
    result = compare("mer_rotations", sweeps, store, reproduction)
    for form in (printed(result, 80), printed(result, 140), analysis.to_markdown(result)):
        assert "(5)‡" in form
        assert "seed 4 collapsed to guessing" in " ".join(form.split())
    assert json_format.loads(analysis.to_json(result))["tables"][0]["cells"][-1]["collapsed_seeds"] == [4]


def test_a_missing_margin_is_said(filled, sweeps, reproduction):
    margins = {k: v for k, v in reproduction.margins.items() if k != "RA"}
    assert all(isinstance(m, Margin) for m in margins.values())
    result = compare("mer_rotations", sweeps, filled, reproduction.model_copy(update={"margins": margins}))
    judged = cell(result, "MER", "RA").judgement
    assert judged.outcome == "consistent"
    assert dict(formatting.notes(result.tables[0]))["margin"].startswith(("LA", "BTI"))


def test_seeds_of_a_selection_are_what_is_expected(filled, reproduction):
    two = reproduction.sweeps(Selection(seeds=(0, 2)))
    result = compare("mer_rotations", two, filled, reproduction)
    online = next(r for r in result.tables[0].rows if r.label == "Online")
    assert online.runs.counted == "2 of 2 runs"
    assert result.commands[0].endswith("--seeds 0,2")
    assert load_sweep("mer/rotations", Selection(seeds=(0, 2))).comparable


def test_a_table_of_which_nothing_was_judged_does_not_say_that_nothing_was_reproduced(store, sweeps, reproduction):
    empty = compare("mer_rotations", sweeps, store, reproduction).tables[0]
    assert summary(c for _, c in empty.cells) == "12 not judged†"
    assert dict(formatting.notes(empty))["missing"] == "not begun: Online; Independent; Task Input; EWC; GEM; MER"
