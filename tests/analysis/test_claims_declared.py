"""Reproduction files: several sources, printed digits, and malformed claims, refused with their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from clray.errors import DeclarationError
from clray.loading import reproduction_names
from clray.reproduction import Claim, Reproduction, load_reproduction

TEXT = """\
version: 1
paper: mer
title: A test
runs: 5
spread: sd
known: recalled
margins: {RA: {points: 1.0, reason: because it is a test}}
sources:
  25 seeds: {runs: 25, source: "Tables 7 to 9, 25 other seeds", known: paper}
  elsewhere: {source: "Table 9", spread: sem}
tables:
  - title: One
    sweep: mer/rotations
    source: Table 1
    metrics: [RA, LA]
    benchmark_sd:
      draws: 5
      reason: five draws of the angles
      variants:
        online: {RA: 0.9, LA: 0.4}
    rows:
      - label: Online
        variant: online
        claims: {RA: 53.40 ± 1.53, LA: 58.82}
        also:
          25 seeds: {RA: 52.79 ± 0.98}
          elsewhere: {RA: {mean: 52.5, spread: 1, runs: 3}, LA: 58}
searches:
  - title: Two
    sweep: mer/rotations
    source: the script
    metric: RA
    rows:
      - label: Online
        variant: online
        published: {lr: 0.1}
"""


@pytest.fixture
def load(tmp_path: Path):
    def read(*changes: tuple[str, str]) -> Reproduction:
        text = TEXT
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        (tmp_path / "test.yaml").write_text(text, encoding="utf-8")
        return load_reproduction(tmp_path / "test.yaml")

    return read


def test_other_sources_are_filled_in_from_their_declaration(load):
    found = load()
    row = found.tables[0].rows[0]
    table = found.tables[0]
    seeds, elsewhere = (found.claim(table, row, "RA", source) for source in ("25 seeds", "elsewhere"))
    assert (seeds.mean, seeds.spread, seeds.kind, seeds.runs) == (52.79, 0.98, "sd", 25)
    assert (seeds.known, seeds.source) == ("paper", "Tables 7 to 9, 25 other seeds")
    # what a claim says itself stands before what its source says, and that before what the file says
    assert (elsewhere.kind, elsewhere.runs, elsewhere.known) == ("sem", 3, "recalled")
    assert found.claim(table, row, "LA", "elsewhere").runs == 5
    assert found.claim(table, row, "LA", "25 seeds") is None
    assert found.claim(table, row, "RA").source == "Table 1"


@pytest.mark.parametrize(
    ("written", "decimals"),
    [
        ("53.40 ± 1.53", 2),
        ("-5.4 ± 1.70", 1),
        ("80 ± 1", 0),
        ("61", 0),
        ("53.4", 1),
        ("{mean: 53.4, spread: 1.53}", 2),
        ("{mean: 53.4, spread: 1.53, decimals: 1}", 1),
        ("{mean: 100.0, spread: 0.0}", 1),
    ],
)
def test_the_decimals_that_were_printed(load, written, decimals):
    found = load(("53.40 ± 1.53", written))
    assert found.tables[0].rows[0].claims["RA"].decimals == decimals


def test_a_claim_made_in_python_has_the_shortest_digits_of_its_numbers():
    assert Claim(mean=80.0, spread=0.25).decimals == 2
    assert Claim(mean=80, spread=1).decimals == 0


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("53.40 ± 1.53", "{mean: 53.4, spread: -1}", "claims: {", "greater than or equal to 0"),
        ("53.40 ± 1.53", "53.40 ± -1", "claims: {", "expected a number, 'MEAN ± SPREAD'"),
        ("53.40 ± 1.53", ".nan", "claims: {", "finite number"),
        ("53.40 ± 1.53", "{mean: .inf}", "claims: {", "finite number"),
        ("53.40 ± 1.53", "{mean: 53, spread: .inf}", "claims: {", "finite number"),
        ("53.40 ± 1.53", "{mean: 53, runs: 0}", "claims: {", "greater than or equal to 1"),
        ("53.40 ± 1.53", "{mean: 53, kind: std}", "claims: {", "'population sem'"),
        ("53.40 ± 1.53", "[53.4]", "claims: {", "keys with values"),
        ("LA: 58.82", "BTI: 58.82", "claims: {", "'BTI' has a claim and no column here; allowed: RA, LA"),
        ("LA: 58.82", "LAA: 58.82", "claims: {", "did you mean 'LA'"),
        ("points: 1.0", "points: .nan", "margins:", "finite number"),
        ("points: 1.0", "points: .inf", "margins:", "finite number"),
        ("{RA: {points", "{F: {points", "margins:", "margins: 'F' is no column of a table here; allowed: RA, LA"),
        ("paper: mer", "paper: nosuch", "paper:", "is not in papers.yaml; allowed: mer"),
        ("{lr: 0.1}", "{lr: [0.1]}", "published:", ""),
        ("{lr: 0.1}", "{lr: .nan}", "published:", ""),
        ("25 seeds: {RA", "24 seeds: {RA", "24 seeds:", "is not one of 'sources'; did you mean '25 seeds'"),
        ("25 seeds: {RA", "25 seeds: {F", "25 seeds: {F", "'F' has a claim and no column here"),
        ("runs: 25", "runs: 0", "25 seeds: {runs", "greater than or equal to 1"),
        ("draws: 5", "draws: 1", "draws:", "greater than or equal to 2"),
        ("online: {RA: 0.9", "onlin: {RA: 0.9", "onlin:", "did you mean 'online'"),
        ("{RA: 0.9", "{F: 0.9", "{F: 0.9", "'F' is no column here"),
        ("{RA: 0.9", "{RA: -0.9", "{RA: -0.9", "greater than or equal to 0"),
        ("metrics: [RA, LA]", "metrics: [RA, RA]", "title: One", "stands twice"),
        ("title: One", "title: One\n    family: row", "family:", "'metric' or 'table'"),
    ],
)  # fmt: skip
def test_malformed_ones_are_refused_with_their_place(load, tmp_path, old, new, line, said):
    with pytest.raises(DeclarationError) as caught:
        load((old, new))
    path = tmp_path / "test.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    at = next(i + 1 for i, text in enumerate(lines) if line in text)
    text = str(caught.value)
    # What a whole table or file must agree on is told with the table's line or the file, and the keys below it.
    tables = next(i + 1 for i, text in enumerate(lines) if "- title: One" in text)
    assert text.startswith((f"{path}:{at}: ", f"{path}:{tables}: ", f"{path}: ")), text
    assert said in text, text


def test_without_sources_none_is_allowed(load):
    with pytest.raises(DeclarationError, match="allowed: none, without 'sources'"):
        load((TEXT[TEXT.index("sources:") : TEXT.index("tables:")], ""))


@pytest.mark.parametrize("name", reproduction_names())
def test_the_files_that_ship_are_accepted(name):
    load_reproduction(name)
