"""The pages about the reference runs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_records import of

from clray import reference_runs
from clray.analysis import pages
from clray.commands.records import all_pages
from clray.errors import DeclarationError
from clray.reproduction import load_reproduction

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
REMEDY = "run `make results` and commit docs/results"


@pytest.fixture(scope="module")
def shipped():
    return all_pages()


@pytest.fixture(scope="module")
def drawn(shipped):
    """The figures of each page. Drawing them takes most of a page's time."""
    return {page.name: pages.figures(page) for page in shipped}


class TestShippedPages:
    def test_the_index_is_what_the_reference_runs_give(self, shipped):
        assert (RESULTS / "README.md").read_text(encoding="utf-8") == pages.index(shipped), REMEDY

    def test_every_page_is_what_the_reference_runs_give(self, shipped, drawn, monkeypatch):
        monkeypatch.setattr(pages, "figures", lambda page: drawn[page.name])
        for page in shipped:
            assert (RESULTS / f"{page.name}.md").read_text(encoding="utf-8") == pages.markdown(page), REMEDY

    def test_a_published_number_without_a_spread_is_written_without_one(self, shipped):
        said = [text for page in shipped for text in pages.found(page)]
        assert any("86.47" in text for text in said), "a number that was read from a figure"
        assert not any("?" in text for text in said)

    def test_nothing_else_is_in_the_folder(self, shipped, drawn):
        """A page of a reproduction that has no reference runs any more would show numbers that nothing supports."""
        wanted = {"README.md"} | {f"{page.name}.md" for page in shipped}
        wanted |= {name for page in shipped for name in drawn[page.name]}
        assert {path.name for path in RESULTS.iterdir()} == wanted, REMEDY

    def test_links_and_pictures_are_there(self):
        for page in RESULTS.glob("*.md"):
            for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.fixture
def records(rotations, make):
    """Two runs of MER and one of EWC."""
    mer, ewc = of(rotations, "mer-5120"), of(rotations, "ewc")
    return [make(mer[0], 87.0, 89.0), make(mer[1], 88.0, 90.0), make(ewc[0], 70.0, 50.0)]


def with_findings(*findings: str):
    return load_reproduction("mer_rotations").model_copy(update={"findings": list(findings)})


def without_claims(table):
    rows = [
        replace(row, cells={m: replace(cell, claim=None) for m, cell in row.cells.items()}, orders={})
        for row in table.rows
    ]
    return replace(table, rows=rows)


class TestFindings:
    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ("{mer-5120 RA} here", "89.50 ± 0.71 here"),
            ("{mer/rotations/mer-5120 LA}", "87.50 ± 0.71"),
            ("{ewc RA}: one run", "50.00: one run"),
            ("{mer-5120 RA published}", "89.56 ± 0.11"),
            ("{mer-5120 RA 25 other seeds}", "89.58 ± 0.19"),
            ("no placeholder", "no placeholder"),
        ],
    )
    def test_numbers_are_filled_in(self, records, text, wanted):
        assert pages.found(pages.page_of(with_findings(text), records)) == [wanted]

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("{mer RA}", "0 cells are called so"),
            ("{mer-5120 ACC}", "0 cells are called so"),
            ("{gem-5120 RA}", "no reference run"),
            ("{mer-5120 RA nowhere}", "'nowhere' is no source.*other machines, 25 other seeds, published"),
        ],
    )
    def test_a_wrong_one_is_an_error_that_names_it(self, records, text, problem):
        page = pages.page_of(with_findings(text), records)
        with pytest.raises(DeclarationError, match=rf"mer_rotations.yaml:\d+: findings\.0: \{text}: .*{problem}"):
            pages.found(page)


class TestPages:
    def test_they_tell_what_was_run_and_what_was_not(self, records):
        page = pages.page_of(with_findings("MER has {mer-5120 RA}."), records)
        text = pages.markdown(page)
        assert "3 of 70 trials were run" in text
        assert "- MER has 89.50 ± 0.71." in text
        assert "| MER | RA | 89.50 ± 0.71 (2) | 89.56 ± 0.11 (5) |" in text
        assert "The others would take about" in text

    def test_the_index_has_the_first_finding_of_a_table_and_tells_how_many_more_there_are(self, records):
        text = pages.index([pages.page_of(with_findings("MER has {mer-5120 RA}.", "Second.", "Third."), records)])
        found = text.partition("## Findings")[2]
        assert ": MER has 89.50 ± 0.71. ([2 more findings and the table](mer_rotations.md))" in found
        assert "Second" not in text
        assert "### Learning to Learn without Forgetting" in found

    def test_findings_of_tables_without_published_numbers_stand_apart(self, records):
        page = pages.page_of(with_findings("MER has {mer-5120 RA}."), records)
        bare = replace(page.comparison, tables=[without_claims(table) for table in page.comparison.tables])
        found = pages.index([replace(page, comparison=bare)]).partition("## Findings")[2]
        assert "### Tables without published numbers" in found
        assert "([table](mer_rotations.md))" in found

    def test_a_trial_that_two_tables_share_is_counted_once(self, records):
        page = pages.page_of(with_findings(), records)
        alone, twice = (pages.index(shown).splitlines()[4] for shown in ([page], [page, page]))
        assert alone == twice
        assert alone.startswith(f"{len(page.measured)} trials in ")
        assert len(page.measured) == page.cost.measured > 0

    def test_the_index_counts_judged_cells_with_a_run_and_no_derived_ones(self, records):
        page = pages.page_of(with_findings(), records)
        by_paper = pages.index([page]).partition("## Verdicts by paper")[2].partition("## Tables")[0]
        total = int(by_paper.strip().splitlines()[2].split("|")[2])
        counted = [c for c in page.judged if c.claim and c.counted and c.judgement.outcome != "not judged"]
        assert total == len(counted) == 2, "RA and LA of MER: one run of EWC has no spread"

    def test_they_are_written_whole(self, records, tmp_path):
        page = pages.page_of(with_findings("{mer-5120 RA}"), records)
        written = list(pages.write([page], tmp_path / "new"))
        assert {path.name for path in written} == {"README.md", "mer_rotations.md", *pages.figures(page)}
        for path in written:
            assert path.stat().st_size > 200
        assert (tmp_path / "new" / "mer_rotations-1-runs.svg").read_text().startswith("<svg")

    def test_a_wrong_finding_writes_nothing(self, records, tmp_path):
        page = pages.page_of(with_findings("{mer RA}"), records)
        with pytest.raises(DeclarationError):
            list(pages.write([page], tmp_path / "new"))
        assert not (tmp_path / "new").exists()

    def test_reproductions_without_reference_runs_have_none(self, shipped):
        assert [page.name for page in shipped] == sorted(reference_runs.names(), key=[p.name for p in shipped].index)
        assert {page.name for page in shipped} == set(reference_runs.names())
