"""The comparison and its forms."""

from __future__ import annotations

import csv as csv_format
import io
import json as json_format
import re

import pytest
from made_records import EMBEDDED, of
from rich.console import Console

from clray.analysis import tables, words
from clray.analysis.comparison import compare, tally
from clray.analysis.words import number, summary
from clray.spec import Margin, Selection, load_reproduction, load_sweep

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
    Console(width=width, force_terminal=False, color_system=None, file=out).print(tables.text(comparison))
    return out.getvalue()


def test_every_row_and_cell_of_the_file_is_there(comparison, reproduction):
    for ours, theirs in zip(comparison.tables, reproduction.tables, strict=True):
        assert [r.label for r in ours.rows] == [r.label for r in theirs.rows]
        assert all(list(r.cells) == theirs.metrics for r in ours.rows)


def test_the_verdicts(comparison):
    assert cell(comparison, "MER", "RA").judgement.outcome == "reproduced"
    assert cell(comparison, "EWC", "RA").judgement.outcome == "differs"
    assert cell(comparison, "Online", "RA").judgement.outcome == "inconclusive"
    assert cell(comparison, "GEM", "RA").judgement.reason == "no run of ours"
    assert cell(comparison, "Independent", "BTI").judgement.reason == "no published number"
    assert cell(comparison, "ER", "RA", table=1).judgement.outcome == "not judged"


def test_the_tests_are_corrected_for_all_claims_of_the_table(comparison):
    # 6 rows of 3 metrics, of which Independent has no BTI
    assert comparison.tables[0].claims == 17
    assert comparison.tables[1].claims == 0


def test_recalled_numbers_are_counted_apart_with_a_dagger(comparison):
    read_there, others = tally(c for _, c in comparison.tables[0].cells)
    assert read_there.total() == 0
    assert others.total() == 17
    assert re.fullmatch(
        r"\d+ of 17 reproduced†, \d+ differs?†, \d+ inconclusive†, 8 not judged†",
        summary(c for _, c in comparison.tables[0].cells),
    )


def test_numbers_read_in_the_paper_have_no_dagger_and_stand_first(filled, sweeps, reproduction):
    table = reproduction.tables[0]
    read = [c.model_copy(update={"known": "paper"}) for c in table.rows[-1].claims.values()]
    last = table.rows[-1].model_copy(update={"claims": dict(zip(("RA", "LA", "BTI"), read, strict=True))})
    known = reproduction.model_copy(update={"tables": [table.model_copy(update={"rows": [*table.rows[:-1], last]})]})
    mixed = compare("mer_rotations", sweeps, filled, known).tables[0]
    assert words.verdict_text(mixed.rows[-1].cells["RA"]) == "reproduced"
    assert summary(c for _, c in mixed.cells).startswith("3 of 3 reproduced; 0 of 14 reproduced†")


def test_the_quick_form_is_labelled_and_never_judged(store, reproduction, fill):
    sweeps = reproduction.sweeps(Selection(quick=True))
    fill(sweeps["mer/rotations"], "mer-5120", MER[:3])
    quick = compare("mer_rotations", sweeps, store, reproduction)
    assert quick.tables[0].warning == "NOT COMPARABLE WITH THE PAPER (--quick)"
    assert {c.judgement.outcome for _, c in quick.tables[0].cells} == {"not judged"}
    assert cell(quick, "MER", "RA").judgement.difference is None
    assert quick.commands[0] == "python -m clray.reproduce mer_rotations --quick"
    for form in (printed(quick, 80), tables.markdown(quick), tables.latex(quick)):
        assert "NOT COMPARABLE WITH THE PAPER" in form
    assert not json_format.loads(tables.json(quick))["tables"][0]["comparable"]
    # a table that holds nothing published needs no warning
    assert quick.tables[1].warning == ""


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
    assert part.tables[0].claims == 17
    assert "Online; Independent" in dict(words.notes(part.tables[0]))["left out"]
    alone, among = cell(part, "MER", "LA").judgement, cell(comparison, "MER", "LA").judgement
    assert alone.outcome == among.outcome
    assert part.commands[0].endswith("--only mer-5120")


def test_a_low_confidence_claim_without_spread_is_not_judged(store, fill):
    memory = load_reproduction("mer_memory")
    sweeps = memory.sweeps(Selection())
    fill(sweeps["mer/rotations"], "gem-500", [(85.6, 75.0), (85.0, 74.5), (86.0, 74.0)])
    result = compare("mer_memory", sweeps, store, memory)
    unsure = cell(result, "GEM, 500", "LA")
    assert unsure.judgement.reason == "no published spread"
    assert unsure.judgement.difference == pytest.approx(unsure.ours.mean - 85.60)
    assert "85.60 ± ? (5)†" in printed(result, 80)
    assert "low confidence" in printed(result, 80)


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
    for form in (printed(torn, 80), tables.markdown(torn), tables.json(torn)):
        assert "eeeeeeeeeeeeeeee.parquet" in form.replace("\n", "")


def test_an_empty_store_gives_a_table_of_dashes(store, sweeps, reproduction):
    empty = compare("mer_rotations", sweeps, store, reproduction)
    text = printed(empty, 80)
    assert "0 of 30 finished" in text
    assert "89.56 ± 0.11 (5)†" in text
    assert tables.csv(empty).count("\n") == 1 + 18 + 12
    json_format.loads(tables.json(empty))


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
        "17 claims by Holm's method",
        "published ± sd (n)",
        "standard deviation",
        "recalled: not read in the paper",
    ):
        assert needed in flat


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
    assert r"[bold]M\_E\*R \| 5% & &lt;b>" in tables.markdown(result)
    assert r"[bold]M\_E*R | 5\% \& $<$b$>$" in tables.latex(result)


def test_csv_parses_and_holds_the_numbers(comparison, sweeps):
    lines = list(csv_format.DictReader(tables.csv(comparison).splitlines()))
    assert len(lines) == (6 + 4) * 3
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
    content = json_format.loads(tables.json(comparison))
    first = content["tables"][0]
    entry = next(c for c in first["cells"] if c["variant"] == "online" and c["metric"] == "LA")
    values = [(v["seed"], pytest.approx(v["value"])) for v in entry["values"]]
    assert values == [(0, 58.0), (2, 60.0)]
    assert first["missing"]["online"] == [{"seed": s, "task_order": None, "failed": None} for s in (1, 3, 4)]
    assert first["margins"]["RA"]["points"] == 1.0
    assert content["paper"]["arxiv"] == "1810.11910"
    assert len(content["differences"]) > 5


def test_markdown_is_a_table(comparison):
    lines = [x for x in tables.markdown(comparison).splitlines() if x.startswith("|")]
    first = lines[: 2 + 18]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in first} == {8}
    assert any("| RA | 89.56 ± 0.11 (5) | 89.56 ± 0.11 (5)† |" in line for line in first)


def test_latex_is_balanced_and_escaped(comparison):
    text = tables.latex(comparison)
    assert text.count(r"\begin{") == text.count(r"\end{") == 4
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count("\\" + rule) == 2
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
    for form in (printed(result, 80), printed(result, 140), tables.markdown(result)):
        assert "(5)‡" in form
        assert "seed 4 collapsed to guessing" in " ".join(form.split())
    assert json_format.loads(tables.json(result))["tables"][0]["cells"][-1]["collapsed_seeds"] == [4]


def test_a_missing_margin_is_said(filled, sweeps, reproduction):
    margins = {k: v for k, v in reproduction.margins.items() if k != "RA"}
    assert all(isinstance(m, Margin) for m in margins.values())
    result = compare("mer_rotations", sweeps, filled, reproduction.model_copy(update={"margins": margins}))
    judged = cell(result, "MER", "RA").judgement
    assert judged.outcome == "inconclusive"
    assert judged.reason.startswith("no margin is declared")


def test_seeds_of_a_selection_are_what_is_expected(filled, reproduction):
    two = reproduction.sweeps(Selection(seeds=(0, 2)))
    result = compare("mer_rotations", two, filled, reproduction)
    online = next(r for r in result.tables[0].rows if r.label == "Online")
    assert online.runs.counted == "2 of 2 runs"
    assert result.commands[0].endswith("--seeds 0,2")
    assert load_sweep("mer/rotations", Selection(seeds=(0, 2))).comparable


def test_a_table_of_which_nothing_was_judged_does_not_say_that_nothing_was_reproduced(store, sweeps, reproduction):
    empty = compare("mer_rotations", sweeps, store, reproduction).tables[0]
    assert summary(c for _, c in empty.cells) == "17 not judged†"
    assert dict(words.notes(empty))["missing"] == "not begun: Online; Independent; Task Input; EWC; GEM; MER"
