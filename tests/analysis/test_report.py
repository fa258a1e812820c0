"""The figures and the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from made_records import of

from clray.analysis import landscape, plots
from clray.analysis.comparison import compare
from clray.analysis.formatting import notes
from clray.analysis.report import render, write_into_store, write_report
from clray.dashboards import panels
from clray.errors import ClrayError, StoreError
from clray.output import visible
from clray.selection import Selection
from clray.store import Store

MER = [(87.6, 89.5), (87.8, 89.6), (87.5, 89.4), (87.7, 89.7)]
SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """Reads a page as a strict reader would: every element closed in order, ids once, what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.targets: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        assert len(found) == len(attrs), f"an attribute twice in <{tag}>"
        self.tags.append((tag, found))
        if "id" in found:
            self.ids.append(found["id"])
        self.loads += [found[k] for k in ("src", "srcset", "action", "poster", "data") if k in found]
        links = [found[k] for k in ("href", "xlink:href") if k in found]
        self.targets += [link[1:] for link in links if link.startswith("#")]
        self.loads += [link for link in links if not link.startswith(("#", "data:"))]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def comparison(store, sweeps, reproduction, fill):
    sweep = sweeps["mer/rotations"]
    fill(sweep, "mer-5120", MER)
    fill(sweep, "online", [(58.0, 53.0), (59.0, 52.0), (60.0, 54.0), (57.0, 53.5), (58.5, 55.0)], code="<code & co>")
    fill(sweep, "er-5120", MER)
    with open(store.path("records", "eeeeeeeeeeeeeeee.parquet"), "wb") as file:
        file.write(b"torn")
    return compare("mer_rotations", sweeps, store, reproduction)


@pytest.fixture(scope="module")
def kept() -> dict[str, str]:
    return {}


@pytest.fixture
def text(comparison, kept) -> str:
    """The page of the comparison, rendered once: those of other tests differ only in the folder of the torn file."""
    if not kept:
        kept["text"] = render(comparison)
    return kept["text"]


@pytest.fixture
def page(text) -> Page:
    return Page(text)


def test_the_page_is_well_formed_and_needs_nothing_else(text, page):
    assert page.open == []
    assert page.loads == []
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text
    assert "<script" not in text
    assert set(re.findall(r"https?://[^\"' <]*", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_ids_are_unique_and_every_reference_has_its_target(text, page):
    assert len(page.ids) == len(set(page.ids))
    assert set(page.targets) <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)


def test_the_page_is_accessible(page):
    assert page.tags[0] == ("html", {"lang": "en"})
    drawn = [attributes for tag, attributes in page.tags if tag == "svg"]
    # two tables with spreads and two kinds of curves and differences, a matrix for each variant that ran, and a forest
    # plot of the one table where two variants ran
    assert len(drawn) == 2 * 4 + 3 + 1
    assert all(a["role"] == "img" and len(a["aria-label"]) > 40 for a in drawn)
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    assert [tag for tag, _ in page.tags if tag == "h1"] == ["h1"]


def test_the_page_says_what_a_reader_needs(comparison, page):
    words = " ".join(" ".join(page.words).split())
    for needed in (
        "Learning to Learn without Forgetting",
        "arXiv 1810.11910",
        "github.com/mattriemer/MER",
        "4b7b9c9",
        "aaaaaaaaaa",  # our own commit
        "python -m clray.reproduce mer_rotations",
        "reproduced†",
        "4 of 5 runs, without seed 4",
        "RA ±1: half the 1.98 points",
        "The meaning of the verdicts",
        "eeeeeeeeeeeeeeee.parquet",
        "<code & co>",
        "c0ffee0000000000",
        "cache",
    ):
        assert needed in words, needed
    for row in comparison.tables[0].rows:
        for run in row.runs.runs:
            assert run.id in words
    for difference in comparison.differences:
        assert " ".join(difference.split()) in words


def test_what_comes_from_outside_is_escaped(text):
    assert "<code & co" not in text
    assert "&lt;code &amp; co&gt;" in text


def test_no_page_names_a_machine(text):
    assert "node-1" not in text


def test_the_page_has_the_same_bytes_again(comparison):
    assert render(comparison) == render(comparison)


def test_the_quick_form_carries_its_label(store, reproduction, fill):
    sweeps = reproduction.sweeps(Selection(quick=True))
    fill(sweeps["mer/rotations"], "mer-5120", MER[:3])
    page = Page(render(compare("mer_rotations", sweeps, store, reproduction)))
    assert " ".join(page.words).count("NOT COMPARABLE WITH THE PAPER (--quick)") == 6


def test_a_page_without_any_run(store, sweeps, reproduction, rotations):
    page = Page(render(compare("mer_rotations", sweeps, store, reproduction)))
    assert page.open == []
    assert not [tag for tag, _ in page.tags if tag == "svg"]
    plain = Page(render(compare("mer/rotations", {"mer/rotations": rotations}, store)))
    assert plain.open == []
    assert "The meaning of the verdicts" in page.words
    assert "The meaning of the verdicts" not in plain.words, "there is none"


def test_the_page_is_written_whole_or_not_at_all(comparison, tmp_path, monkeypatch):
    with pytest.raises(ClrayError, match=f"cannot be written: there is no folder {tmp_path / 'new'}"):
        write_report(comparison, tmp_path / "new" / "report.html")
    target = tmp_path / "new" / "report.html"
    target.parent.mkdir()
    assert write_report(comparison, target) == target
    before = target.read_bytes()
    assert before.decode() == render(comparison)

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("clray.atomic.os.fsync", full)
    with pytest.raises(ClrayError, match="no space left"):
        write_report(comparison, target)
    assert target.read_bytes() == before
    assert list(target.parent.iterdir()) == [target]


def test_the_page_is_written_through_what_is_no_regular_file(comparison, tmp_path):
    """A device stays what it is, full or not, and a link goes on leading to the file."""
    link, file = tmp_path / "link.html", tmp_path / "file.html"
    link.symlink_to(file)
    write_report(comparison, link)
    assert link.is_symlink()
    assert file.read_text(encoding="utf-8") == render(comparison)
    full = tmp_path / "full.html"
    full.symlink_to("/dev/full")
    with pytest.raises(ClrayError, match=r"full\.html: cannot be written: No space left on device"):
        write_report(comparison, full)
    assert full.is_char_device()
    with pytest.raises(ClrayError, match="cannot be written: it is a folder: name a file"):
        write_report(comparison, tmp_path)


def test_the_page_goes_into_the_store_wherever_that_is(comparison, store, tmp_path):
    path = write_into_store(comparison, store, "mer_rotations")
    assert path == store.path("reports", "mer_rotations.html")
    uri = (tmp_path / "elsewhere").as_uri()
    path = write_into_store(comparison, Store(uri), "mer_rotations")
    assert path == str(tmp_path / "elsewhere" / "reports" / "mer_rotations.html")
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    with pytest.raises(StoreError, match=r"blocked/reports/mer_rotations\.html: cannot be written"):
        write_into_store(comparison, Store(blocked), "mer_rotations")


# -- figures -------------------------------------------------------------------------------------------------------


def test_figures_are_svg_with_ids_of_their_own(comparison):
    table = comparison.tables[0]
    runs = next(r.runs for r in table.rows if r.label == "MER")
    for draw in (plots.curves, plots.differences, lambda table, key: plots.spreads(table, table.metrics, key)):
        a, b = draw(table, "a"), draw(table, "b")
        assert a == draw(table, "a")
        ids_a, ids_b = ({e.get("id") for e in ElementTree.fromstring(svg).iter() if e.get("id")} for svg in (a, b))
        assert ids_a
        assert not ids_a & ids_b
    assert len(plots.heat_map(runs, "MER")) < 40_000
    assert len(plots.curves(table)) < 60_000


def test_figures_follow_the_pages_ink(comparison):
    svg = plots.curves(comparison.tables[0])
    assert "currentColor" in svg
    assert "var(--series-0, #0072b2)" in svg
    assert "#010203" not in svg
    assert "var(--reproduced, #1a7f4b)" in plots.differences(comparison.tables[0])


def test_a_figure_in_words_has_the_numbers_of_the_table(comparison):
    """A curve ends at the mean RA of the runs, and a matrix has their mean LA on its diagonal."""
    table = comparison.tables[0]
    assert "MER 89.5" in plots.curves_alt(table)
    runs = next(r.runs for r in table.rows if r.label == "MER")
    assert 100 * runs.seen_curves[:, -1].mean() == pytest.approx(runs.sample("RA").mean)
    assert "87.7% right after" in plots.heat_map_alt(runs, "MER")


def test_all_that_a_page_shows_is_on_it(comparison, page):
    """``clray.dashboards`` declares the panels of the page in W&B, and the report shows all of them."""
    figures = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    words = " ".join(page.words)
    for table in comparison.tables:
        for panel in panels(table.metrics):
            match panel.kind:
                case "verdicts" | "runs":
                    assert comparison.tables[0].rows[0].label in words
                case "spread" if any(row.runs.runs for row in table.rows):
                    assert plots.spreads_alt(table, table.metrics) in figures
                case "curve" if any(row.runs.runs for row in table.rows):
                    assert plots.curves_alt(table, panel.value) in figures
                    assert panel.title in words
                case "matrices":
                    assert all(plots.heat_map_alt(r.runs, r.label) in figures for r in table.rows if r.runs.runs)


def test_spreads_in_words_are_those_of_the_table(comparison):
    table = comparison.tables[0]
    assert "MER RA 89.55 ± 0.13" in plots.spreads_alt(table, ["RA"])
    assert "LA" not in plots.spreads_alt(table, ["RA"])


def test_figures_register_nothing_with_pyplot(comparison):
    plots.curves(comparison.tables[0])
    import sys

    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_drawing_leaves_matplotlibs_settings_alone(comparison):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plots.differences(comparison.tables[0])
    assert dict(matplotlib.rcParams) == before


ODD = ["$x_{", "_hidden", r"\frac{$", "esc\x1b[2J", "<b>&", "数"]


def relabelled(table):
    """The table, its first rows with odd labels."""
    rows = [replace(row, label=label) for row, label in zip(table.rows, ODD, strict=True)]
    return replace(table, rows=rows)


def test_a_label_is_drawn_as_it_is(comparison):
    """No mathtext, no hidden ones, nothing that XML has none of."""
    table = relabelled(comparison.tables[0])
    shown = [visible(row.label) for row in table.rows if row.runs.runs]
    assert {"$x_{", "esc\\x1b[2J"} & set(shown)
    for figure in (plots.curves(table), plots.spreads(table, ["RA"]), plots.differences(table)):
        texts = ["".join(text.itertext()) for text in ElementTree.fromstring(figure).iter(f"{SVG}text")]
        assert [text for text in texts if text in shown] in (shown, shown[::-1])
    runs = next(row.runs for row in table.rows if row.runs.runs)
    ElementTree.fromstring(plots.heat_map(runs, ODD[3]))
    measured = {label: [run.measurements for run in runs.runs] for label in ODD}
    assert landscape.svg(measured) == "", "nothing of it was measured here"


def test_panels_of_many_metrics_stand_in_lines(comparison):
    table = comparison.tables[0]
    one, two = (plots.spreads(table, metrics) for metrics in (["RA", "LA", "BTI"], ["RA", "LA", "BTI", "RA"]))
    width, height = ([float(ElementTree.fromstring(svg).get(side)[:-2]) for svg in (one, two)]
                     for side in ("width", "height"))  # fmt: skip
    assert width[0] == width[1]
    assert height[1] == pytest.approx(2 * height[0], rel=0.01)
    label = next(row.label for row in table.rows if row.runs.runs)
    counts = [[e.text for e in ElementTree.fromstring(svg).iter(f"{SVG}text")].count(label) for svg in (one, two)]
    assert counts == [1, 2], "each line has the labels once"


def test_rows_with_the_same_note_share_it(comparison):
    table = comparison.tables[0]
    first, *others = table.rows
    said = {
        "every row: as it is": [replace(row, note="as it is") for row in table.rows],
        f"{'; '.join(row.label for row in others)}: as they are":
            [replace(first, note=""), *(replace(row, note="as they are") for row in others)],
    }  # fmt: skip
    for note, rows in said.items():
        assert next(text for key, text in notes(replace(table, rows=rows)) if key == "note") == note


def test_the_users_settings_of_matplotlib_change_no_figure(comparison):
    import matplotlib

    table = comparison.tables[0]
    drawn = plots.curves(table), plots.spreads(table, ["RA", "LA"]), plots.heat_map(table.rows[0].runs, "x")
    loud = {"font.size": 30, "text.usetex": True, "axes.grid": True, "lines.linestyle": ":", "savefig.dpi": 7,
            "axes.xmargin": 0.4, "figure.facecolor": "red", "svg.fonttype": "path"}  # fmt: skip
    with matplotlib.rc_context(loud):
        again = plots.curves(table), plots.spreads(table, ["RA", "LA"]), plots.heat_map(table.rows[0].runs, "x")
        assert matplotlib.rcParams["font.size"] == 30
    assert again == drawn


DRAW = """
import os, sys
from clray.analysis import plots
with plots.drawing():
    figure, axes = plots._figure(3, 2)
    axes.plot([1, 2], [3, 4])
    axes.set_title("数 $x_{")
    text = plots.svg(figure, "key", "alt")
sys.stdout.buffer.write(text.encode())
assert os.environ.get("MPLBACKEND") == (sys.argv[1] if len(sys.argv) > 1 else None)
"""


MISSING_BACKENDS = ("module://matplotlib_inline.backend_inline", "module://no.such")


@pytest.mark.parametrize("backend", ["nonsense", *(pytest.param(b, marks=pytest.mark.slow) for b in MISSING_BACKENDS)])
def test_the_users_surroundings_of_matplotlib_change_no_figure(backend, tmp_path):
    """A notebook's backend, one that is wrong, a settings file, and a folder for its cache that cannot be written."""
    root = str(Path(__file__).resolve().parents[2])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MPL")} | {
        "PYTHONPATH": root
    }
    ask = partial(subprocess.run, capture_output=True, text=True, timeout=300)
    plain = ask([sys.executable, "-c", DRAW], env=environment, cwd=root)
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nlines.linewidth: 9\nno such thing\nbackend: wrong\n")
    environment |= {"MPLBACKEND": backend, "MPLCONFIGDIR": "/dev/null/x"}
    odd = ask([sys.executable, "-c", DRAW, backend], env=environment, cwd=tmp_path)
    assert plain.stderr == odd.stderr == ""
    assert odd.stdout == plain.stdout != ""


def test_a_mean_over_all_tasks_is_drawn_where_all_were_measured_again_and_again(store, sweeps, reproduction, make):
    """If only the tasks seen so far are measured, this mean exists only at the end, so there is no curve."""
    cell = of(sweeps["mer/rotations"], "mer-5120")[0]
    record = make(cell, 87.6, 89.5)
    store.write(record)
    every = compare("mer_rotations", sweeps, store, reproduction).tables[0]
    assert plots.has_curve(every, "accuracy/mean")
    assert plots.has_curve(every, "accuracy/mean_seen")
    record.measurements = [m for m in record.measurements if m.eval_task < m.trained_tasks]
    store.write(record)
    seen = compare("mer_rotations", sweeps, store, reproduction).tables[0]
    assert not plots.has_curve(seen, "accuracy/mean")
    assert plots.has_curve(seen, "accuracy/mean_seen")
