"""Every reproduction file: it loads, its sweeps have its variants, and its numbers add up."""

from __future__ import annotations

import itertools
import re

import pytest

from clray.errors import DeclarationError
from clray.loading import declared_root, papers, reproduction_names
from clray.reproduction import Claim, Row, Table, load_reproduction
from clray.selection import Selection

NAMES = ("mer_many_permutations", "mer_memory", "mer_permutations", "mer_rotations")
FILES = {name: load_reproduction(name) for name in reproduction_names()}


def rows(name: str) -> list[tuple[Table, Row]]:
    return [(table, row) for table in FILES[name].tables for row in table.rows]


def claims(name: str) -> list[tuple[Row, str, Claim]]:
    found = [(r, m, FILES[name].claim(t, r, m)) for t, r in rows(name) for m in t.metrics]
    return [(row, metric, claim) for row, metric, claim in found if claim is not None]


_PARTS = {"half": 1 / 2, "a third": 1 / 3, "a quarter": 1 / 4}
_PART = re.compile(r"\b(half|a third|a quarter)\b(?: of)? (?:the )?(?:smallest gap [^0-9]*\()?(\d+(?:\.\d+)?)")
"""``less than half of 2.3``, ``at most half the 3.64 points``, ``less than a third of the smallest gap … (7.20``."""

_RIVAL_IS_NO_ROW = {"lamol_text_classification", "stable_sgd_2"}
"""Those whose reason compares with a method of the paper that clray does not have."""


def gaps(name: str, metric: str) -> list[float]:
    """The differences between any two published means of a metric in one table."""
    found = []
    for table in FILES[name].tables:
        own = [FILES[name].claim(table, row, metric) for row in table.rows]
        means = [claim.mean for claim in own if claim]
        means += [claim.mean for row in table.rows for claim in row.by_order.values()]
        found += [abs(a - b) for a, b in itertools.combinations(means, 2)]
    return found


def test_the_reproductions_that_ship():
    assert set(NAMES) <= set(FILES)


def test_a_row_of_the_quick_form_that_is_not_there():
    wrong = load_reproduction("online_mir").model_copy(update={"quick": ["mir-2"]})
    message = r"/online_mir\.yaml:\d+: quick: mir-2: no row of online_mir .* did you mean"
    with pytest.raises(DeclarationError, match=message):
        wrong.sweeps(Selection())


@pytest.mark.parametrize("name", FILES)
class TestEveryFile:
    def test_it_opens_with_the_command_that_runs_it(self, name):
        first = (declared_root() / "reproduce" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
        assert first == f"# python -m clray.reproduce {name}"

    def test_its_paper_is_known(self, name):
        assert FILES[name].paper in papers()

    def test_every_row_is_a_variant_of_its_sweep(self, name):
        sweeps = FILES[name].sweeps(Selection())
        for table, row in rows(name):
            filling = row.filling(dict(sweeps[table.sweep].variant_settings()))
            assert filling
            assert set(filling) <= {cell.variant for cell in sweeps[table.sweep].cells}

    def test_every_search_is_of_a_grid_and_runs_the_published_choice(self, name):
        sweeps = FILES[name].sweeps(Selection())
        for group in FILES[name].searches:
            variants = dict(sweeps[group.sweep].variant_settings())
            for row in group.rows:
                assert len(row.points(variants)) > 1
                assert row.published_point(variants) in variants

    def test_our_runs_are_as_many_as_the_papers(self, name):
        sweeps = FILES[name].sweeps(Selection())
        for group in (*FILES[name].tables, *FILES[name].searches):
            assert len(sweeps[group.sweep].seeds) >= FILES[name].runs

    def test_its_quick_form_is_another_experiment_or_an_error_that_says_so(self, name):
        try:
            sweeps = FILES[name].sweeps(Selection(quick=True))
        except DeclarationError as error:
            assert "the quick form keeps none of these variants" in str(error)  # noqa: PT017
        else:
            assert not any(sweep.comparable for sweep in sweeps.values())

    def test_its_quick_form_has_the_rows_that_it_declares(self, name):
        if not FILES[name].quick:
            pytest.skip("it runs all rows")
        sweeps = FILES[name].sweeps(Selection(quick=True))
        found = {cell.variant for sweep in sweeps.values() for cell in sweep.cells}
        assert found == set(FILES[name].quick)
        some = FILES[name].quick[0]
        chosen = FILES[name].sweeps(Selection(quick=True, only=(some,)))
        assert {cell.variant for sweep in chosen.values() for cell in sweep.cells} == {some}

    def test_every_claim_has_a_margin_with_a_reason(self, name):
        for _, metric, claim in claims(name):
            if claim.spread is not None or metric in FILES[name].margins:
                assert len(FILES[name].margins[metric].reason) > 20

    def test_a_margin_is_the_part_that_its_reason_says_of_a_difference_in_the_tables(self, name):
        for metric, margin in FILES[name].margins.items():
            parts = _PART.findall(margin.reason)
            for part, points in parts:
                assert margin.points <= _PARTS[part] * float(points) + 0.011, (metric, part, points)
            if parts and name not in _RIVAL_IS_NO_ROW:
                points = parts[0][1]
                step = 0.11 if "." in points and len(points.partition(".")[2]) == 1 else 0.011
                assert any(abs(gap - float(points)) < step for gap in gaps(name, metric)), (metric, points)

    def test_no_claim_stands_outside_the_columns(self, name):
        for table, row in rows(name):
            assert set(row.claims) <= set(table.metrics)

    def test_rows_without_a_claim_say_why(self, name):
        for _, row in rows(name):
            assert row.claims or row.note

    def test_labels_are_told_apart(self, name):
        for table in FILES[name].tables:
            assert len({row.label for row in table.rows}) == len(table.rows)
            assert len({row.variant for row in table.rows}) == len(table.rows)
        for group in FILES[name].searches:
            assert len({row.label for row in group.rows}) == len(group.rows)

    def test_a_claim_without_spread_says_why(self, name):
        for row, metric, claim in claims(name):
            assert claim.spread is not None or claim.note, (row.label, metric)

    def test_differences_are_named(self, name):
        assert FILES[name].differences


@pytest.mark.parametrize("name", NAMES)
class TestMer:
    def test_retained_less_learned_is_backward_transfer(self, name):
        checked = 0
        for _, row in rows(name):
            if {"RA", "LA", "BTI"} <= set(row.claims):
                ra, la, bti = (row.claims[m].mean for m in ("RA", "LA", "BTI"))
                # published means are rounded one by one, so the last digit may be off by up to three
                if "as printed, RA − LA is −10.96" in row.note:
                    assert (ra, la, bti) == (73.46, 84.42, -9.96), "the one row of the paper that does not add up"
                    continue
                assert ra - la == pytest.approx(bti, abs=0.03), row.label
                checked += 1
        assert checked >= 4

    def test_means_are_of_five_runs_printed_with_three_decimals(self, name):
        for row, metric, claim in claims(name):
            if claim.source.startswith(("Table 1", "Table 2", "Table 3")):
                assert round(100 * claim.mean) % 2 == 0, (row.label, metric)

    def test_independent_networks_forget_nothing(self, name):
        for _, row in rows(name):
            if row.variant == "independent" and row.claims:
                assert row.claims["RA"] == row.claims.get("LA", row.claims["RA"])
                assert "BTI" not in row.claims

    def test_the_paper_prints_ra_alone_for_replay_and_variants(self, name):
        found = [claim for row, _, claim in claims(name) if row.variant.startswith(("er-", "er5-", "mer6-", "mer7-"))]
        assert found
        assert all(claim.source.startswith("Table 6") for claim in found)

    def test_every_number_was_read_in_the_paper(self, name):
        assert {claim.known for *_, claim in claims(name)} == {"paper"}
        assert {source.known for source in FILES[name].sources.values()} == {"paper"}

    def test_the_authors_own_re_runs_stand_beside_their_ra(self, name):
        for _, row in rows(name):
            if row.variant.startswith(("task_input", "er5-adam", "er5-rmsprop", "er5-ring", "gem-reservoir")):
                assert not row.also  # these are in none of Tables 7 to 9
                continue
            assert {source: set(found) for source, found in row.also.items()} == {
                "other machines": {"RA"},
                "25 other seeds": {"RA"},
            }
            for found in row.also.values():
                assert found["RA"].mean == pytest.approx(row.claims["RA"].mean, abs=6), row.label

    def test_the_margin_cannot_turn_the_order_of_gem_and_mer(self, name):
        for table in FILES[name].tables:
            ra = {r.variant: r.claims["RA"].mean for r in table.rows if "RA" in r.claims}
            for memories in ("5120", "500", "200"):
                if {f"gem-{memories}", f"mer-{memories}"} <= set(ra):
                    gap = ra[f"mer-{memories}"] - ra[f"gem-{memories}"]
                    assert gap / 2 >= FILES[name].margins["RA"].points - 0.011


def test_the_first_table_of_rotations_as_it_is_printed():
    table = FILES["mer_rotations"].tables[0]
    last = FILES["mer_rotations"].claim(table, table.rows[-1], "RA")
    assert last is not None
    assert (last.mean, last.spread, last.kind, last.runs) == (89.56, 0.11, "sd", 5)


def test_an_unknown_variant_is_an_error_that_names_the_known_ones():
    with pytest.raises(DeclarationError, match="mer-5120"):
        FILES["mer_rotations"].sweeps(Selection(only=("mer-512",)))
