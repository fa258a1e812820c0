"""The content of a page at W&B, as it follows from the declarations."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from clray.dashboards import Dashboard, dashboard, panels
from clray.loading import load_sweep, reproduction_names
from clray.reproduction import load_reproduction
from clray.selection import Selection


def test_every_reproduction_has_a_page_with_a_section_a_table() -> None:
    for name in reproduction_names():
        reproduction = load_reproduction(name)
        page = dashboard(name, reproduction.sweeps(), reproduction)
        assert page.title == f"{reproduction.title}, clray {name}"
        assert [s.title for s in page.sections] == [table.title for table in reproduction.tables]
        for section, table in zip(page.sections, reproduction.tables, strict=True):
            assert section.sweep == table.sweep
            if name != "online_tuning":
                assert list(section.variants.items()) == [(row.variant, row.label) for row in table.rows]
            drawn = [panel.value for panel in section.panels if panel.kind == "spread"]
            assert drawn == table.metrics


def test_a_row_that_a_tuning_phase_chooses_has_all_points_of_its_grid() -> None:
    reproduction = load_reproduction("online_tuning")
    (section,) = dashboard(
        "online_tuning", reproduction.sweeps(Selection(only=("derpp", "mir"))), reproduction
    ).sections
    assert len(section.variants) == 15
    assert section.variants["derpp@lr=0.1@beta=0.5"] == "DER++, lr 0.1, beta 0.5"
    assert section.variants["mir@lr=0.1"] == "MIR, lr 0.1"


def test_what_is_shown_and_in_which_order() -> None:
    shown = panels(["RA", "BTI"])
    assert [panel.kind for panel in shown] == ["verdicts", "spread", "spread", "curve", "curve", "matrices", "runs"]
    assert [panel.value for panel in shown if panel.value] == ["RA", "BTI", "accuracy/mean_seen", "accuracy/mean"]


def test_a_changed_sweep_has_a_page_of_its_own() -> None:
    reproduction, quick = load_reproduction("mer_rotations"), Selection(quick=True)
    page = dashboard("mer_rotations", reproduction.sweeps(quick), reproduction)
    assert page.name == "mer_rotations-quick"
    assert {section.sweep for section in page.sections} == {"mer/rotations-quick"}


def test_a_page_of_a_part_knows_its_rows() -> None:
    reproduction, part = load_reproduction("mer_rotations"), Selection(only=("er-5120",))
    page = dashboard("mer_rotations", reproduction.sweeps(part), reproduction)
    assert [dict(section.variants) for section in page.sections] == [{"er-5120": "ER"}]


def test_a_sweep_without_a_reproduction_has_a_page_too(tiny: Path) -> None:
    page = dashboard("tiny", {"tiny": load_sweep(tiny)}, data={"A sweep of seconds": ["print"]})
    (section,) = page.sections
    assert (section.heading, section.sweep, section.data) == ("A sweep of seconds", "tiny", ["print"])
    assert section.variants["mer7"] == "mer7"
    assert Dashboard.of_plain(json.loads(json.dumps(dataclasses.asdict(page)))) == dataclasses.replace(
        page, sections=[dataclasses.replace(section, metrics=list(section.metrics))]
    )
